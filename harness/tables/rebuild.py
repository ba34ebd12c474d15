"""All tables of a results folder from the files of its runs, and the board that is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from harness import config
from harness.contracts import CapBenchError, RequestError
from harness.machine.terminal import console
from harness.store.cache import Cache
from harness.store.integrity import trusted
from harness.store.runs import Run, find_runs
from harness.tables.ablation import ablation_table, write_ablation
from harness.tables.boards import Board, build, grouped
from harness.tables.columns import BESIDE, BOARD_COLUMNS, RUN_COLUMNS
from harness.tables.controls import controls_table, opponents, with_controls
from harness.tables.csv_files import write_csv
from harness.tables.export import show, write_latex, write_markdown
from harness.tables.samples import refresh
from harness.tables.scores import scores_table
from harness.tables.selection import View, seen
from harness.tables.significance import agreement_table, significance_table
from harness.tables.subgroups import subgroups_table

WRITERS: dict[str, Callable[[Board, Path], None]] = {
    ".csv": lambda board, path: write_csv(board.table, path),
    ".md": write_markdown,
    ".tex": write_latex,
}


def rebuild(results: Path, trials: int, permutations: int) -> list[Board]:
    """Write every table of a results folder; the newest board comes first."""
    cache = Cache(results / "cache")
    runs = [trusted(run) for run in find_runs(results, cache.files)]
    write_csv(runs_table(runs), results / "runs.csv")
    write_csv(scores_table(runs, trials), results / "scores.csv")
    refresh(runs, results)
    cache.close()
    boards: list[Board] = []
    beside: dict[str, list[pd.DataFrame]] = {name: [] for name in BESIDE}
    for key, members in grouped(runs).items():
        board = build(key, members, trials)
        found = opponents(board)
        boards.append(with_controls(board, found, trials))
        if board.ranked is not None:
            made = {
                "significance": significance_table(board.ranked, permutations),
                "agreement": agreement_table(board.ranked),
                "subgroups": subgroups_table(board.ranked, trials),
                "controls": controls_table(board, found, trials, permutations),
                "ablation": ablation_table(board, trials, permutations),
            }
            for name, table in made.items():
                beside[name] += [table.assign(**key.cells)] if len(table) else []
    whole = {name: _together(parts, BESIDE[name]) for name, parts in beside.items()}
    write_ablation(whole.pop("ablation"), results)
    for name, table in whole.items():
        write_csv(table, results / f"{name}.csv")
    boards.sort(key=lambda board: (board.newest, board.key.slug), reverse=True)
    for board in boards if len(boards) > 1 else []:
        _write(board, results / f"leaderboard-{board.key.slug}")
    if boards:
        _write(boards[0], results / "leaderboard")
    return boards


def _together(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One table of the parts that boards have made."""
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return table.reindex(columns=list(columns)).sort_values(list(BOARD_COLUMNS), kind="stable")


def select(boards: Sequence[Board], **wanted: str | None) -> Board:
    """The newest board that fits the filters. Raises RequestError listing what there is."""
    fitting = [b for b in boards if all(v is None or getattr(b.key, k) == v for k, v in wanted.items())]
    if not boards:
        raise CapBenchError("no run with scores to show; runs.csv says what failed, `capbench run` or `score` mends it")
    if not fitting:
        known = "; ".join(b.key.title for b in boards)
        raise RequestError(f"no leaderboard fits { ({k: v for k, v in wanted.items() if v}) }; there is: {known}")
    return fitting[0]


def usual() -> dict[str, int]:
    """Trials and permutations of a command that does not ask for them: what `capbench leaderboard` takes by itself."""
    return {key: config.default("leaderboard", key) for key in ("trials", "permutations")}


def finish(results: Path, **wanted: str | None) -> None:
    """Rebuild the tables, print the board asked for and say where it is."""
    boards = rebuild(results, **usual())
    present(results, boards, select(boards, **wanted), View())


def present(results: Path, boards: Sequence[Board], board: Board, view: View) -> None:
    """Print what a view shows of a board; the files in `results` are whole."""
    if board is not boards[0]:
        _write(board, results / "leaderboard")
    show(seen(board, view), results / "leaderboard.csv", [b.key.title for b in boards if b is not board])
    if view.words:
        console.print(f"shown: {view.words}; ranks and intervals are those of the whole table")


def _write(board: Board, stem: Path) -> None:
    for suffix, write in WRITERS.items():
        write(board, stem.with_name(f"{stem.name}{suffix}"))


def runs_table(runs: Iterable[Run]) -> pd.DataFrame:
    """runs.csv: one row per run."""
    extra = ("status", "code_version", "config_hash")
    rows = [{**{key: run.manifest.get(key) for key in extra}, **run.row, "status": run.status} for run in runs]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS)).sort_values("run_id", kind="stable", ignore_index=True)
