"""Leaderboards from runs: what shares a table, what is ranked, and the values behind the ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables import stats
from harness.tables.columns import BEFORE_SCORES, BOARD_COLUMNS, CAPTION_COLUMNS, LEADERBOARD_COLUMNS, ROW_COLUMNS, SEED
from harness.tables.formulas import Formula, formula, known_columns, known_mean, lower_is_better
from harness.tables.labels import Variant, row_name, variants
from harness.tables.scores import scored
from harness.tables.values import add_averages, missing_reasons, protocol_values


@dataclass(frozen=True)
class BoardKey:
    """A board's key: the same samples of one dataset and split, one protocol, embedded or published weights."""

    dataset: str
    split: str
    weights: str
    protocol: str
    data: str

    @property
    def slug(self) -> str:
        """For file names."""
        return "-".join(self.cells.values())

    @property
    def cells(self) -> dict[str, str]:
        """The columns that tell the tables of several boards apart."""
        facts = (self.dataset, self.split, self.weights, self.protocol, self.data[:6])
        return dict(zip(BOARD_COLUMNS, facts, strict=True))

    @property
    def title(self) -> str:
        """For headings."""
        return f"dataset {self.dataset}, split {self.split}, weights {self.weights}, protocol {self.protocol}"


@dataclass(frozen=True)
class Ranked:
    """The ranked rows over the samples that all of them have, the best row first.

    statistics: [rows, n, statistics] without NaN, of which `formula` makes the columns. resampled: the values of the
    columns [trials, rows, columns]. own: the columns' values of each sample [rows, n, columns], the mean over the seeds
    of a row, NaN where a sample alone has none. used: which samples of the newest run these are. lower: columns where
    less is better.
    """

    rows: tuple[str, ...]
    formula: Formula
    lower: frozenset[str]
    statistics: Array
    own: Array
    resampled: Array
    newest: Run
    used: NDArray[np.bool_]

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that all rows have, averages last."""
        return self.formula.names

    @cached_property
    def values(self) -> Array:
        """What the table shows: [rows, columns]."""
        return self.formula(self.statistics.mean(axis=1))

    @cached_property
    def signs(self) -> Array:
        """What makes more better in every column: [columns] of 1 and -1."""
        return np.array([-1.0 if name in self.lower else 1.0 for name in self.columns])


@dataclass(frozen=True)
class Board:
    """A leaderboard with the protocol as it was recorded and the reasons of its columns without values.

    lower: columns where less is better. runs, variants: all that it lists; ranked: the values behind its ranks, None
    where no row can be ranked.
    """

    key: BoardKey
    table: pd.DataFrame
    protocol: Mapping[str, Any]
    unfilled: Mapping[str, str]
    newest: str
    lower: frozenset[str] = frozenset()
    runs: tuple[Run, ...] = ()
    variants: tuple[Variant, ...] = ()
    ranked: Ranked | None = None

    @property
    def primary(self) -> str:
        """The column that ranks."""
        return str(self.protocol["primary"])

    @property
    def headlines(self) -> tuple[str, ...]:
        """The column that ranks and the averages: what has an interval in the table."""
        return tuple(dict.fromkeys((self.primary, *self.protocol["averages"])))

    @property
    def note(self) -> str:
        """What the protocol says with every table."""
        return str(self.protocol["note"])


def grouped(runs: Sequence[Run]) -> dict[BoardKey, list[Run]]:
    """The runs of each board."""
    groups: dict[BoardKey, list[Run]] = {}
    for run in runs:
        if "dataset" not in run.row:  # failed before it was known what it would have been
            continue
        where = (run.row["dataset"], run.row["split"], run.row["weights"])
        for protocol in list(run.protocols) or [""]:
            groups.setdefault(BoardKey(*where, protocol, run.manifest["identity"]["data"]), []).append(run)
    # a failed run has no scores: it is listed wherever its samples are
    unscored = {key: groups.get(replace(key, protocol=""), []) for key in groups}
    return {key: members + unscored[key] for key, members in groups.items() if key.protocol}


def build(key: BoardKey, runs: Sequence[Run], trials: int) -> Board:
    """The board of some runs, without rows for its controls."""
    records = [run.protocols[key.protocol] for run in runs if key.protocol in run.protocols]
    protocol, columns = records[0]["protocol"], known_columns(records)
    every = variants(runs)
    complete = [(one, found) for one in every if (found := one.complete(key.protocol))]
    own = [(one, found) for one, found in complete if not one.control]
    table, ranked = pd.DataFrame([row_of(found, one.label) for one, found in own]), None
    board = Board(
        key=key,
        table=table,
        protocol=protocol,
        unfilled=missing_reasons(runs, key.protocol),
        newest=max(str(run.row.get("finished_at") or "") for run in runs),
        lower=lower_is_better(columns, protocol["averages"]),
        runs=tuple(runs),
        variants=tuple(every),
    )
    if own:
        # Seeds that rows have in different numbers are repeated in turn, so that all rows, controls too, have as many.
        whole = formula(columns, protocol["averages"], math.lcm(*(len(found) for _, found in complete)))
        table, ranked = _with_scores(board, [found for _, found in own], whole, trials)
    left = [one for one in every if not one.control and not one.complete(key.protocol)]
    others = [unranked_row(run, one.label, key) for one in left for run in one.runs]
    listed = [part for part in (table, pd.DataFrame(others)) if not part.empty]
    table = pd.concat(listed, ignore_index=True) if listed else pd.DataFrame()  # none but controls
    table = table.reindex(columns=_table_columns(board, columns))
    table = table.sort_values(["rank", *ROW_COLUMNS], kind="stable", ignore_index=True)
    return replace(board, table=table, ranked=ranked)


def row_of(runs: Sequence[Run], label: Mapping[str, str]) -> dict[str, Any]:
    """What a row says of its runs beside the scores."""
    speeds = [run.row["captions_per_s"] for run in runs if run.row.get("captions_per_s") is not None]
    peaks = [run.row["peak_memory_bytes"] for run in runs if run.row.get("peak_memory_bytes") is not None]
    return {
        **label,
        "seeds": len(runs),
        "params_trained_pct": runs[0].row.get("params_trained_pct"),
        "captions_per_s": np.mean(speeds) if speeds else None,
        "peak_memory_bytes": max(peaks, default=None),
    }


def unranked_row(run: Run, label: Mapping[str, str], key: BoardKey) -> dict[str, Any]:
    """An incomplete run is listed with what it has, and never ranked."""
    row: dict[str, Any] = {**label, "seeds": 1, "params_trained_pct": run.row.get("params_trained_pct")}
    record = run.protocols.get(key.protocol)
    if record is None:
        return row | {"n": 0}
    one = scored(run, key.protocol, record)
    values = one.formula(known_mean(one.formula.with_averages(one.statistics)[None], axis=1))[0]
    return row | {"n": len(one.statistics)} | dict(zip(one.formula.names, values.tolist(), strict=True))


def _table_columns(board: Board, columns: Iterable[str]) -> list[str]:
    """The facts with the protocol's columns and averages, in its order, between them; further metrics come last."""
    names = [*board.protocol["columns"], *board.protocol["averages"]]
    if set(names) <= set(CAPTION_COLUMNS):
        names = list(CAPTION_COLUMNS)
    shown = {*board.headlines, *CAPTION_COLUMNS[-3:]}
    scores = [cell for name in names for cell in (name, *(_ends(name) if name in shown else ()))]
    further = [name for name in columns if name not in (*names, *LEADERBOARD_COLUMNS)]
    return [*LEADERBOARD_COLUMNS[:BEFORE_SCORES], *scores, *LEADERBOARD_COLUMNS[BEFORE_SCORES:], *further]


def _ends(name: str) -> tuple[str, str]:
    return f"{name}_ci_low", f"{name}_ci_high"


# ---------------------------------------------------------------- ranked rows


def _with_scores(
    board: Board, members: Sequence[Sequence[Run]], whole: Formula, trials: int
) -> tuple[pd.DataFrame, Ranked | None]:
    """Values over the samples that all rows have, ranks, and their intervals from one joint bootstrap."""
    systems = np.stack([whole.read(runs, board.key.protocol) for runs in members])
    own = [whole.places[name] for name in board.protocol["columns"]]
    present = [p for places in own for p in places if not np.isnan(systems[:, :, places]).all(axis=(1, 2)).any()]
    used = np.logical_and.reduce([stats.complete(values[:, present]) for values in systems])
    statistics = whole.with_averages(systems[:, used])
    values = whole(known_mean(statistics, axis=1))
    table = board.table.assign(n=int(used.sum()), **dict(zip(whole.names, values.T, strict=True)))
    if not used.any():
        return table, None
    filled = whole.only(
        name
        for place, name in enumerate(whole.columns)
        if not np.isnan(values[:, place]).any() and not np.isnan(statistics[:, :, whole.places[name]]).any()
    )
    if not filled.names:  # the runs have no score in common
        return table, None
    if board.primary in filled.names:
        better = table[board.primary] * (-1 if board.primary in board.lower else 1)
        table["rank"] = better.rank(method="min", ascending=False).astype(int)
    table = table.sort_values([name for name in ("rank", *ROW_COLUMNS) if name in table], kind="stable")
    order = list(table.index)
    statistics = statistics[order][:, :, filled.among(whole)]
    ranked = Ranked(
        rows=tuple(map(row_name, table[list(ROW_COLUMNS)].itertuples(index=False))),
        formula=filled,
        lower=board.lower,
        statistics=statistics,
        own=statistics if filled.plain else own_values(filled, [members[place] for place in order], board.key, used),
        resampled=stats.resampled(statistics, trials, SEED, filled),
        newest=max((run for runs in members for run in runs), key=_age),
        used=used,
    )
    return _with_intervals(table, ranked, board), ranked


def _with_intervals(table: pd.DataFrame, ranked: Ranked, board: Board) -> pd.DataFrame:
    for place, name in enumerate(ranked.columns):
        drawn = ranked.resampled[:, :, place]
        if name in board.headlines:
            low, high = _ends(name)
            table[low], table[high] = stats.interval(drawn)
        if name == board.primary and not np.isnan(drawn).any():
            table["rank_low"], table["rank_high"] = stats.ranks(drawn * ranked.signs[place])
    return table


def own_values(made: Formula, members: Sequence[Sequence[Run]], key: BoardKey, used: NDArray[np.bool_]) -> Array:
    """The columns' values of each sample, the mean over the seeds of a row: [rows, used samples, columns]."""
    rows = []
    for runs in members:
        tables = [protocol_values(run, run.protocols[key.protocol]).loc[used, list(made.columns)] for run in runs]
        mean = sum(tables[1:], start=tables[0]) / len(tables)
        rows.append(add_averages(mean, made.averages).to_numpy(float))
    return np.stack(rows)


def _age(run: Run) -> tuple[str, str]:
    return str(run.row.get("finished_at") or ""), run.folder.name
