"""capbench leaderboard: rebuild all tables and print one of them.

usage: capbench leaderboard [results=FOLDER] [KEY=VALUE ...]

Rebuilds all tables from the files of the runs: runs.csv, scores.csv, samples.csv of each run, leaderboard.csv, .md,
.tex, significance.csv, agreement.csv, subgroups.csv, and ablation.csv where modality labels were given. Nothing is
computed again but means, intervals and p-values. The tables are always whole: model=, strategy= (or lora=), prompt=,
modality=, sort= and group= say what of one is printed and written to out=, with the ranks of the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from harness import config
from harness.choices import GROUP_OF
from harness.commands._options import as_text, parse, with_runs
from harness.contracts import Positive, RequestError
from harness.machine.terminal import console
from harness.store import file_to_write
from harness.tables.rebuild import WRITERS, present, rebuild, select
from harness.tables.selection import View, seen

COLUMN_OF = {group: column for column, group in GROUP_OF.items()}
TEXTS = {field.name for field in fields(View)}


@dataclass(frozen=True)
class Settings:
    """The values of conf/leaderboard.yaml."""

    results: str
    dataset: str | None
    split: str | None
    weights: str | None
    protocol: str | None
    model: str | None
    strategy: str | None
    prompt: str | None
    modality: str | None
    sort: str | None
    group: str | None
    out: str | None
    trials: Positive
    permutations: Positive


def main(argv: Sequence[str]) -> int:
    """The `leaderboard` command."""
    words = [as_text(word, TEXTS) for word in parse("leaderboard", argv, names=COLUMN_OF).overrides]
    settings: Settings = config.options("leaderboard", words, Settings)
    results = with_runs(settings.results)
    out = _file(settings.out, results) if settings.out else None
    view = View(**{field.name: getattr(settings, field.name) for field in fields(View)})
    boards = rebuild(results, settings.trials, settings.permutations)
    board = select(boards, **{name: getattr(settings, name) for name in ("dataset", "split", "weights", "protocol")})
    present(results, boards, board, view)
    if out is not None:
        WRITERS[out.suffix](seen(board, view), out)
        console.print(f"what is shown: {out}")
    return 0


def _file(out: str, results: Path) -> Path:
    """The file to write a view to. Raises RequestError when it is no table or one of the tables of `results`."""
    path = file_to_write(out, *WRITERS)
    if path.resolve().parent == results.resolve():
        raise RequestError(f"out={out}: expected a file outside of results={results}, whose tables are whole")
    return path
