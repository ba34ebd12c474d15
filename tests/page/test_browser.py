"""The report in a real Chromium: sorted, filtered, searched, with hostile texts, by keyboard, and looked at by axe."""

import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.cli import main
from tests.support.report_data import HOSTILE, SCRIPT, hostile, kept_tables

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; `make browser` installs it"),
]


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(sweep, tmp_path_factory) -> dict[str, Path]:
    """The page of the small sweep with all tables, and the one with hostile texts."""
    root = tmp_path_factory.mktemp("reports")
    shutil.copytree(sweep, root / "sweep")
    hostile(root / "hostile")
    for name, tables in (("sweep", kept_tables(root / "sweep")), ("hostile", nullcontext())):
        with tables:
            assert main(["report", f"results={root / name}", "trials=100", "permutations=4000"]) == 0
    return {name: root / name / "report.html" for name in ("sweep", "hostile")}


class Opened:
    """A page that fails the test as soon as it asks for anything but itself or says anything in the console."""

    def __init__(self, browser, path: Path, **options) -> None:
        self.wrong: list[str] = []
        self.context = browser.new_context(**{"viewport": WIDE, **options})
        self.page = self.context.new_page()
        self.page.on("request", lambda r: self.wrong.append(r.url) if not self._own(r.url, path) else None)
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.goto(path.as_uri())

    @staticmethod
    def _own(url: str, path: Path) -> bool:
        return url.partition("#")[0] == path.as_uri() or url.startswith("data:")

    def __enter__(self):
        return self.page

    def __exit__(self, *error):
        self.context.close()
        if error[0] is None:
            assert self.wrong == []


def column(page, name: str) -> list[str]:
    """The visible cells of a column of the leaderboard."""
    heads = page.locator("#leaderboard thead th").all_inner_texts()
    place = [head.strip() for head in heads].index(name) + 1
    cells = page.locator(f"#leaderboard tbody tr:not([hidden]) > :nth-child({place})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_a_heading_sorts_both_ways_and_says_so(chromium, reports):
    with Opened(chromium, reports["sweep"]) as page:
        head = page.locator("#leaderboard thead th", has_text="rouge")
        values = {}
        for direction in ("descending", "ascending"):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == direction
            values[direction] = [float(cell) for cell in column(page, "rouge")]
        assert values["ascending"] == sorted(values["ascending"])
        assert values["descending"] == sorted(values["descending"], reverse=True)
        assert len(values["ascending"]) > 10


def test_it_sorts_by_the_keyboard_alone(chromium, reports):
    with Opened(chromium, reports["sweep"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.locator("#leaderboard thead th", has_text="model").first.get_by_role("button").focus()
        page.keyboard.press("Enter")
        names = column(page, "model")
        assert names == sorted(names, key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(9), name))
        assert names[0] == "cnn_transformer"


def test_filters_and_search_leave_the_rows_that_fit(chromium, reports):
    with Opened(chromium, reports["sweep"]) as page:
        page.select_option("[data-filter=strategy]", "targeted")
        assert set(column(page, "strategy")) == {"targeted"}
        shown = len(column(page, "model"))
        assert f"{shown} of " in page.locator("#board-count").inner_text()
        page.fill("#board-search", "qwen")
        assert set(column(page, "model")) == {"qwen2_vl", "qwen25_vl"}
        page.fill("#board-search", "")
        page.select_option("[data-filter=strategy]", "")
        page.check("#board-best")
        assert len(column(page, "model")) == len(set(column(page, "model"))) == 10


def test_pairs_follow_the_chosen_metric(chromium, reports):
    with Opened(chromium, reports["sweep"]) as page:
        first = page.locator("#pairs-table tbody tr").first.inner_text()
        assert any(sign in first for sign in "▲≈")
        assert page.locator("#pairs-table tbody tr").count() == page.locator("#leaderboard tbody tr").count()
        page.select_option("#pairs-metric", "rouge")
        assert "rouge" in page.locator("#pairs-table thead").inner_text()
        assert page.locator("#pairs-table td[title*='p ']").count() > 50


def test_where_all_pairs_are_too_many_the_best_row_stands_alone(chromium, reports, tmp_path):
    results = shutil.copytree(reports["sweep"].parent, tmp_path / "results")
    assert main(["report", f"results={results}", "trials=50", "permutations=100", "samples=0"]) == 0
    with Opened(chromium, results / "report.html") as page:
        assert page.locator("#pairs-table tbody tr").count() == 1
        assert page.locator("#pairs-table tbody td[title]").count() == 19
        assert page.locator(".card").count() == 0


def test_samples_are_searched_and_ordered(chromium, reports):
    with Opened(chromium, reports["sweep"]) as page:
        cards = page.locator(".card")
        assert cards.count() == 8
        name = cards.nth(2).locator("h3").inner_text()
        page.fill("#gallery-search", name)
        assert cards.count() == 1
        assert cards.locator("img").get_attribute("alt").endswith(f"sample {name}")
        assert cards.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 30
        assert cards.locator("tbody tr").count() == 10
        page.uncheck("#gallery-each")
        assert cards.locator("tbody tr").count() > 10
        page.fill("#gallery-search", "")
        page.select_option("#gallery-order", "worst")
        means = [tag for tag in page.locator(".tags li").all_inner_texts() if tag.startswith("mean")]
        assert means == sorted(means)


def test_hostile_texts_are_shown_as_text(chromium, reports):
    with Opened(chromium, reports["hostile"]) as page:
        page.uncheck("#gallery-each") if page.locator("#gallery-each").is_visible() else None
        while page.locator("#gallery-more").is_visible():
            page.click("#gallery-more")
        shown = set(page.locator(".card td.caption").all_inner_texts())
        assert set(HOSTILE[:3]) <= shown
        assert page.locator(".card script, .card img, a[href^='javascript']").count() == 0
        assert SCRIPT in page.locator("#leaderboard").inner_text()
        page.fill("#gallery-search", "alert(1)</script>")
        assert page.locator(".card").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["sweep", "hostile"])
def test_axe_finds_no_serious_fault(chromium, reports, scheme, name):
    from axe_playwright_python.sync_playwright import Axe

    with Opened(chromium, reports[name], color_scheme=scheme, bypass_csp=True) as page:
        found = Axe().run(page).response["violations"]
        serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in serious] == []


def test_the_theme_can_be_chosen(chromium, reports):
    paper = "getComputedStyle(document.body).backgroundColor"
    with Opened(chromium, reports["sweep"], color_scheme="light") as page:
        colours = []
        for _ in range(3):
            colours.append(page.evaluate(paper))
            page.click("#theme")
        assert colours[0] == colours[1] != colours[2]


@pytest.mark.parametrize("viewport", [WIDE, NARROW])
def test_the_page_itself_never_scrolls_sideways(chromium, reports, viewport, tmp_path):
    with Opened(chromium, reports["sweep"], viewport=viewport) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 50_000


def test_it_prints(chromium, reports, tmp_path):
    with Opened(chromium, reports["sweep"]) as page:
        page.emulate_media(media="print")
        assert not page.locator(".top").is_visible()
        assert page.locator("#leaderboard").is_visible()
        assert page.locator("#leaderboard").evaluate("t => t.scrollWidth <= t.parentElement.clientWidth + 1")
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
