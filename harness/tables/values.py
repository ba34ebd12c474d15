"""Values of a protocol's columns, per sample, and the averages over columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.store.runs import Run
from harness.store.scores import Array


def protocol_values(run: Run, record: Mapping[str, Any]) -> pd.DataFrame:
    """Per-sample values of a protocol's columns [samples, columns]; a column whose metric is missing is all NaN."""
    return pd.DataFrame(protocol_matrix(run, record), columns=list(record["columns"]))


def protocol_matrix(run: Run, record: Mapping[str, Any]) -> Array:
    """The same as numbers alone: [samples, columns]."""
    found = [run.values(c) if "file" in c else None for c in record["columns"].values()]
    length = next((len(values) for values in found if values is not None), None)
    blank = np.full(len(run.rows) if length is None else length, np.nan)
    return np.column_stack([blank if values is None else values for values in found])


def add_averages(values: pd.DataFrame, averages: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Append the composites, in order: the mean of the named columns, blank as soon as one of them is."""
    table = values.copy()
    for name, parts in averages.items():
        table[name] = table[list(parts)].mean(axis=1, skipna=False)
    return table


def mixture(names: Sequence[str], averages: Mapping[str, Sequence[str]]) -> Array:
    """The columns and their composites as combinations of the columns: [columns, columns and composites]."""
    return add_averages(pd.DataFrame(np.eye(len(names)), columns=list(names)), averages).to_numpy(float)


def stacked_averages(
    systems: Sequence[Array], names: Sequence[str], averages: Mapping[str, Sequence[str]]
) -> tuple[list[str], Array]:
    """Matrices [n, columns] of several systems with their composites: the names, and [systems, n, columns]."""
    table = add_averages(pd.DataFrame(np.concatenate(systems), columns=list(names)), averages)
    return list(table.columns), table.to_numpy(float).reshape(len(systems), -1, table.shape[1])


def missing_reasons(runs: Iterable[Run], protocol: str) -> dict[str, str]:
    """Column -> why it is blank, over runs scored under a protocol."""
    found: dict[str, str] = {}
    for run in runs:
        for name, column in run.protocols.get(protocol, {}).get("columns", {}).items():
            if "missing" in column:
                found[name] = column["missing"]
    return found
