"""The report page in a real Chromium: it draws, answers to pointer and keyboard, and is readable."""

import os
import shutil

import pytest
from report_run import HOSTILE, write_run

from rlprune.results.folder import RunFolder
from rlprune.results.frontier import frontier
from rlprune.results.page import page_html
from rlprune.results.page_data import page_data
from rlprune.results.report import report

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECTIONS = {"frontier", "table", "baselines", "use", "filters", "learning", "settings", "failures", "origin"}
SIZES = [(width, scheme) for width in (400, 1600) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} on the PATH, and CHROMIUM is not set")
    with playwright.sync_playwright() as started:
        # Chromium's own sandbox does not work for root, as in most containers; the page is ours.
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("results") / "run")
    report(folder.path)
    return folder


@pytest.fixture
def open_page(chromium):
    """Opens a report; the test fails if the page complains or asks for anything from outside."""
    pages, faults = [], []

    def open_it(folder, width=1000, scheme="light"):
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.set_default_timeout(10_000)
        pages.append(page)
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url) if "http" in request.url else None)
        page.goto((folder.path / "report.html").resolve().as_uri())
        return page

    yield open_it
    for page in pages:
        page.close()
    assert faults == []


def trials_in(page):
    return page.locator("#table tbody td:first-child").all_text_contents()


def test_everything_is_drawn_and_text_stays_text(open_page, run):
    page = open_page(run)
    page.wait_for_selector("#frontier .chart svg .hit")
    page.wait_for_selector("#learning .panel svg .hit")
    page.wait_for_selector("#settings .panel svg .hit")
    visible = page.eval_on_selector_all("main section:not([hidden])", "found => found.map(one => one.id)")
    assert set(visible) == SECTIONS
    assert page.title() == "run"
    assert page.locator("img").count() == 0
    page.locator("#failures summary").click()
    assert HOSTILE in page.locator("#failures pre").inner_text()
    assert page.locator('.hit[aria-label^="l1 ("]').count() == 2
    assert page.locator('.hit[aria-label^="rlprune ("]').count() == 0
    assert page.locator("#frontier svg text", has_text="↓").all_text_contents() == ["↓ 20.0"]
    assert page.locator("#baselines tbody tr").count() == 4
    assert page.locator("#filters td.cell").count() == 4 * 2
    page.locator("#learning select").select_option("t0005")
    assert page.locator("#learning .panel").count() == 2


def test_hovering_shows_the_row_and_clicking_its_commands(open_page, run):
    page = open_page(run)
    mark = page.locator('.hit[aria-label^="t0002, on the frontier (val)"]')
    mark.hover()
    shown = page.locator("#tooltip").inner_text()
    assert "t0002" in shown
    assert "1.50 [1.00, 2.00]" in shown
    assert "35.0 %" in shown
    mark.click()
    assert "models/t0002.pt" in page.locator("#use pre").inner_text()
    assert page.locator("#table tr.selected td").first.inner_text() == "t0002"
    page.mouse.move(5, 5)
    assert page.locator("#tooltip").is_hidden()
    mark.focus()
    assert "t0002" in page.locator("#tooltip").inner_text()


def test_a_click_on_a_heading_sorts_and_what_is_not_known_comes_last(open_page, run):
    page = open_page(run)
    macs = page.locator("#table th button", has_text="MACs %")
    macs.click()
    assert trials_in(page) == ["t0002", "t0001 (deploy)", "t0000", "t0003", "t0004"]
    macs.click()
    assert trials_in(page) == ["t0003", "t0000", "t0001 (deploy)", "t0002", "t0004"]
    assert page.locator("#table th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert "t0001" in page.locator("#table tr.selected td").first.inner_text()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_it_is_readable_at_every_size_and_in_dark(open_page, run, width, scheme):
    page = open_page(run, width, scheme)
    page.wait_for_selector("#frontier .chart svg")
    assert page.evaluate("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
    sizes = page.locator("main :not(details *)").evaluate_all(
        "found => found.map(one => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 12
    boxes = page.locator("svg *").evaluate_all(
        "found => found.map(one => one.getBoundingClientRect().toJSON())"
    )
    assert [box for box in boxes if box["left"] < -1 or box["right"] > width + 1] == []
    assert contrast(page) > 7
    page.locator("#theme").click()
    assert contrast(page) > 7


def contrast(page):
    """The contrast of text to page (WCAG 2), as it is drawn."""
    colours = page.locator("body").evaluate(
        "body => [getComputedStyle(body).color, getComputedStyle(body).backgroundColor]"
    )
    lights = sorted(luminance(colour) for colour in colours)
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour):
    values = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_run_that_has_only_begun_is_shown(open_page, tmp_path):
    folder = RunFolder.create(tmp_path / "run", {}, {})
    report(folder.path)
    page = open_page(folder)
    assert page.locator("#summary").inner_text().startswith("0 trials")
    assert page.eval_on_selector_all("main section:not([hidden])", "found => found.map(one => one.id)") == [
        "origin"
    ]


def test_copies_within_a_population_are_listed(open_page, tmp_path):
    folder = write_run(tmp_path / "run")
    records = folder.records()
    data = page_data(folder, records, frontier(records), None)
    start = {
        "step": 0,
        "donor": "",
        "b": 2.0,
        "settings": {"agent.learning_rate": 0.1, "agent.policy": "set"},
    }
    copy = {
        **start,
        "step": 4,
        "donor": "t0000",
        "settings": {"agent.learning_rate": 0.2, "agent.policy": "set"},
    }
    copy["left"] = {"score": 0.1, "drop_val": 1.25, "macs_ratio": 0.9}
    data["rows"][2]["lineage"] = [start, copy]
    (folder.path / "report.html").write_text(page_html("run", data), encoding="utf-8")
    page = open_page(folder)
    cells = page.locator("#lineage tbody td").all_text_contents()
    assert cells == ["4", "t0002", "t0000", "1.25", "90.0", "agent.learning_rate 0.1→0.2"]
