"""capbench paper: the published study, recomputed, with our own rows and parameters beside it.

usage: capbench paper [results=FOLDER] [KEY=VALUE ...]

The published tables with their averages recomputed and the inconsistent cells named; our own rows beside them, score
by score with differences; the effect of the modality in the prompt, and trained parameters, published and our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness import config
from harness.commands._options import parse
from harness.contracts import Positive
from harness.machine.terminal import console
from harness.published import beside, printed, terminal
from harness.store import file_to_write
from harness.tables.csv_files import write_csv


@dataclass(frozen=True)
class Settings:
    """The values of conf/paper.yaml."""

    results: str
    protocol: str
    parameters: bool
    out: str | None
    trials: Positive


def main(argv: Sequence[str]) -> int:
    """Print and write what was published, what follows from it, and what our runs say."""
    arguments = parse("paper", argv)
    settings: Settings = config.options("paper", arguments.overrides, Settings)
    results, out = Path(settings.results), _file(settings)
    averages = config.choice("protocol", "paper")["averages"]
    published = printed.recomputed(averages)
    terminal.published(published, printed.findings(averages))
    boards = beside.boards_of(results, settings.trials)
    ours = beside.ours(settings.protocol, boards)
    changes = beside.changes(results, settings.protocol, printed.changes(averages))
    parts = [published, ours, changes]
    if settings.parameters:
        parts.append(beside.trained(config.default("params", "variants")))
    if out is not None:
        rows = [row for part in parts for row in part.to_dict("records")]
        write_csv(pd.DataFrame(rows, columns=list(beside.COLUMNS)), out)
        console.print(f"all of it: {out}", markup=False)
    return 0


def _file(settings: Settings) -> Path | None:
    if settings.out is None:
        results = Path(settings.results)
        return results / "paper.csv" if results.is_dir() else None
    return file_to_write(settings.out, ".csv")
