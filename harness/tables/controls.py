"""Controls beside the rows of a leaderboard: listed without a rank, and what each row gains over them: controls.csv.

The samples of a board are those that all its captioners have. A control is looked at over these, but for the ones that
it has no value for (its n says how many remain): it never takes a sample from a captioner, nor a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables import stats
from harness.tables.boards import Board, Ranked, row_of, unranked_row
from harness.tables.columns import ROW_COLUMNS, SEED
from harness.tables.formulas import Formula, formula, known_columns
from harness.tables.labels import BLANK, Variant, row_name
from harness.tables.values import tidy


@dataclass(frozen=True)
class Opponent:
    """A complete control on a board. `used`: which of the board's samples it has; statistics: [those, all].

    `formula` makes its columns, which are those of the ranked rows that it has too.
    """

    variant: Variant
    runs: tuple[Run, ...]
    used: NDArray[np.bool_]
    formula: Formula
    statistics: Array

    @property
    def kind(self) -> str:
        """The control that it is."""
        return self.variant.control

    @property
    def control(self) -> str:
        """Its name in controls.csv: with the options in which controls of one name differ."""
        bracket = self.variant.label["strategy"].removeprefix("none") if self.kind != BLANK else ""
        return self.kind + bracket

    def rows(self, ranked: Ranked) -> list[int]:
        """Places of the ranked rows that it stands against: all, but for a blank run the one that sees."""
        own = self.variant.seeing
        return [place for place, name in enumerate(ranked.rows) if self.kind != BLANK or name == own]

    def against(self, ranked: Ranked, places: Sequence[int]) -> Array:
        """Statistics of some ranked rows over its samples, as its own are: [rows, n, all]."""
        found: Array = ranked.statistics[list(places)][:, self.used][:, :, self.formula.among(ranked.formula)]
        return found


def opponents(board: Board) -> list[Opponent]:
    """The complete controls of a board, in a fixed order."""
    found = []
    for variant in (one for one in board.variants if one.control):
        complete = variant.complete(board.key.protocol)
        if complete and (one := _opponent(board, variant, complete)) is not None:
            found.append((one.kind == BLANK, one.control, row_name(variant.label.values()), variant.key, one))
    return [one for *_, one in sorted(found, key=lambda item: item[:-1])]


def _opponent(board: Board, variant: Variant, runs: Sequence[Run]) -> Opponent | None:
    """None for one without a sample that has all its values."""
    protocol, ranked = board.key.protocol, board.ranked
    record = known_columns(run.protocols[protocol] for run in runs)
    wanted = {name: c for name, c in record.items() if ranked is None or name in ranked.columns}
    whole = formula(wanted, board.protocol["averages"], ranked.formula.seeds if ranked else len(runs))
    if not wanted:
        return None
    statistics = whole.read(runs, protocol)
    statistics = statistics if ranked is None else statistics[ranked.used]
    there = [name for name in wanted if not np.isnan(statistics[:, whole.places[name]]).all()]
    own = [place for name in there if name in board.protocol["columns"] for place in whole.places[name]]
    used = stats.complete(statistics[:, own])
    if not used.any():
        return None
    statistics, values = statistics[used], whole(whole.with_averages(statistics[used].mean(axis=0)))
    # A further metric that lacks samples takes none from the others.
    kept = whole.only(name for place, name in enumerate(wanted) if not np.isnan(values[place]))
    if not kept.columns:
        return None
    places = [place for name in kept.columns for place in whole.places[name]]
    return Opponent(variant, tuple(runs), used, kept, kept.with_averages(statistics[:, places]))


# ---------------------------------------------------------------- the rows of the leaderboard


def with_controls(board: Board, found: Sequence[Opponent], trials: int) -> Board:
    """The board with its controls below the other rows, and with what each ranked row gains over them."""
    rows = [_row(one, trials, board) for one in found]
    there = {run.folder for one in found for run in one.runs}
    rows += [
        unranked_row(run, variant.label, board.key)
        for variant in board.variants
        for run in variant.runs
        if variant.control and run.folder not in there
    ]
    if not rows:
        return board
    columns = list(board.table.columns)
    table = pd.DataFrame([*board.table.to_dict("records"), *rows], columns=columns)
    ranked = board.ranked
    gains = _gains(ranked, found, board.primary) if ranked is not None and board.primary in ranked.columns else {}
    names = [row_name(row) for row in table[list(ROW_COLUMNS)].itertuples(index=False)]
    for kind, gain in gains.items():
        seen = zip(names, table["control"], strict=True)
        table[f"gain_{kind}"] = [np.nan if control else gain.get(name, np.nan) for name, control in seen]
    return replace(board, table=table)


def _row(one: Opponent, trials: int, board: Board) -> dict[str, Any]:
    """Values over its samples; headlines with intervals, by the draws of the other rows if the samples are the same."""
    row = row_of(one.runs, one.variant.label) | {"n": len(one.statistics)}
    if one.kind != BLANK:
        row["captions_per_s"] = None  # no captioner's speed; runs.csv has it
    row |= dict(zip(one.formula.names, one.formula(one.statistics.mean(axis=0)).tolist(), strict=True))
    low, high = stats.interval(stats.resampled(one.statistics[None], trials, SEED, one.formula))
    for place, name in enumerate(one.formula.names):
        if name in board.headlines:
            row |= {f"{name}_ci_low": low[0, place], f"{name}_ci_high": high[0, place]}
    return row


def _gains(ranked: Ranked, found: Sequence[Opponent], primary: str) -> dict[str, dict[str, float]]:
    """Kind of control -> ranked row -> by how much it is better than the control in the primary column.

    Over the samples of both. Of several controls of a kind (nearest by two encoders) the strongest one counts.
    """
    gains: dict[str, dict[str, float]] = {}
    sign = ranked.signs[ranked.columns.index(primary)]
    for one in found:
        if primary not in one.formula.names:
            continue
        places, column = one.rows(ranked), one.formula.names.index(primary)
        own = one.formula(one.statistics.mean(axis=0))[column]
        values = one.formula(one.against(ranked, places).mean(axis=1))[:, column]
        kept = gains.setdefault(one.kind, {})
        for place, value in zip(places, values, strict=True):
            gain = float(sign * (value - own))
            kept[ranked.rows[place]] = min(gain, kept.get(ranked.rows[place], gain))
    return {kind: kept for kind, kept in gains.items() if kept}


# ---------------------------------------------------------------- controls.csv


def controls_table(board: Board, found: Sequence[Opponent], trials: int, permutations: int) -> pd.DataFrame:
    """Each ranked row against each control: difference, paired bootstrap interval, p of a paired permutation test.

    Corrected by Holm over the rows of a metric and a control; the blank runs of all rows are one family.
    """
    ranked = board.ranked
    parts = [_compared(ranked, one, trials, permutations) for one in found if ranked and one.rows(ranked)]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    families = table.groupby(["metric", "control"], sort=False)["p"]
    table["p_holm"] = families.transform(lambda p: stats.holm(p.to_numpy(float)))
    return table


def _compared(ranked: Ranked, one: Opponent, trials: int, permutations: int) -> pd.DataFrame:
    """One control against its rows, row by row and column by column."""
    places = one.rows(ranked)
    statistics = np.concatenate([one.statistics[None], one.against(ranked, places)])  # the control first
    resampled = stats.resampled(statistics, trials, SEED, one.formula)
    low, high = stats.interval(resampled[:, 1:] - resampled[:, :1])
    values = one.formula(statistics.mean(axis=1))
    cells = {"difference": values[1:] - values[0], "ci_low": low, "ci_high": high}
    cells["p"] = stats.permutation_with_first(statistics, permutations, SEED, one.formula)
    rows = {"row": [ranked.rows[place] for place in places]}
    return tidy(rows, one.formula.names, cells).assign(control=one.control, n=statistics.shape[1])
