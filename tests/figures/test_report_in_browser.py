"""The report as a reader uses it, in a browser without a window."""

import pytest
from browser import asked_addresses, open_browser
from scored_runs import options, save_grid, save_run

from figures.report import report_page
from figures.scored_models import read_models

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)<", 'script>&"x'  # A sweep and a run in it: with the slash between them they are a script.


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    save_grid(folder / "grid")
    for sweep in (EVIL[0], "other"):
        save_run(folder / sweep / EVIL[1], options(8), [(0.5, 0.5, 0.5)])
    folders = [folder / "grid", folder / EVIL[0], folder / "other"]
    path = folder / "report.html"
    path.write_text(report_page("grid", read_models(folders)), encoding="utf-8")
    return path


@pytest.fixture
def page(browser, path):
    """The page, just opened."""
    browser.get_log("performance")
    browser.get(path.as_uri())
    return browser


def column(page, title):
    """The values of a column from the top, None where there is none."""
    script = """
        const place = [...document.querySelectorAll("thead th")].findIndex((h) => h.innerText.trim() === arguments[0]);
        return [...document.querySelectorAll("tbody tr")].map((row) => row.cells[place].dataset.value);
    """
    return [None if value == "" else value for value in page.execute_script(script, title)]


def header(page, title):
    from selenium.webdriver.common.by import By

    return next(button for button in page.find_elements(By.CSS_SELECTOR, "thead button") if button.text == title)


def rows(page, selector):
    """The names of the models whose rows the selector finds."""
    script = "return [...document.querySelectorAll(arguments[0])].map((row) => row.cells[0].dataset.value)"
    return set(page.execute_script(script, f"tbody tr{selector}"))


def lines(page, selector):
    """The names of the models whose lines the selector finds."""
    script = "return [...document.querySelectorAll(arguments[0])].map((line) => line.textContent)"
    return set(page.execute_script(script, f"#chart .model{selector}"))


def mouse(page):
    from selenium.webdriver.common.action_chains import ActionChains

    return ActionChains(page, duration=0)


def point(page, place, height):
    """Where in the window an axis has this height."""
    script = """
        document.getElementById("chart").scrollIntoView();
        const title = document.querySelectorAll("#chart .title")[arguments[0]];
        const axis = title.nextElementSibling.getBoundingClientRect();
        return [axis.x, axis.bottom - (axis.bottom - axis.top) * arguments[1]];
    """
    return [round(coordinate) for coordinate in page.execute_script(script, place, height)]


def drag(page, place, start, end):
    """Along an axis, between two of its heights."""
    actions = mouse(page)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(*point(page, place, start)).pointer_down()
    pointer.move_to_location(*point(page, place, (start + end) / 2))
    pointer.move_to_location(*point(page, place, end)).pointer_up()
    actions.perform()


def test_nothing_is_fetched_nothing_is_complained_of_and_names_are_text(page):
    assert page.get_log("browser") == []
    asked = asked_addresses(page)
    assert len(asked) == 6  # the page and its five pictures
    assert {address.split(":")[0] for address in asked} == {"file", "data"}
    assert "/".join(EVIL) in column(page, "model")
    assert "/".join(EVIL) in page.find_element("css selector", "tbody").text


def test_a_click_on_a_header_sorts_numbers_as_numbers_with_missing_ones_last(page):
    before = column(page, "learning rate")
    values = sorted(float(value) for value in before if value is not None)
    missing = [None] * before.count(None)
    assert missing
    assert column(page, "validation F1")[0] == max(filter(None, column(page, "validation F1")), key=float)
    for order, expected in (("ascending", values), ("descending", values[::-1])):
        header(page, "learning rate").click()
        shown = column(page, "learning rate")
        assert [None if value is None else float(value) for value in shown] == expected + missing
        sorted_by = page.find_elements("css selector", "thead [aria-sort]")
        assert [(cell.text, cell.get_attribute("aria-sort")) for cell in sorted_by] == [("learning rate", order)]


def test_the_keyboard_sorts_and_shows_lines(page):
    from selenium.webdriver.common.keys import Keys

    header(page, "model").send_keys(Keys.ENTER)
    assert column(page, "model")[0] == "/".join(EVIL)
    assert column(page, "model")[-1] == "other/" + EVIL[1]
    header(page, "weighted test F1").send_keys(Keys.TAB)
    first = column(page, "model")[0]
    assert rows(page, ".highlighted") == rows(page, ":focus") == {first}


def test_a_brush_chooses_lines_and_rows_alike(page):
    from selenium.webdriver.common.keys import Keys

    def without(title, chosen):
        values = zip(column(page, "model"), column(page, title), strict=True)
        return {name for name, value in values if value is None or not chosen(float(value))}

    everything = rows(page, "")
    low = without("learning rate", lambda rate: rate > 1e-4)
    weak = without("dropout", lambda dropout: dropout > 0.4)
    drag(page, 1, 0.3, 1.02)
    assert rows(page, ".faded") == lines(page, ".faded") == low
    assert lines(page, ":not(.faded)") == everything - low
    chosen = f"{len(everything - low)} of {len(everything)} models chosen"
    assert page.find_element("id", "status").text == chosen

    drag(page, 2, 1.02, 0.9)
    assert rows(page, ".faded") == lines(page, ".faded") == low | weak
    header(page, "test F1").click()
    assert rows(page, ".faded") == low | weak

    actions = mouse(page)
    actions.w3c_actions.pointer_action.move_to_location(*point(page, 2, 0.5))
    actions.double_click().perform()
    assert rows(page, ".faded") == lines(page, ".faded") == set()
    drag(page, 0, -0.08, -0.15)  # what has no batch size
    assert rows(page, ":not(.faded)") == lines(page, ":not(.faded)") == {"grid/hog"}
    mouse(page).send_keys(Keys.ESCAPE).perform()
    assert rows(page, ".faded") == lines(page, ".faded") == set()


def test_pointing_at_a_row_shows_its_line_and_the_other_way_round(page):
    def in_front():
        return page.find_element("css selector", "#chart .front").get_attribute("d")

    row = page.find_elements("css selector", "tbody tr")[3]
    mouse(page).move_to_element(row).perform()
    assert rows(page, ".highlighted") == {row.find_element("css selector", "th").text}
    assert page.find_element("id", "status").text in rows(page, ".highlighted")
    pointed = in_front()

    # Near the end of the best model's line, which is on top.
    x, y, shape = page.execute_script("""
        const line = document.querySelector("#chart .best .hit");
        line.scrollIntoView({block: "center"});
        const place = line.getPointAtLength(0.9 * line.getTotalLength()).matrixTransform(line.getScreenCTM());
        return [place.x, place.y, line.getAttribute("d")];
    """)
    assert pointed != shape
    actions = mouse(page)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    actions.perform()
    assert in_front() == shape
    assert rows(page, ".highlighted") == lines(page, ".best") == rows(page, ".best")


def test_labels_of_the_chart_do_not_overlap(page):
    boxes = page.execute_script("""
        return [...document.querySelectorAll("#chart text")].map((text) => {
            const box = text.getBBox();
            return [box.x, box.x + box.width, box.y, box.y + box.height, text.textContent];
        });
    """)
    assert len(boxes) > 20
    for place, (left, right, top, bottom, text) in enumerate(boxes):
        assert 0 <= left < right <= 1000
        for other in boxes[:place]:
            # A line of text has 3 units of air above and below the letters.
            apart = right <= other[0] or other[1] <= left or bottom - 3 <= other[2] + 3 or other[3] - 3 <= top + 3
            assert apart, (text, other[4])


def test_it_can_be_read_in_the_dark_and_in_a_narrow_window(page):
    def colours():
        return page.execute_script("""
            const style = getComputedStyle(document.body);
            const line = getComputedStyle(document.querySelector("#chart .best .line"));
            return [style.backgroundColor, style.color, line.stroke];
        """)

    def prefer(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    try:
        for scheme in ("light", "dark"):
            prefer(scheme)
            paper, ink, best = ([int(c) for c in colour[4:-1].split(",")] for colour in colours())
            assert (sum(paper) > 3 * 128) == (scheme == "light")
            assert abs(sum(paper) - sum(ink)) > 400
            assert abs(sum(paper) - sum(best)) > 250
        page.set_window_size(500, 900)
        width, window = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert width <= window
    finally:
        prefer("")
        page.set_window_size(1280, 1000)
