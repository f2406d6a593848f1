"""The page that classifies what is dropped on it: over HTTP, and as a person uses it in a browser without a window."""

import base64
import contextlib
import dataclasses
import http.client
import io
import json
import logging
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.parse

import jax
import numpy as np
import pytest
import uvicorn
from browser import asked_addresses, open_browser
from PIL import Image
from planted import smooth_images
from random_run import random_trained, save_random_run
from scan_files import dicom_bytes, encoded, write_picture
from scored_runs import save_predictions
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import jaxcnn
from jaxcnn import SimpleCNN
from jaxcnn.inference import serve
from jaxcnn.inference.overlay import draw_overlay
from jaxcnn.inference.unlike import fit_unlike
from jaxcnn.runs.folder import Run
from jaxcnn.runs.json_files import write_json
from train.__main__ import main

SIZE = 64
MODEL = SimpleCNN(
    stem_features=(2, 3), squeeze_features=2, skip_features=4, head_features=5, hidden_features=6, dropout=0.0
)
EVIL = "<script>alert(1)<"
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
FRAMES = np.random.default_rng(1).integers(0, 4000, (2, 70, 50), np.uint16)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    # It knows smooth images; the noise that the other tests send is unlike those.
    trained = fit_unlike(random_trained(MODEL, SIZE), smooth_images(64, size=SIZE), smooth_images(32, 1, SIZE))
    folder = save_random_run(tmp_path_factory.mktemp("runs") / EVIL, trained)
    save_predictions(Run(folder), seed=1)
    write_json(Run(folder).environment, {"packages": {"jax": "1.0"}, "git_revision": "0123456789" * 4})
    return folder


@pytest.fixture(scope="module")
def server(run):
    """The port on which the page of the run is served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = uvicorn.Server(uvicorn.Config(serve.build_app([run]), log_level="warning"))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        served.should_exit = True
        thread.join()


def ask(port, name, content, host="127.0.0.1"):
    """The status and what the server answers for a file."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        path = f"/classify?name={urllib.parse.quote(name)}"
        connection.request("POST", path, content, {"Host": f"{host}:{port}", "Content-Type": "image/png"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def classified(port, name, content):
    status, text = ask(port, name, content)
    assert status == 200, text
    return json.loads(text)["images"]


def test_its_answers_are_those_of_the_classifier_with_the_map_beside_the_scan(server, run, tmp_path):
    classifier = jaxcnn.load(run)
    (tmp_path / "series").write_bytes(dicom_bytes(FRAMES))
    (image,) = classified(server, "a/b ü.png", encoded(Image.fromarray(PIXELS)))
    slices = classified(server, "series", dicom_bytes(FRAMES))  # Without an ending, as names of DICOM files often are.
    assert [of["name"] for of in (image, *slices)] == ["a/b ü.png", "series#1", "series#2"]
    expected = np.concatenate([classifier(PIXELS), classifier(tmp_path / "series")])
    for of, probabilities in zip((image, *slices), expected, strict=True):
        ranked = sorted(zip(classifier.classes, probabilities, strict=True), key=lambda pair: -pair[1])
        assert [name for name, _ in of["probabilities"]] == [name for name, _ in ranked]
        np.testing.assert_allclose([p for _, p in of["probabilities"]], [p for _, p in ranked], rtol=1e-4)
    assert image["unlike"] == pytest.approx(float(classifier.unlike(PIXELS)[0]), rel=1e-3)
    picture = Image.open(io.BytesIO(base64.b64decode(image["picture"].partition(",")[2])))
    overlay = draw_overlay(PIXELS[..., np.newaxis] / np.float32(255), classifier.saliency(PIXELS)[0])
    assert picture.size == overlay.size
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(overlay)).max() <= 1


def test_several_runs_answer_as_one(run, tmp_path):
    other = random_trained(MODEL, SIZE, tta="flip")
    both = jaxcnn.load([run, save_random_run(tmp_path / "other", other)])
    (image,) = serve.build_answer(both)("scan.png", encoded(Image.fromarray(PIXELS)))
    expected = dict(zip(both.classes, both(PIXELS)[0], strict=True))
    assert dict(image["probabilities"]) == pytest.approx(expected, rel=1e-4)
    assert image["unlike"] is None  # One of them doesn't know.


def test_bad_files_get_one_line_and_nothing_is_stored(server, run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.setattr(serve, "MOST_BYTES", 100_000)
    monkeypatch.setattr(serve, "MOST_SLICES", 2)
    noise = np.random.default_rng(0).bytes(90_000)
    for name, content, status, message in [
        ("notes.txt", b"no image", 400, "is not an image file (JPEG, "),
        ("scan.png", b"", 400, "is empty"),
        ("scan.png", noise, 400, "is not a JPEG, PNG, "),
        ("scan.dcm", noise, 400, "is "),
        ("scan.png", 2 * noise, 413, "is larger than 0 MB"),
        ("series.dcm", dicom_bytes(np.zeros((3, 16, 16), np.uint16)), 400, "holds 3 slices, more than 2"),
    ]:
        found, text = ask(server, name, content)
        assert found == status, text
        error = json.loads(text)["error"]
        assert error.startswith(message)
        assert "\n" not in error
    classified(server, "scan.png", encoded(Image.fromarray(PIXELS)))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_gives_no_numbers_is_told_in_one_line(tmp_path):
    trained = random_trained(MODEL, SIZE)
    spoilt = dataclasses.replace(trained, variables=jax.tree.map(lambda leaf: leaf * np.nan, trained.variables))
    answer = serve.build_answer(jaxcnn.load(save_random_run(tmp_path / "spoilt", spoilt)))
    with pytest.raises(ValueError, match=r"^has no probabilities, since numbers become infinite or NaN in the network"):
        answer("scan.png", encoded(Image.fromarray(PIXELS)))


def test_a_page_that_is_closed_during_an_upload_is_no_fault(server, caplog):
    log = logging.getLogger("uvicorn.error")
    log.addHandler(caplog.handler)
    with socket.create_connection(("127.0.0.1", server)) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf of it")
    classified(server, "scan.png", encoded(Image.fromarray(PIXELS)))
    log.removeHandler(caplog.handler)
    assert not caplog.records


def test_a_card_that_holds_the_marks_of_the_page_is_shown_as_it_is(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "{{ limits }}")
    assert "<h1>{{ limits }}</h1>" in serve.page([Run(folder)])


def test_a_page_from_elsewhere_is_not_served(server):
    assert ask(server, "scan.png", b"", host="evil.example")[0] == 400


def test_what_keeps_it_from_serving_is_told_in_one_line(server, run, tmp_path, monkeypatch, capsys):
    def told(*words):
        monkeypatch.setattr(sys, "argv", ["train", "serve", *map(str, words)])
        with pytest.raises(SystemExit) as error:
            main()
        shown = capsys.readouterr().err
        assert (error.value.code, shown.count("\n")) == (2, 1)
        return shown

    assert "no run folder" in told(tmp_path)
    assert f"--port {server}: Address already in use; choose another port" in told(run, "--port", server)
    assert "--port 70000: must be 0 to 65535" in told(run, "--port", 70000)
    assert "--host nowhere.invalid --port 8000: " in told(run, "--host", "nowhere.invalid")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "not all installed: pip install" in told(run)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, server):
    """The page, just opened."""
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(f"http://127.0.0.1:{server}/")
    return browser


def upload(page, *paths):
    """Choose files and wait until each has an answer."""
    page.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    WebDriverWait(page, 60).until(
        lambda page: page.find_elements(By.TAG_NAME, "article") and not page.find_elements(By.CLASS_NAME, "waiting")
    )
    return page.find_elements(By.TAG_NAME, "article")


def test_the_page_tells_what_it_is_and_fetches_nothing_from_elsewhere(page, server):
    time.sleep(0.2)
    assert page.get_log("browser") == []
    # The browser's own pages have addresses, too.
    hosts = {urllib.parse.urlsplit(address).netloc for address in asked_addresses(page) if address.startswith("http")}
    assert hosts == {f"127.0.0.1:{server}"}
    text = page.find_element(By.TAG_NAME, "body").text
    for words in (EVIL, "Research software, not a medical device", "macro F1", "near-duplicate", "python -m train"):
        assert words in text
    assert page.title == f"{EVIL} – jaxcnn"
    scores = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, "td")]
    assert "macro ROC AUC" in scores


def test_scans_and_a_bad_file_get_their_answers_side_by_side(page, run, tmp_path):
    picture = write_picture(tmp_path / "scan.png", PIXELS)
    (tmp_path / "series.dcm").write_bytes(dicom_bytes(FRAMES))
    (tmp_path / "<b>notes.txt").write_text("no image")
    first, second, third, bad = upload(page, picture, tmp_path / "series.dcm", tmp_path / "<b>notes.txt")
    classifier = jaxcnn.load(run)
    expected = [*classifier.predict(picture), *classifier.predict(tmp_path / "series.dcm")]
    for article, name in zip((first, second, third), ("scan.png", "series.dcm#1", "series.dcm#2"), strict=True):
        assert article.find_element(By.CLASS_NAME, "name").text == name
        assert article.find_element(By.CLASS_NAME, "class").text == expected.pop(0)
        shares = [float(row.text.split()[-2]) for row in article.find_elements(By.CLASS_NAME, "row")]
        assert len(shares) == len(classifier.classes)
        assert sum(shares) == pytest.approx(100, abs=0.3)
        picture = article.find_element(By.TAG_NAME, "img")
        assert page.execute_script("return arguments[0].naturalWidth", picture) == 2 * 3 * SIZE
    assert bad.text.startswith("<b>notes.txt: is not an image file")
    assert len(bad.text.splitlines()) == 1


def test_an_image_unlike_the_training_images_has_a_warning(page, run, tmp_path):
    noise, smooth = PIXELS, smooth_images(1, 2, SIZE)[0, ..., 0]
    (of_noise,) = jaxcnn.load(run).unlike(noise)
    first, second = upload(
        page, write_picture(tmp_path / "noise.png", noise), write_picture(tmp_path / "smooth.png", smooth)
    )
    warning = first.find_element(By.CLASS_NAME, "warning").text
    assert warning.startswith(f"This image is unlike the training images ({of_noise:.1f} times the threshold).")
    assert second.find_elements(By.CLASS_NAME, "warning") == []


def test_dropping_a_file_is_the_same_as_choosing_it(page):
    png = base64.b64encode(encoded(Image.fromarray(PIXELS))).decode()
    script = """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.png"));
        dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
    """
    page.execute_script(script, png)
    WebDriverWait(page, 60).until(lambda page: page.find_elements(By.CLASS_NAME, "class"))
    assert page.find_element(By.CLASS_NAME, "name").text == "dropped.png"


def test_on_a_phone_everything_is_in_one_column_and_nothing_overflows(page, tmp_path):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        (article,) = upload(page, write_picture(tmp_path / f"{'long' * 30}.png", PIXELS))
        width, window = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert (width, window) == (360, 360)
        picture, said = article.find_element(By.TAG_NAME, "img").rect, article.find_element(By.CLASS_NAME, "class").rect
        assert picture["x"] == said["x"]
        assert picture["y"] + picture["height"] < said["y"]
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
