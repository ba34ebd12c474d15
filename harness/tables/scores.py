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
from harness.tables.values import mixture, protocol_matrix, stacked_averages

AT_ONCE = 500  # runs resampled together: the draws depend on the number of samples alone, so they are made once


@dataclass(frozen=True)
class Scored:
    """A run under one protocol. values: [n, columns] of the samples that have a value in every scored column."""

    run: Run
    protocol: str
    record: Mapping[str, Any]
    values: Array
    left_out: int

    @property
    def like(self) -> tuple[Any, ...]:
        """What runs that are resampled together have in common."""
        averages = {name: tuple(parts) for name, parts in self.record["protocol"]["averages"].items()}
        return (tuple(_blank(self.record).items()), tuple(averages.items()), len(self.values))


def scores_table(runs: Iterable[Run], trials: int) -> pd.DataFrame:
    """One row for each run, protocol and column, the averages last."""
    groups: dict[tuple[Any, ...], list[Scored]] = {}
    for one in (_scored(run, name, record) for run in runs for name, record in run.protocols.items()):
        groups.setdefault(one.like, []).append(one)
    rows = [
        row
        for members in groups.values()
        for start in range(0, len(members), AT_ONCE)
        for row in _rows(members[start : start + AT_ONCE], trials)
    ]
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    return table.sort_values(["run_id", "protocol"], kind="stable", ignore_index=True)


def _scored(run: Run, protocol: str, record: Mapping[str, Any]) -> Scored:
    values = protocol_matrix(run, record)
    used = stats.complete(values[:, [not blank for blank in _blank(record).values()]])
    return Scored(run, protocol, record, values[used], int((~used).sum()))


def _blank(record: Mapping[str, Any]) -> dict[str, bool]:
    """Column -> whether its metric could not run."""
    return {name: "file" not in column for name, column in record["columns"].items()}


def _rows(members: Sequence[Scored], trials: int) -> Iterator[dict[str, Any]]:
    record = members[0].record
    names, values = stacked_averages(
        [m.values for m in members], list(record["columns"]), record["protocol"]["averages"]
    )
    blank = np.full((len(members), len(names)), np.nan)
    mean, low, high = blank.copy(), blank.copy(), blank.copy()
    if values.shape[1]:
        filled = ~np.isnan(values[0, 0])
        shown = [name for name, whole in zip(names, filled.tolist(), strict=True) if whole]
        mix = mixture([name for name in shown if name in record["columns"]], _averages(record, shown))
        mean[:, filled] = values[:, :, filled].mean(axis=1)
        resampled = stats.joint(values[:, :, filled][:, :, : len(mix)], trials, SEED, mix)
        low[:, filled], high[:, filled] = stats.interval(resampled)
    for place, member in enumerate(members):
        yield from _member_rows(member, names, zip(mean[place], low[place], high[place], strict=True))


def _averages(record: Mapping[str, Any], shown: Sequence[str]) -> dict[str, Sequence[str]]:
    return {name: parts for name, parts in record["protocol"]["averages"].items() if name in shown}


def _member_rows(member: Scored, names: Sequence[str], values: Iterable[tuple[float, ...]]) -> Iterator[dict[str, Any]]:
    run, columns = member.run, member.record["columns"]
    empty = _empty(run)
    for name, (value, low, high) in zip(names, values, strict=True):
        column = columns.get(name, {})
        yield {
            "run_id": run.row["run_id"],
            "protocol": member.protocol,
            "metric": name,
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "n": len(member.values),
            "n_failed": member.left_out,
            "n_empty": empty,
            "n_truncated": run.truncated(column),
            "higher_is_better": column.get("higher_is_better", True),
            "signature": column.get("signature") or column.get("missing") or _average_signature(name, member.record),
        }


def _empty(run: Run) -> int:
    """Empty captions, as generation counted them; a submission has no such count."""
    counted = run.row.get("n_empty")
    return sum(row.caption == "" for row in run.rows) if counted is None else int(counted)


def _average_signature(name: str, record: Mapping[str, Any]) -> str:
    protocol = record["protocol"]
    return f"mean({','.join(protocol['averages'][name])})|protocol={protocol['name']}|v={protocol['version']}"
