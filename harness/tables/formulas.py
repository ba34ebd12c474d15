"""Formulas: how the columns of a protocol and their averages follow from means over samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.contracts import RequestError
from harness.store.runs import Run
from harness.store.scores import Array

Columns = Mapping[str, Mapping[str, Any]]
"""Column -> its entry in a record of scores."""


@dataclass(frozen=True)
class Formula:
    """A function from means of statistics to values of columns, read from the records of a protocol.

    A statistic is a number of each sample: the value of a plain column, and what the ratios of a combined one sum up.
    The value of a combined column is the mean over `seeds` repetitions of the mean of its ratios, so that its
    statistics are there once for each. Behind these first statistics stand the averages of plain columns alone, which
    are means over samples as well; an average with a combined part follows from the values of its parts.
    """

    columns: Columns
    averages: Mapping[str, Sequence[str]]
    seeds: int = 1

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What it makes: the columns, then the averages."""
        return (*self.columns, *self.averages)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Column -> places of its statistics."""
        found: dict[str, list[int]] = {}
        for name, column in self.columns.items():
            start = sum(map(len, found.values()))
            count = len(summed(column)) * (self.seeds if "combine" in column else 1)
            found[name] = list(range(start, start + count))
        return found

    @cached_property
    def linear(self) -> dict[str, int]:
        """Columns and averages that are means over samples -> the place of their statistic."""
        found = {name: self.places[name][0] for name, column in self.columns.items() if "combine" not in column}
        start = sum(map(len, self.places.values()))
        for name, parts in self.averages.items():
            if all(part in found for part in parts):
                found[name] = start
                start += 1
        return found

    @cached_property
    def plain(self) -> bool:
        """Whether the values are the means themselves."""
        return len(self.linear) == len(self.names)

    @cached_property
    def mix(self) -> Array:
        """All statistics as combinations of those of the columns: [of the columns, all]."""
        return self.with_averages(np.eye(sum(map(len, self.places.values()))))

    def with_averages(self, statistics: Array) -> Array:
        """Those of the columns [..., k] with the averages of plain columns behind them."""
        found = list(np.moveaxis(statistics, -1, 0))
        for name, parts in self.averages.items():
            if name in self.linear:
                found.append(np.mean([found[self.linear[part]] for part in parts], axis=0))
        return np.moveaxis(np.array(found), 0, -1)  # the samples of a statistic lie together

    def __call__(self, means: Array) -> Array:
        """Values [..., columns] from means of statistics [..., statistics]; NaN where one does not exist."""
        if self.plain:
            return means
        values = np.empty((*means.shape[:-1], len(self.names)))
        for place, name in enumerate(self.names):
            if name in self.linear:
                values[..., place] = means[..., self.linear[name]]
            elif name in self.columns:
                values[..., place] = self._combined(name, means[..., self.places[name]])
            else:
                values[..., place] = values[..., [self.names.index(part) for part in self.averages[name]]].mean(axis=-1)
        return values

    def _combined(self, name: str, means: Array) -> Array:
        """The mean over seeds of the mean of the ratios; 0/0 is left out of either mean."""
        column, own = self.columns[name], summed(self.columns[name])
        sums = means.reshape(*means.shape[:-1], self.seeds, len(own))
        weights = (
            [[ratio[side].get(s, 0.0) for ratio in column["combine"]] for s in own] for side in ("over", "under")
        )
        over, under = (sums @ np.array(each, dtype=float) for each in weights)
        ratios = np.divide(over, under, out=np.full_like(over, np.nan), where=under != 0)
        return known_mean(known_mean(ratios))

    def read(self, runs: Sequence[Run], protocol: str) -> Array:
        """The statistics of the columns [n, k] for one row: repetitions of plain columns are averaged.

        NaN where a sample has no value. Fewer runs than `seeds` are repeated in turn; their number divides it.
        """
        each = {
            name: [_block(run, protocol, name, summed(column)) for run in runs] for name, column in self.columns.items()
        }
        count = max(len(block) for found in each.values() for block in found) or len(runs[0].rows)
        blocks: list[Array] = []
        for name, found in each.items():
            whole = [block if len(block) else np.full((count, block.shape[1]), np.nan) for block in found]
            if "combine" in self.columns[name]:
                blocks += [whole[place % len(whole)] for place in range(self.seeds)]
            else:
                blocks.append(sum(whole[1:], start=whole[0]) / len(whole))
        return np.column_stack(blocks)

    def among(self, whole: Formula) -> list[int]:
        """Places of its statistics among those of a formula that it is a part of."""
        places = [place for name in self.columns for place in whole.places[name]]
        return places + [whole.linear[name] for name in self.averages if name in self.linear]

    def only(self, names: Iterable[str]) -> Formula:
        """The formula of some of the columns, with the averages that these make."""
        return formula({name: self.columns[name] for name in names}, self.averages, self.seeds)


def formula(columns: Columns, averages: Mapping[str, Sequence[str]], seeds: int = 1) -> Formula:
    """The formula of columns and of the averages all parts of which are there."""
    kept: dict[str, Sequence[str]] = {}
    for name, parts in averages.items():
        if all(part in columns or part in kept for part in parts):
            kept[name] = parts
    return Formula(columns, kept, seeds)


def summed(column: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of its metric that a column is made of; its own value for a plain one."""
    names = (name for ratio in column.get("combine", ()) for side in ("over", "under") for name in ratio[side])
    return tuple(dict.fromkeys(names)) or (str(column.get("value")),)


def known_columns(records: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Column -> its first entry with values in some records of one protocol, else why it has none."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        for name, column in record["columns"].items():
            if name not in found or ("file" in column and "file" not in found[name]):
                found[name] = column
    return found


def lower_is_better(columns: Columns, averages: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Columns where less is better, and averages of such alone. A column without values has no direction."""
    better = {name: c["higher_is_better"] for name, c in columns.items() if "higher_is_better" in c}
    for name, parts in averages.items():
        known = [better[part] for part in parts if part in better]
        if known:
            better[name] = any(known)
    return frozenset(name for name, higher in better.items() if not higher)


def _block(run: Run, protocol: str, name: str, names: Sequence[str]) -> Array:
    """What a column sums up [n, names] of one run; no row where the run has no values of it."""
    column = run.protocols[protocol]["columns"].get(name, {})
    if "file" not in column:
        return np.empty((0, len(names)))
    values = run.scores(column).values
    lacking = [wanted for wanted in names if wanted not in values]
    if lacking:
        raise RequestError(
            f"{run.folder}: expected {', '.join(lacking)} in {column['file']}, which {name} of other runs is made of; "
            "repeat `capbench score`; if the metric has been edited, its signature has to change first"
        )
    block = np.column_stack([values[wanted] for wanted in names])
    block[np.isnan(block).any(axis=1)] = np.nan
    return block


def known_mean(values: Array, axis: int = -1) -> Array:
    """The mean over an axis of what is no NaN; NaN where nothing is, without numpy's warning."""
    with np.errstate(invalid="ignore"):
        found: Array = np.nansum(values, axis=axis) / (~np.isnan(values)).sum(axis=axis)
    return found
