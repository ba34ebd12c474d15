"""What a modality label changes: each row that was given labels against the same fit without them: ablation.csv."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.contracts import UNKNOWN
from harness.store import write_text
from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables import stats
from harness.tables.boards import Board, Ranked
from harness.tables.columns import BOARD_COLUMNS, ROW_COLUMNS, SEED
from harness.tables.csv_files import write_csv
from harness.tables.formulas import Formula
from harness.tables.values import tidy

NONE = "none"  # the source that gives no label

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A row of the leaderboard that was given labels, and the runs of the same fits without: one pair for each seed."""

    names: Mapping[str, str]
    pairs: tuple[tuple[Run, Run], ...]

    @property
    def bases(self) -> tuple[str, ...]:
        """The folders of the runs without labels."""
        return tuple(base.folder.name for _, base in self.pairs)


def ablation_table(board: Board, trials: int, permutations: int) -> pd.DataFrame:
    """Per row, metric and group of samples: the base, the value, the change, its paired interval and p-value.

    by: all samples, the true modality, or whether the label given was the true one. The samples are those of the
    leaderboard. Holm's correction is over the rows of a metric, all samples; groups are there to be looked at.
    """
    shared: dict[tuple[str, ...], list[Case]] = {}
    for case in _cases(board) if board.ranked is not None else ():
        shared.setdefault(case.bases, []).append(case)
    parts = [part for cases in shared.values() for part in _parts(cases, board, trials, permutations)]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True).assign(p_holm=np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = 100 * table["difference"] / table["base"]
    table["change_pct"] = change.where(np.isfinite(change))
    for _, family in table[table["by"] == "all"].groupby("metric"):
        table.loc[family.index, "p_holm"] = stats.holm(family["p"].to_numpy(float))
    return table.sort_values(list(ROW_COLUMNS), kind="stable", ignore_index=True)


# ---------------------------------------------------------------- which rows


def _cases(board: Board) -> Iterator[Case]:
    rows = [one for one in board.variants if not one.control]  # a blank run has the fit of one that sees
    ready = {one.key: one.complete(board.key.protocol) for one in rows}
    without = [run for runs in ready.values() for run in runs if run.row["modality"] == NONE]
    for one in rows:
        found = [(run, _base(run, without)) for run in ready[one.key] if run.row["modality"] != NONE]
        pairs = tuple((run, base) for run, base in found if base is not None and _asked_otherwise(run, base))
        if pairs:
            yield Case(one.label, pairs)


def _base(run: Run, without: Sequence[Run]) -> Run | None:
    """The run of the same fit that asks the same question without a label, at best in the same prompt style.

    Of a fit that was taught with labels, the fit that was not.
    """
    fit = run.manifest.get("unlabelled_fit", run.manifest["identity"].get("fit"))
    same = [
        other
        for other in without
        if other.manifest["identity"].get("fit") == fit
        and other.manifest["identity"].get("generate") == run.manifest["identity"].get("generate")
        and (other.row["prompt"] == run.row["prompt"] or _question(run, other))
    ]
    return min(same, key=lambda one: (one.row["prompt"] != run.row["prompt"], one.folder.name), default=None)


def _question(run: Run, base: Run) -> bool:
    """Whether all that the run asks is the other's question with something before it."""
    return all(one.prompt.endswith(other.prompt) for one, other in zip(run.rows, base.rows, strict=True))


def _asked_otherwise(run: Run, base: Run) -> bool:
    """Whether a label reached a question at all: a style may leave it out."""
    return any(one.prompt != other.prompt for one, other in zip(run.rows, base.rows, strict=True))


# ---------------------------------------------------------------- the numbers


def _parts(cases: Sequence[Case], board: Board, trials: int, permutations: int) -> Iterator[pd.DataFrame]:
    """Rows that share a base are resampled together."""
    ranked, pairs = board.ranked, cases[0].pairs
    assert ranked is not None, "asked for where rows are ranked"
    made = replace(ranked.formula, seeds=len(pairs))
    rows = [[base for _, base in pairs], *([run for run, _ in case.pairs] for case in cases)]
    read = np.stack([made.read(runs, board.key.protocol)[ranked.used] for runs in rows])
    statistics = made.with_averages(read)
    facts = [row for row, used in zip(cases[0].pairs[0][1].rows, ranked.used, strict=True) if used]
    truth = np.array([str(row.modality) for row in facts])
    masks = [("all", "all", np.full(len(truth), fill_value=True))]
    masks += [("modality", str(kind), truth == kind) for kind in np.unique(truth)]
    for by, name, mask in masks:
        yield _compared(statistics[:, mask], cases, made, trials, permutations).assign(by=by, group=name)
    for place, case in enumerate(cases, start=1):
        for name, mask in _by_label(case, ranked).items():
            if mask.any():
                pair = statistics[[0, place]][:, mask]
                yield _compared(pair, [case], made, trials, permutations).assign(by="label", group=name)


def _by_label(case: Case, ranked: Ranked) -> dict[str, Mask]:
    """Which samples were given their own modality as label, and which another; neither where one is not known."""
    rows = [row for row, used in zip(case.pairs[0][0].rows, ranked.used, strict=True) if used]
    known = np.array([row.label is not None and row.modality != UNKNOWN for row in rows])
    right = np.array([row.label == row.modality for row in rows])
    return {"right": known & right, "wrong": known & ~right}


def _compared(statistics: Array, cases: Sequence[Case], made: Formula, trials: int, permutations: int) -> pd.DataFrame:
    """statistics [1 + cases, n, all], the base first."""
    n = statistics.shape[1]
    values = made(statistics.mean(axis=1))
    low = high = np.full_like(values[1:], np.nan)  # one sample has no interval
    if n > 1:
        drawn = made(stats.joint(statistics, trials, SEED))
        low, high = stats.interval(drawn[:, 1:] - drawn[:, :1])
    p = stats.permutation_with_first(statistics, permutations, SEED, made)
    names = {name: [case.names[name] for case in cases] for name in ROW_COLUMNS}
    cells = {"base": np.tile(values[0], (len(cases), 1)), "value": values[1:], "difference": values[1:] - values[0]}
    cells |= {"ci_low": low, "ci_high": high, "p": p}
    return tidy(names, made.names, cells).assign(n=n)


LEVEL = 0.05
NOTE = (
    "Base: the same fit, asked without a label. In brackets the change in percent of the base; * marks p < 0.05 "
    "(paired permutation test, Holm's correction over the rows of a column). Labels right: of those whose truth is "
    "known."
)


def write_ablation(table: pd.DataFrame, results: Path) -> None:
    """Write both files; without a row that was given labels there are none, and old ones go."""
    if table.empty:
        for suffix in (".csv", ".md"):
            (results / f"ablation{suffix}").unlink(missing_ok=True)
        return
    write_csv(table, results / "ablation.csv")
    write_text(results / "ablation.md", "\n".join(_markdown(table)))


def _markdown(table: pd.DataFrame) -> Iterator[str]:
    for board, part in table.groupby(list(BOARD_COLUMNS), sort=True):
        facts = list(zip(BOARD_COLUMNS, board, strict=True))[:-1]
        yield f"**{', '.join(f'{name} {cell}' for name, cell in facts)}**\n"
        metrics = list(dict.fromkeys(part["metric"]))
        head = [*ROW_COLUMNS, "labels right", *metrics]
        yield _line(head)
        yield f"|{'|'.join([':--'] * len(ROW_COLUMNS) + ['--:'] * (len(head) - len(ROW_COLUMNS)))}|"
        yield from _rows(part, metrics)
        yield f"\n{NOTE}\n"


def _rows(part: pd.DataFrame, metrics: Sequence[str]) -> Iterator[str]:
    """A base row, then the rows that are compared with it."""
    last: list[str] = []
    for names, row in part.groupby(list(ROW_COLUMNS), sort=False):
        whole = {one["metric"]: one for one in row[row["by"] == "all"].to_dict("records")}
        base = [*map(str, names[:-1]), "none (base)", "", *(f"{whole[name]['base']:.3f}" for name in metrics)]
        if base != last:
            yield _line(base)
        last = base
        yield _line([*map(str, names), _right(row), *(_cell(whole[name]) for name in metrics)])


def _cell(one: Mapping[Hashable, Any]) -> str:
    change = "" if pd.isna(one["change_pct"]) else f" ({one['change_pct']:+.1f} %)"
    return f"{one['value']:.3f}{change}{'*' if one['p_holm'] < LEVEL else ''}"


def _right(row: pd.DataFrame) -> str:
    counts = row[row["by"] == "label"].drop_duplicates("group").set_index("group")["n"]
    return f"{counts.get('right', 0)} of {counts.sum()}" if len(counts) else ""


def _line(cells: Sequence[str]) -> str:
    shown = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(shown)} |"
