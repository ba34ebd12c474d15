"""Times `capbench report` as a whole command, weighs its page and opens it in Chromium.

    python -m harness.benchmarks.report --out results/benchmarks/report.csv

Made-up scores and captions about phantom pictures, which the page shows, of ten models with 1,000 and with 20,000
samples. Cold: with nothing but the runs there; repeated: with the tables and caches of the first time.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from harness import config
from harness.benchmarks._runner import Benchmark, Row, capbench, here
from harness.benchmarks.leaderboard import make_results

ALL = 1_000  # samples: up to this many the gallery is made with all of them, too
OPENED = 5  # times, of which the median counts
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

Figure = tuple[str, float, str]


def measure(results: Path, models: int, samples: int) -> Iterator[Figure]:
    """(figure, value, unit) of a folder of runs that is made in `results`."""
    dataset = config.choice("dataset", "phantom") | {"test": samples}
    make_results(results, models, samples, dataset=dataset)
    yield "report, cold", _seconds(results), "s"
    yield "report, repeated", _seconds(results), "s"
    yield from _page(results / "report.html", "")
    if samples <= ALL:
        whole = results / "whole.html"
        yield "report, all samples", _seconds(results, f"samples={samples}", f"out={whole}"), "s"
        yield from _page(whole, ", all samples")


def _page(page: Path, what: str) -> Iterator[Figure]:
    yield f"page{what}", page.stat().st_size / 1e6, "MB"
    browser = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if browser is not None:
        yield f"open the page{what}", open_page(page, browser), "s"


def _seconds(results: Path, *options: str) -> float:
    start = time.perf_counter()
    capbench("report", f"results={results}", *options)
    return time.perf_counter() - start


def open_page(page: Path, browser: str) -> float:
    """Median seconds from the request to the end of loading, tables, pairs and the first samples drawn."""
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        for _ in range(OPENED):
            tab = chromium.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(page.as_uri())
            if not tab.locator(".card").count():
                raise SystemExit("the page shows no samples")
            seconds.append(float(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")) / 1000)
            tab.close()
        chromium.close()
    return statistics.median(seconds)


@dataclass(frozen=True, kw_only=True)
class Report(Benchmark):
    """A row for each figure of each size."""

    models: Annotated[int, "runs of each folder"] = 10
    samples: Annotated[Sequence[int], "of each run; one folder for each number"] = (1_000, 20_000)

    def rows(self) -> Iterator[Row]:
        """Seconds, and megabytes of the page."""
        for samples in self.samples:
            with TemporaryDirectory(prefix="report-") as scratch:
                for figure, value, unit in measure(Path(scratch), self.models, samples):
                    row = {"figure": figure, "value": value, "unit": unit, "models": self.models, "samples": samples}
                    yield row | here()


main = Report.main

if __name__ == "__main__":
    main()
