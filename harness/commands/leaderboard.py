"""All tables from the files of the runs, and the command that rebuilds them: `capbench leaderboard`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from harness.ablation_files import write_ablation
from harness.contracts import CapBenchError, RequestError
from harness.machine.terminal import console
from harness.store import file_to_write
from harness.store.cache import Cache
from harness.store.integrity import trusted
from harness.tables.ablation import ablation_table
from harness.tables.boards import Board, build, grouped
from harness.tables.columns import (
    AGREEMENT_COLUMNS,
    BOARD_COLUMNS,
    CONTROL_COLUMNS,
    SIGNIFICANCE_COLUMNS,
    SUBGROUP_COLUMNS,
    find_runs,
    runs_table,
    write_csv,
)
from harness.tables.controls import controls_table, opponents, with_controls
from harness.tables.export import show, write_latex, write_markdown
from harness.tables.samples import refresh
from harness.tables.scores import scores_table
from harness.tables.selection import View, seen
from harness.tables.significance import agreement_table, significance_table
from harness.tables.subgroups import subgroups_table

PERMUTATIONS = 10_000
TEXTS = {field.name for field in fields(View)}
WRITERS: dict[str, Callable[[Board, Path], None]] = {
    ".csv": lambda board, path: write_csv(board.table, path),
    ".md": write_markdown,
    ".tex": write_latex,
}


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
    trials: int
    permutations: int


def rebuild(results: Path, trials: int, permutations: int = PERMUTATIONS) -> list[Board]:
    """Write every table of a results folder; the newest board comes first."""
    cache = Cache(results / "cache")
    runs = trusted(find_runs(results, cache.files))
    write_csv(runs_table(runs), results / "runs.csv")
    write_csv(scores_table(runs, trials), results / "scores.csv")
    refresh(runs, results)
    cache.close()
    boards: list[Board] = []
    beside: dict[str, list[pd.DataFrame]] = {"significance": [], "agreement": [], "subgroups": [], "controls": []}
    ablation: list[pd.DataFrame] = []
    for group, members in grouped(runs).items():
        board, ranked = build(group, members, trials)
        found = opponents(group, members, ranked)
        boards.append(with_controls(board, ranked, members, found, trials))
        if ranked is not None:
            beside["significance"].append(significance_table(group, ranked, permutations))
            beside["agreement"].append(agreement_table(group, ranked))
            beside["subgroups"].append(subgroups_table(group, ranked, trials))
            ablation.append(ablation_table(group, ranked, members, trials, permutations))
            beside["controls"].append(controls_table(group, ranked, found, trials, permutations))
    write_ablation(ablation, results)
    columns = (SIGNIFICANCE_COLUMNS, AGREEMENT_COLUMNS, SUBGROUP_COLUMNS, CONTROL_COLUMNS)
    for (name, parts), names in zip(beside.items(), columns, strict=True):
        table = pd.concat([part for part in parts if len(part)] or [pd.DataFrame(columns=list(names))])
        write_csv(table.sort_values(list(BOARD_COLUMNS), kind="stable"), results / f"{name}.csv")
    boards.sort(key=lambda board: (board.newest, board.group.slug), reverse=True)
    for board in boards if len(boards) > 1 else []:
        _write(board, results / f"leaderboard-{board.group.slug}")
    if boards:
        _write(boards[0], results / "leaderboard")
    return boards


def select(boards: Sequence[Board], **wanted: str | None) -> Board:
    """The newest board that fits the filters. Raises RequestError listing what there is."""
    fitting = [b for b in boards if all(v is None or getattr(b.group, k) == v for k, v in wanted.items())]
    if not boards:
        raise CapBenchError("no run with scores to show; runs.csv says what failed, `capbench run` or `score` mends it")
    if not fitting:
        known = "; ".join(b.group.title for b in boards)
        raise RequestError(f"no leaderboard fits { ({k: v for k, v in wanted.items() if v}) }; there is: {known}")
    return fitting[0]


def finish(results: Path, trials: int, **wanted: str | None) -> None:
    """Rebuild the tables, print the board asked for and say where it is."""
    boards = rebuild(results, trials)
    _present(results, boards, select(boards, **wanted), View())


# ---------------------------------------------------------------- output


def _present(results: Path, boards: Sequence[Board], board: Board, view: View) -> None:
    """Print what a view shows of a board; the files in `results` are whole."""
    if board is not boards[0]:
        _write(board, results / "leaderboard")
    show(seen(board, view), results / "leaderboard.csv", [b.group.title for b in boards if b is not board])
    if view.words:
        console.print(f"shown: {view.words}; ranks and intervals are those of the whole table", markup=False)


def _write(board: Board, stem: Path) -> None:
    for suffix, write in WRITERS.items():
        write(board, stem.with_name(f"{stem.name}{suffix}"))


def _file(out: str, results: Path) -> Path:
    """The file to write a view to. Raises RequestError when it is no table or one of the tables of `results`."""
    path = file_to_write(out, *WRITERS)
    if path.resolve().parent == results.resolve():
        raise RequestError(f"out={out}: expected a file outside of results={results}, whose tables are whole")
    return path


# ---------------------------------------------------------------- the command


def main(argv: Sequence[str]) -> int:
    """The `leaderboard` command."""
    from harness import config
    from harness.commands._options import parse

    words = [_as_text(word) for word in parse("leaderboard", argv).overrides]
    settings: Settings = config.options("leaderboard", words, Settings)
    results = Path(settings.results)
    if not (results / "runs").is_dir():
        raise RequestError(f"results={results}: expected a folder with runs, found none; start with `capbench run`")
    for name in ("trials", "permutations"):
        if getattr(settings, name) < 1:
            raise RequestError(f"{name}={getattr(settings, name)}: expected 1 or more")
    out = _file(settings.out, results) if settings.out else None
    view = View(**{field.name: getattr(settings, field.name) for field in fields(View)})
    boards = rebuild(results, settings.trials, settings.permutations)
    board = select(boards, **{name: getattr(settings, name) for name in ("dataset", "split", "weights", "protocol")})
    _present(results, boards, board, view)
    if out is not None:
        WRITERS[out.suffix](seen(board, view), out)
        console.print(f"what is shown: {out}", markup=False)
    return 0


def _as_text(word: str) -> str:
    """A glob is no yaml: model=*vl."""
    key, found, value = word.partition("=")
    return f"{key}={json.dumps(value)}" if found and key in TEXTS else word
