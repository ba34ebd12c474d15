"""Values of a protocol's columns for each sample, as samples.csv, `compare` and the report's gallery show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.store.runs import Run
from harness.store.scores import Array


def protocol_values(run: Run, record: Mapping[str, Any]) -> pd.DataFrame:
    """Values of a protocol's columns [samples, columns]; a column whose metric is missing is all NaN."""
    found = {name: run.values(column) if "file" in column else None for name, column in record["columns"].items()}
    length = next((len(values) for values in found.values() if values is not None), None)
    unfilled = np.full(len(run.rows) if length is None else length, np.nan)
    return pd.DataFrame({name: unfilled if values is None else values for name, values in found.items()})


def add_averages(values: pd.DataFrame, averages: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Append the composites, in order: the mean of the named columns, blank as soon as one of them is."""
    table = values.copy()
    for name, parts in averages.items():
        table[name] = table[list(parts)].mean(axis=1, skipna=False)
    return table


def tidy(rows: Mapping[str, Sequence[str]], metrics: Sequence[str], cells: Mapping[str, Array]) -> pd.DataFrame:
    """Matrices [rows, metrics] below each other: a line for each row, by its names, and metric."""
    names = {name: np.repeat(np.array(each), len(metrics)) for name, each in rows.items()}
    values = {name: matrix.ravel() for name, matrix in cells.items()}
    count = len(next(iter(cells.values())))
    return pd.DataFrame({**names, "metric": np.tile(np.array(metrics), count), **values})


def missing_reasons(runs: Iterable[Run], protocol: str) -> dict[str, str]:
    """Column -> why it has no values, over runs scored under a protocol."""
    records = [run.protocols[protocol] for run in runs if protocol in run.protocols]
    found = {
        name: column["missing"] for one in records for name, column in one["columns"].items() if "missing" in column
    }
    for name in {name for one in records for name in one["protocol"]["columns"]}:
        if any(name not in one["columns"] for one in records):
            found[name] = f"some runs have scores of another version; repeat `capbench score protocol={protocol}`"
    return found
