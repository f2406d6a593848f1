"""A browser without a window, for tests of pages; they skip where none is installed."""

import contextlib
import json
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --window-size=1280,1000"
)


@contextlib.contextmanager
def open_browser(profile):
    """Open one that keeps its files in the folder."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (found and driver):
        pytest.skip(f"no browser: install {' or '.join(BROWSERS)}, and chromedriver")
    from selenium import webdriver

    chosen = webdriver.ChromeOptions()
    chosen.binary_location = found
    for argument in (*QUIET.split(), f"--user-data-dir={profile}"):
        chosen.add_argument(argument)
    chosen.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(chosen, webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


def asked_addresses(browser):
    """What the page has fetched since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
