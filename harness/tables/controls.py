"""Controls beside the rows of a leaderboard: listed without a rank, and what each row gains over them: controls.csv.

The samples of a board are those that all its captioners have. A control is looked at over these, but for the ones that
it has no value for (its n says how many remain): it never takes a sample from a captioner, nor a rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables import stats
from harness.tables.boards import Board, Group, Ranked, by_variant, row_of, seed_mean, unranked_row
from harness.tables.columns import AVERAGES, CONTROL_COLUMNS, ROW_COLUMNS, SEED
from harness.tables.labels import labels, row_name
from harness.tables.values import add_averages, mixture

BLANK = "blank"


@dataclass(frozen=True)
class Opponent:
    """A complete control on a board. `used`: which of the board's samples it has; values: [those, columns].

    The first columns are metrics, `mix` makes all columns of them. `own`: the name of the row that a blank run is the
    blank run of, None where that is no row of the board.
    """

    label: Mapping[str, str]
    runs: tuple[Run, ...]
    used: NDArray[np.bool_]
    columns: tuple[str, ...]
    values: Array
    mix: Array
    own: str | None = None

    @property
    def control(self) -> str:
        """Its name in controls.csv: with the options in which controls of one name differ."""
        bracket = self.label["strategy"].removeprefix("none") if self.label["control"] != BLANK else ""
        return self.label["control"] + bracket

    def rows(self, ranked: Ranked) -> list[int]:
        """Places of the ranked rows that it stands against: all, but for a blank run its own."""
        return [place for place, name in enumerate(ranked.rows) if self.label["control"] != BLANK or name == self.own]


def opponents(group: Group, runs: Sequence[Run], ranked: Ranked | None) -> list[Opponent]:
    """The complete controls among the runs of a board, in a fixed order."""
    found = []
    for key, (label, members, own) in _named(runs).items():
        complete = [run for run in members if run.status == "ok" and group.protocol in run.protocols]
        if complete and (one := _opponent(group.protocol, complete, label, own, ranked)) is not None:
            found.append((one.label["control"] == BLANK, one.control, row_name(label.values()), key, one))
    return [one for *_, one in sorted(found, key=lambda item: item[:-1])]


def _named(runs: Sequence[Run]) -> dict[str, tuple[dict[str, str], list[Run], str | None]]:
    """Variant -> label, runs, and the name of the row it belongs to. A blank run is called as the one that sees."""
    seeing = labels({key: members[0] for key, members in by_variant(r for r in runs if not r.control).items()})
    variants = by_variant(run for run in runs if run.control)
    found: dict[str, tuple[dict[str, str], list[Run], str | None]] = {}
    for key, label in labels({key: members[0] for key, members in variants.items()}).items():
        twin = seeing.get(str(variants[key][0].manifest.get("seeing")))
        named = label if twin is None else {**label, "strategy": twin["strategy"]}
        own = None if twin is None else row_name(twin[name] for name in ROW_COLUMNS)
        found[key] = (named, variants[key], own)
    return found


def _opponent(
    protocol: str, runs: Sequence[Run], label: Mapping[str, str], own: str | None, ranked: Ranked | None
) -> Opponent | None:
    """None for one without a sample that has all its values."""
    table, spec = seed_mean(runs, protocol), runs[0].protocols[protocol]["protocol"]
    if ranked is not None:
        shown = [name for name in ranked.columns if name in table]
        table = table.loc[ranked.used, shown].reset_index(drop=True)
    table = table.dropna(axis="columns", how="all")
    used = stats.complete(table[[name for name in spec["columns"] if name in table]].to_numpy(float))
    table = table[used].dropna(axis="columns")  # a further metric that lacks samples takes none from the others
    metrics = [str(name) for name in table]
    averages: dict[str, Sequence[str]] = {}
    for name, parts in spec["averages"].items():
        if all(part in metrics or part in averages for part in parts):
            averages[name] = parts
    if not metrics or not used.any():
        return None
    whole = add_averages(table, averages)
    mix = mixture(metrics, averages)
    return Opponent(label, tuple(runs), used, tuple(map(str, whole)), whole.to_numpy(float), mix, own)


# ---------------------------------------------------------------- the rows of the leaderboard


def with_controls(
    board: Board, ranked: Ranked | None, runs: Sequence[Run], found: Sequence[Opponent], trials: int
) -> Board:
    """The board with its controls below the other rows, and with what each ranked row gains over them."""
    rows = [_row(one, trials) for one in found]
    there = {run.folder for one in found for run in one.runs}
    rows += [
        unranked_row(run, label, board.group)
        for label, members, _ in _named(runs).values()
        for run in members
        if run.folder not in there
    ]
    if not rows:
        return board
    columns = list(board.table.columns)
    table = pd.DataFrame([*board.table.to_dict("records"), *rows], columns=columns)
    primary = _primary(runs, board.group.protocol)
    gains = _gains(ranked, found, primary) if ranked is not None and primary in ranked.columns else {}
    names = [row_name(row) for row in table[list(ROW_COLUMNS)].itertuples(index=False)]
    for kind, gain in gains.items():
        seen = zip(names, table["control"], strict=True)
        table[f"gain_{kind}"] = [np.nan if control else gain.get(name, np.nan) for name, control in seen]
    return replace(board, table=table)


def _primary(runs: Sequence[Run], protocol: str) -> str:
    """The column that ranks, as the runs of a board have recorded it."""
    return next(str(r.protocols[protocol]["protocol"]["primary"]) for r in runs if protocol in r.protocols)


def _row(one: Opponent, trials: int) -> dict[str, Any]:
    """Means over its samples; averages with intervals, by the draws of the other rows if the samples are the same."""
    row = row_of(one.runs, one.label) | {"n": len(one.values)}
    if one.label["control"] != BLANK:
        row["captions_per_s"] = None  # no captioner's speed; runs.csv has it
    row |= dict(zip(one.columns, one.values.mean(axis=0).tolist(), strict=True))
    low, high = stats.interval(stats.joint(one.values[None, :, : len(one.mix)], trials, SEED, one.mix))
    for place, name in enumerate(one.columns):
        if name in AVERAGES:
            row |= {f"{name}_ci_low": low[0, place], f"{name}_ci_high": high[0, place]}
    return row


def _gains(ranked: Ranked, found: Sequence[Opponent], primary: str) -> dict[str, dict[str, float]]:
    """Kind of control -> ranked row -> its primary column minus the control's, over the samples of both.

    Of several controls of a kind (nearest by two encoders) the strongest one counts.
    """
    gains: dict[str, dict[str, float]] = {}
    for one in found:
        if primary not in one.columns:
            continue
        kind, own = one.label["control"], one.values[:, one.columns.index(primary)].mean()
        column = ranked.values[:, one.used, ranked.columns.index(primary)].mean(axis=1)
        for place in one.rows(ranked):
            gain, kept = float(column[place] - own), gains.setdefault(kind, {})
            kept[ranked.rows[place]] = min(gain, kept.get(ranked.rows[place], gain))
    return gains


# ---------------------------------------------------------------- controls.csv


def controls_table(
    group: Group, ranked: Ranked, found: Sequence[Opponent], trials: int, permutations: int
) -> pd.DataFrame:
    """Each ranked row against each control: difference, paired bootstrap interval, p of a paired permutation test.

    Corrected by Holm over the rows of a metric and a control; the blank runs of all rows are one family.
    """
    parts = [_compared(ranked, one, trials, permutations) for one in found if one.rows(ranked)]
    if not parts:
        return pd.DataFrame(columns=list(CONTROL_COLUMNS))
    table = pd.concat(parts, ignore_index=True)
    families = table.groupby(["metric", "control"], sort=False)["p"]
    table["p_holm"] = families.transform(lambda p: stats.holm(p.to_numpy(float)))
    return table.assign(**group.cells)[list(CONTROL_COLUMNS)]


def _compared(ranked: Ranked, one: Opponent, trials: int, permutations: int) -> pd.DataFrame:
    """One control against its rows, row by row and column by column."""
    places = one.rows(ranked)
    shown = [ranked.columns.index(name) for name in one.columns]
    values = np.concatenate([one.values[None], ranked.values[places][:, one.used][:, :, shown]])  # the control first
    means = stats.joint(values[:, :, : len(one.mix)], trials, SEED, one.mix)
    low, high = stats.interval(means[:, 1:] - means[:, :1])
    column = values.mean(axis=1)
    cells = {"difference": column[1:] - column[0], "ci_low": low, "ci_high": high}
    cells["p"] = stats.permutation_with_first(values, permutations, SEED)
    names = {
        "row": np.repeat([ranked.rows[place] for place in places], len(one.columns)),
        "metric": np.tile(one.columns, len(places)),
    }
    flat = {name: cell.ravel() for name, cell in cells.items()}
    return pd.DataFrame({**names, **flat}).assign(control=one.control, n=values.shape[1])
