"""The report page in a real Chromium: it draws, answers to pointer and keyboard, and is readable."""

import itertools
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


@pytest.fixture
def open_changed(open_page, tmp_path):
    """Opens the page of a run whose data was changed before: ``change`` gets what the script will read."""

    def open_it(change, *look):
        folder = write_run(tmp_path / "run")
        records = folder.records()
        data = page_data(folder, records, frontier(records), 1.0)
        change(data)
        (folder.path / "report.html").write_text(page_html("run", data), encoding="utf-8")
        return open_page(folder, *look)

    return open_it


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
    return contrast_of(colours)


def contrast_of(colours):
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


def test_copies_within_a_population_are_listed(open_changed):
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
    page = open_changed(lambda data: data["rows"][2].update(lineage=[start, copy]))
    cells = page.locator("#lineage tbody td").all_text_contents()
    assert cells == ["4", "t0002", "t0000", "1.25", "90.0", "agent.learning_rate 0.1→0.2"]


def test_axes_of_next_to_no_range_end_and_narrow_ones_have_true_numbers(open_changed):
    def change(data):
        flat, narrow = data["curves"]["t0001"]
        flat.update(reward_mean=[0.5] * 3, reward_max=[0.5] * 3, reward_std=[1.1e-16] * 3)
        narrow.update(reward_mean=[0.5, 0.50001, 0.50002], reward_max=[0.50002] * 3, reward_std=[0.0] * 3)

    page = open_changed(change)
    page.wait_for_selector("#learning .panel svg .hit")
    axes = page.locator("#learning svg[aria-label^=rewards]").evaluate_all(
        "found => found.map(one => [...one.querySelectorAll('text')].map(text => text.textContent))"
    )
    assert axes == [["0", "0.5", "1"], ["0.5", "0.50001", "0.50002"]]


def baseline(method, macs, val, test):
    """A row of another method, as the page's script reads it."""
    figures = {"macs_ratio": macs, "accuracy_val": val, "accuracy_test": test}
    return {
        "method": method,
        "own": False,
        **figures,
        "values": {"note": "" if method == "m0" else "better", **figures},
        "shown": {"note": "-", **{name: str(value) for name, value in figures.items()}},
    }


def test_no_point_leaves_the_chart_and_a_collapsed_one_does_not_squeeze_it(open_changed):
    def change(data):
        collapsed = {"accuracy_val": 11.0, "drop_val": 76.0, "drop_val_low": 75.0, "drop_val_high": 77.0}
        data["rows"][3].update(collapsed)
        data["rows"].append({**data["rows"][2], **collapsed, "trial": "t9", "macs_ratio": 0.1})
        data["baselines"] = [baseline("base-tuned", 1.0, 90.0, 89.0), baseline("l1", 0.5, 20.0, 85.0)]
        data["base"]["images_val"] = None

    page = open_changed(change)
    chart = page.locator("#frontier .chart svg")
    chart.wait_for()
    ends = chart.locator(".hit").evaluate_all("found => found.map(one => one.cy.baseVal.value)")
    height = chart.evaluate("one => one.height.baseVal.value")
    assert 8 <= min(ends)
    assert max(ends) <= height - 40
    moved = chart.locator("text", has_text="↓").all_text_contents()
    assert sorted(moved) == ["↓ 11.0", "↓ 11.0", "↓ 20.0"]
    good = [chart.locator(f'.hit[aria-label^="t000{n}, on the frontier (val)"]') for n in (0, 2)]
    first, last = (one.evaluate("one => one.cy.baseVal.value") for one in good)
    assert last - first > 30, "1.25 points are told apart"
    assert "images unknown" in chart.locator('.hit[aria-label^="base model, val"]').get_attribute(
        "aria-label"
    )


def test_marks_of_many_goals_and_methods_can_be_told_apart(open_changed):
    def change(data):
        extra = [{**data["rows"][3], "trial": f"u{n}", "b": 3.0 + n} for n in range(9)]
        data["rows"] += [*extra, {**extra[0], "trial": "v", "b": None, "target_macs": 0.3}]
        data["baselines"] = [baseline(f"m{n}", 0.5, 80.0 + n / 5, 79.0 + n / 5) for n in range(13)]

    page = open_changed(change)
    looks = page.locator("#frontier .legend li").evaluate_all(
        "found => found.map(one => [one.textContent, one.querySelector('svg').innerHTML])"
    )
    texts = [text for text, _ in looks]
    goals = ["b = 0.5 (lowest)", "b = 11 (highest)", "to 30.0 % MACs"]
    marks = ["val (filled)", "test (hollow)", "base model"]
    assert texts == [*goals, *marks, *(f"m{n}" for n in range(13))]
    assert len({look for _, look in looks}) == len(looks)
    fills = [
        page.locator(f'.hit[aria-label^="m7 ({split})"]').evaluate(
            "one => one.previousElementSibling.getAttribute('fill')"
        )
        for split in ("val", "test")
    ]
    assert "var(--page)" not in fills[0]
    assert fills[1] == "var(--page)"
    assert page.locator("#baselines th").first.get_attribute("class") == "left"
    page.locator("#table th button", has_text="b").first.click()
    assert page.locator("#table td:nth-child(2)").all_text_contents()[-1] == "to 30.0 %"


def test_the_keyboard_selects_rows_that_have_commands_and_failed_ones_are_listed(open_changed):
    def change(data):
        data["rows"][3]["commands"] = ""
        data["rows"][4]["error"] = ""

    page = open_changed(change)
    assert page.locator("#failures summary").all_text_contents() == ["t0004 (b = 2): no error was recorded"]
    chosen = page.locator("#use-note")
    page.locator('.hit[aria-label^="t0002, on the frontier (val)"]').press("Space")
    assert chosen.inner_text().startswith("For t0002")
    page.locator("#table td button", has_text="t0000").press("Enter")
    assert chosen.inner_text().startswith("For t0000")
    assert page.locator("#table td button").all_text_contents() == ["t0000", "t0001 (deploy)", "t0002"]
    assert page.locator("#table tr.selectable").count() == 3
    assert page.locator(".hit[tabindex]").count() == 6
    assert page.locator(".hit[role=img][tabindex]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_of_the_filter_map_can_be_read_on_every_shade(open_changed, scheme):
    def change(data):
        data["base_widths"] = {f"layer{share}": 100 for share in range(101)}
        data["rows"] = [{**data["rows"][0], "widths": {f"layer{share}": share for share in range(101)}}]

    page = open_changed(change, 1000, scheme)
    pairs = page.locator("#filters td.cell").evaluate_all(
        """found => {
            const brush = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
            const drawn = colour => {
                brush.fillStyle = colour;
                brush.fillRect(0, 0, 1, 1);
                return `rgb(${[...brush.getImageData(0, 0, 1, 1).data].slice(0, 3).join()})`;
            };
            return found.map(getComputedStyle).map(one => [drawn(one.color), drawn(one.backgroundColor)]);
        }"""
    )
    assert len(pairs) == 101
    assert min(contrast_of(pair) for pair in pairs) > 4.5


def test_it_is_printed_whole_in_light_colours(open_changed):
    def change(data):
        data["base_widths"] = {f"features.{n}.conv": 50 for n in range(36)}
        for row in data["rows"][:4]:
            row["widths"] = data["base_widths"]
        data["baselines"] = [baseline("l1", 0.5, 80.0, 79.0)]
        names = [f"drop_{split}_{end}_tuned_base" for split in ("val", "test") for end in range(5)]
        data["baselines"][0]["shown"] |= dict.fromkeys(names, "0.123456")

    page = open_changed(change, 1400, "dark")
    page.wait_for_selector("#settings .panel svg .hit")
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.emulate_media(media="print")
    # At once, as a printer lays it out: nothing is drawn again for the width of the paper.
    ends = page.evaluate(
        """() => {
            document.body.style.width = '703px'; // A4 without its margins
            const found = document.querySelectorAll('.chart svg, .panel svg, td');
            const left = document.body.getBoundingClientRect().left;
            return [...found].map(one => one.getBoundingClientRect().right - left);
        }"""
    )
    assert max(ends) <= 703.5
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    cell = page.locator("#filters td.cell").first
    assert cell.evaluate("one => getComputedStyle(one).printColorAdjust") == "exact"


def test_long_choices_do_not_overlap(open_changed):
    choices = ["bn_scale", "redundancy", "activation", "a choice with a very long name", *"abcd"]
    page = open_changed(lambda data: data["settings"][2].update(choices=choices))
    panel = page.locator("#settings .panel").nth(2)
    panel.locator("svg").wait_for()
    boxes = panel.locator("svg > text[transform]").evaluate_all(
        "found => found.map(one => one.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == len(choices)
    assert all(one["right"] <= other["left"] + 2 for one, other in itertools.pairwise(boxes))
    assert max(box["bottom"] for box in boxes) <= panel.bounding_box()["y"] + panel.bounding_box()["height"]
