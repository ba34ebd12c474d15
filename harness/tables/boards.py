"""Leaderboards from runs: what shares a table, what is ranked, and the values behind the ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables import stats
from harness.tables.columns import AVERAGES, BOARD_COLUMNS, LEADERBOARD_COLUMNS, ROW_COLUMNS, SEED
from harness.tables.labels import labels, row_name
from harness.tables.values import add_averages, missing_reasons, mixture, protocol_values, stacked_averages


@dataclass(frozen=True)
class Group:
    """What shares a table: the same samples of one dataset and split, one protocol, embedded or published weights."""

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

    values: [rows, n, columns], no NaN; each the mean over the seeds of its row. means: the same resampled, [trials,
    rows, columns]. mix: the columns by those that are no composites, which come first. used: which samples of the
    newest run these are. averages, lower: columns that are composites, and columns where less is better.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    averages: frozenset[str]
    lower: frozenset[str]
    values: Array
    mix: Array
    means: Array
    newest: Run
    used: NDArray[np.bool_]


@dataclass(frozen=True)
class Board:
    """One leaderboard with the note of its protocol and the reasons of its blank columns.

    runs: all that it lists; ranked: the values behind its ranks, None where no row can be ranked.
    """

    group: Group
    table: pd.DataFrame
    note: str
    blank: Mapping[str, str]
    newest: str
    lower: frozenset[str] = frozenset()
    runs: tuple[Run, ...] = ()
    ranked: Ranked | None = None


def grouped(runs: Sequence[Run]) -> dict[Group, list[Run]]:
    """The runs of each board."""
    groups: dict[Group, list[Run]] = {}
    for run in runs:
        if "dataset" not in run.row:  # failed before it was known what it would have been
            continue
        where = (run.row["dataset"], run.row["split"], run.row["weights"])
        for protocol in list(run.protocols) or [""]:
            groups.setdefault(Group(*where, protocol, run.manifest["identity"]["data"]), []).append(run)
    scored = {group: members for group, members in groups.items() if group.protocol}
    for group, members in groups.items():
        if not group.protocol:  # a failed run has no scores: it is listed wherever its samples are
            for other in scored:
                if (other.dataset, other.split, other.weights, other.data) == (
                    group.dataset, group.split, group.weights, group.data,
                ):  # fmt: skip
                    scored[other] += members
    return scored


def build(group: Group, runs: Sequence[Run], trials: int) -> tuple[Board, Ranked | None]:
    """The board of some runs but the controls, and the values of its ranked rows; None where no row can be ranked."""
    variants = by_variant(run for run in runs if not run.control)
    names = labels({key: members[0] for key, members in variants.items()})
    complete = {k: [r for r in m if r.status == "ok" and group.protocol in r.protocols] for k, m in variants.items()}
    table, ranked = pd.DataFrame([row_of(m, names[key]) for key, m in complete.items() if m]), None
    if len(table):
        table, ranked = _with_scores(table, [m for m in complete.values() if m], group.protocol, trials)
    others = [unranked_row(run, names[key], group) for key, m in variants.items() if not complete[key] for run in m]
    listed = [t for t in (table, pd.DataFrame(others)) if not t.empty]
    table = pd.concat(listed, ignore_index=True) if listed else pd.DataFrame()  # none but controls
    records = [run.protocols[group.protocol] for run in runs if group.protocol in run.protocols]
    columns = {name: column for record in records for name, column in record["columns"].items()}
    table = table.reindex(
        columns=[*LEADERBOARD_COLUMNS, *(name for name in columns if name not in LEADERBOARD_COLUMNS)]
    )
    table = table.sort_values(["rank", *ROW_COLUMNS], kind="stable", ignore_index=True)
    newest = max(str(run.row.get("finished_at") or "") for run in runs)
    blank = missing_reasons(runs, group.protocol)
    note = records[0]["protocol"]["note"]
    return Board(group, table, note, blank, newest, _lower(columns), tuple(runs), ranked), ranked


def by_variant(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The repetitions of each row."""
    variants: dict[str, list[Run]] = {}
    for run in runs:
        variants.setdefault(run.manifest["variant"], []).append(run)
    return variants


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


def unranked_row(run: Run, label: Mapping[str, str], group: Group) -> dict[str, Any]:
    """An incomplete run is listed with what it has, and never ranked."""
    row: dict[str, Any] = {**label, "seeds": 1, "params_trained_pct": run.row.get("params_trained_pct")}
    record = run.protocols.get(group.protocol)
    if record is None:
        return row | {"n": 0}
    present = [name for name, column in record["columns"].items() if "file" in column]
    values = protocol_values(run, record)
    used = stats.complete(values[present].to_numpy(float))
    means = add_averages(values[used], record["protocol"]["averages"]).mean()
    return row | {"n": int(used.sum())} | {str(name): value for name, value in means.items()}


def _lower(columns: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(name for name, column in columns.items() if not column.get("higher_is_better", True))


# ---------------------------------------------------------------- ranked rows


def _with_scores(
    table: pd.DataFrame, members: Sequence[Sequence[Run]], protocol: str, trials: int
) -> tuple[pd.DataFrame, Ranked | None]:
    """Means over the samples that all rows have, ranks, and their intervals from one joint bootstrap."""
    record = members[0][0].protocols[protocol]
    spec, primary = record["protocol"], record["protocol"]["primary"]
    names, systems = _stacked([seed_mean(runs, protocol) for runs in members])
    own = [names.index(name) for name in spec["columns"]]
    present = [place for place in own if not np.isnan(systems[:, :, place]).all(axis=1).any()]
    used = np.logical_and.reduce([stats.complete(values[:, present]) for values in systems])
    columns, values = stacked_averages(list(systems[:, used]), names, spec["averages"])
    table = table.assign(n=int(used.sum()), **dict(zip(columns, _means(values).T, strict=True)))
    if not used.any():
        return table, None
    filled = [place for place in range(len(columns)) if not np.isnan(values[:, :, place]).any()]
    shown = tuple(columns[place] for place in filled)
    if primary in shown:
        table["rank"] = table[primary].rank(method="min", ascending=False).astype(int)
    table = table.sort_values([name for name in ("rank", *ROW_COLUMNS) if name in table], kind="stable")
    values = values[table.index][:, :, filled]
    averages = {name: parts for name, parts in spec["averages"].items() if name in shown}
    mix = mixture([name for name in shown if name not in averages], averages)
    ranked = Ranked(
        rows=tuple(map(row_name, table[list(ROW_COLUMNS)].itertuples(index=False))),
        columns=shown,
        averages=frozenset(averages),
        lower=_lower(record["columns"]),
        values=values,
        mix=mix,
        means=stats.joint(values[:, :, : len(mix)], trials, SEED, mix),
        newest=max((run for runs in members for run in runs), key=_age),
        used=used,
    )
    return _with_intervals(table, ranked, primary), ranked


def _with_intervals(table: pd.DataFrame, ranked: Ranked, primary: str) -> pd.DataFrame:
    for place, name in enumerate(ranked.columns):
        if name in AVERAGES:
            table[f"{name}_ci_low"], table[f"{name}_ci_high"] = stats.interval(ranked.means[:, :, place])
        if name == primary:
            table["rank_low"], table["rank_high"] = stats.ranks(ranked.means[:, :, place])
    return table


def seed_mean(runs: Sequence[Run], protocol: str) -> pd.DataFrame:
    """Per-sample values of one row [samples, columns]: the mean over its seeds."""
    values = [protocol_values(run, run.protocols[protocol]) for run in runs]
    return sum(values[1:], start=values[0]) / len(values)


def _stacked(systems: Sequence[pd.DataFrame]) -> tuple[list[str], Array]:
    """The union of the columns, as a further metric may be there for some rows only; [systems, samples, columns]."""
    names = list(dict.fromkeys(name for values in systems for name in values.columns))
    whole = [values if list(values.columns) == names else values.reindex(columns=names) for values in systems]
    return names, np.stack([values.to_numpy(float) for values in whole])


def _means(values: Array) -> Array:
    """[systems, columns], over what there is of a column."""
    with np.errstate(invalid="ignore"):
        means: Array = np.nansum(values, axis=1) / (~np.isnan(values)).sum(axis=1)
    return means


def _age(run: Run) -> tuple[str, str]:
    return str(run.row.get("finished_at") or ""), run.folder.name
