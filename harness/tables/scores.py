"""scores.csv: run x protocol x metric, with a bootstrap interval over the run's own samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables import stats
from harness.tables.columns import SCORE_COLUMNS, SEED
from harness.tables.formulas import Formula, formula, lower_is_better

AT_ONCE = 500  # runs resampled together: the draws depend on the number of samples alone, so they are made once


@dataclass(frozen=True)
class Scored:
    """A run under one protocol. statistics: [n, of columns] of the samples with a value in every scored column."""

    run: Run
    protocol: str
    record: Mapping[str, Any]
    formula: Formula
    statistics: Array
    left_out: int

    @property
    def like(self) -> str:
        """What runs that are resampled together have in common."""
        made = {name: c.get("combine", "file" in c) for name, c in self.formula.columns.items()}
        return repr((made, self.formula.averages, len(self.statistics)))


def scores_table(runs: Iterable[Run], trials: int) -> pd.DataFrame:
    """One row for each run, protocol and column, the averages last."""
    groups: dict[str, list[Scored]] = {}
    for one in (scored(run, name, record) for run in runs for name, record in run.protocols.items()):
        groups.setdefault(one.like, []).append(one)
    rows = [
        row
        for members in groups.values()
        for start in range(0, len(members), AT_ONCE)
        for row in _rows(members[start : start + AT_ONCE], trials)
    ]
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    return table.sort_values(["run_id", "protocol"], kind="stable", ignore_index=True)


def scored(run: Run, protocol: str, record: Mapping[str, Any]) -> Scored:
    """A run alone. record: what it has of the protocol."""
    whole = formula(record["columns"], record["protocol"]["averages"])
    statistics = whole.read([run], protocol)
    there = [place for name, c in whole.columns.items() if "file" in c for place in whole.places[name]]
    used = stats.complete(statistics[:, there])
    return Scored(run, protocol, record, whole, statistics[used], int((~used).sum()))


def _rows(members: Sequence[Scored], trials: int) -> Iterator[dict[str, Any]]:
    whole = members[0].formula
    statistics = whole.with_averages(np.stack([member.statistics for member in members]))
    cells = np.full((3, len(members), len(whole.names)), np.nan)  # value, ci_low, ci_high
    if statistics.shape[1]:
        known = ~np.isnan(statistics[0, 0])
        filled = whole.only(name for name in whole.columns if known[whole.places[name]].all())
        columns = [whole.names.index(name) for name in filled.names]
        statistics = statistics[:, :, known]
        cells[0][:, columns] = filled(statistics.mean(axis=1))
        cells[1][:, columns], cells[2][:, columns] = stats.interval(stats.resampled(statistics, trials, SEED, filled))
    for place, member in enumerate(members):
        yield from _member_rows(member, cells[:, place].T)


def _member_rows(member: Scored, cells: Array) -> Iterator[dict[str, Any]]:
    run, columns = member.run, member.record["columns"]
    empty, lower = _empty(run), lower_is_better(columns, member.formula.averages)
    for name, (value, low, high) in zip(member.formula.names, cells.tolist(), strict=True):
        column = columns.get(name, {})
        yield {
            "run_id": run.row["run_id"],
            "protocol": member.protocol,
            "metric": name,
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "n": len(member.statistics),
            "n_failed": member.left_out,
            "n_empty": empty,
            "n_truncated": run.truncated(column),
            "higher_is_better": name not in lower,
            "signature": column.get("signature") or column.get("missing") or _average_signature(name, member.record),
        }


def _empty(run: Run) -> int:
    """Empty captions, as generation counted them; a submission has no such count."""
    counted = run.row.get("n_empty")
    return sum(row.caption == "" for row in run.rows) if counted is None else int(counted)


def _average_signature(name: str, record: Mapping[str, Any]) -> str:
    protocol = record["protocol"]
    return f"mean({','.join(protocol['averages'][name])})|protocol={protocol['name']}|v={protocol['version']}"
