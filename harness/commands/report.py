"""capbench report: one HTML page of a leaderboard: plots, significance, costs, samples side by side.

usage: capbench report [results=FOLDER] [out=FILE.html] [KEY=VALUE ...]

Rebuilds the tables, then writes one page that needs no network: the leaderboard with intervals, sorting and filters,
which rows differ, what a score costs, captions by length, concepts and modality, ablation, agreement of metrics, costs,
failures, samples side by side, provenance. Its plots are also PNG and SVG files in results/plots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from harness import config
from harness.commands._options import parse, with_runs
from harness.contracts import NonNegative, Positive
from harness.machine.terminal import console
from harness.page.gallery import add_pictures, gallery
from harness.page.render import page
from harness.page.study import Study, read_tables
from harness.store import file_to_write, write_text
from harness.tables.boards import Board
from harness.tables.rebuild import rebuild, select

BOARD = ("dataset", "split", "weights", "protocol")


@dataclass(frozen=True)
class Settings:
    """The values of conf/report.yaml."""

    results: str
    dataset: str | None
    split: str | None
    weights: str | None
    protocol: str | None
    out: str | None
    samples: NonNegative
    pictures: bool
    trials: Positive
    permutations: Positive


def main(argv: Sequence[str]) -> int:
    """Rebuild the tables and write the page."""
    settings: Settings = config.options("report", parse("report", argv).overrides, Settings)
    results = with_runs(settings.results)
    out = file_to_write(settings.out, ".html", ".htm") if settings.out else results / "report.html"
    boards = rebuild(results, settings.trials, settings.permutations)
    board = select(boards, **{name: getattr(settings, name) for name in BOARD})
    why = write(results, board, out, settings.samples, settings.pictures)
    for other in boards:
        if other is not board:
            console.print(f"another table: {other.key.title}")
    if why:
        console.print(f"gallery: {why}")
    size = decimal(out.stat().st_size)
    console.print(f"report: {out} ({size}), plots as PNG and SVG in {results / 'plots'}")
    return 0


def write(results: Path, board: Board, out: Path, samples: int, pictures: bool) -> str:
    """Write the page of a board whose tables are up to date. Returns why pictures are missing, empty where none is."""
    study = Study(board, read_tables(results, board.key))
    shown, why = gallery(study, samples), ""
    if shown is not None:
        why = add_pictures(study, shown) if pictures else "left out, as pictures=false asks"
    write_text(out, page(study, results / "plots", shown, why))
    return why
