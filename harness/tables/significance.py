"""Which rows of a leaderboard differ, and which metrics agree: significance.csv and agreement.csv."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.store.scores import Array
from harness.tables import stats
from harness.tables.boards import Ranked
from harness.tables.columns import SEED
from harness.tables.formulas import known_mean

LEVEL = 0.05  # the p-value that a table with all pairs must be able to reach after Holm's correction
NEXT = 20  # rows compared with the best one where all pairs are too many
AGREEING = 40  # rows whose samples are compared: Kendall's tau takes its time, and the best rows are those to trust

Places = NDArray[np.int64]


def significance_table(ranked: Ranked, permutations: int) -> pd.DataFrame:
    """Differences of rows per column with paired intervals and p-values, corrected over the pairs of the column.

    All pairs, row_a ranked above row_b, as long as the correction leaves p = LEVEL possible: the smallest p-value is
    1 / (permutations + 1), and it counts as often as there are pairs. Beyond that the pairs of the column's best row
    with the NEXT rows below it. Not with all: the best of many equal rows is the luckiest one, and differs from the
    unluckiest (with 60 equal rows a corrected p-value below 0.05 comes in 3 of 10 tables; with the next 20 in none).
    """
    rows = len(ranked.rows)
    every = rows * (rows - 1) / 2 <= LEVEL * (permutations + 1)
    parts = _all_pairs(ranked, permutations) if every else _with_best(ranked, permutations)
    table = pd.concat([_part(ranked, place, *part) for place, part in enumerate(parts)], ignore_index=True)
    family = "all pairs" if every else f"best row and the next {NEXT}"
    return table.assign(family=family, n=ranked.statistics.shape[1])


def _all_pairs(ranked: Ranked, permutations: int) -> Iterator[tuple[Places, Places, Array]]:
    """Per column: the rows of each pair and its p-value."""
    left, right = np.triu_indices(len(ranked.rows), k=1)
    p = stats.permutation(ranked.statistics, permutations, SEED, ranked.formula)
    for place in range(len(ranked.columns)):
        yield left, right, p[left, right, place]


def _with_best(ranked: Ranked, permutations: int) -> Iterator[tuple[Places, Places, Array]]:
    """The same for the best row of each column and those that follow it."""
    order = np.argsort(-ranked.values * ranked.signs, axis=0, kind="stable")[: NEXT + 1]  # [rows, columns]
    best = dict(zip(ranked.columns, order.T, strict=True))
    means = np.stack([ranked.statistics[best[n], :, at] for n, at in ranked.formula.linear.items()], axis=-1)
    p = dict(zip(ranked.formula.linear, stats.permutation_with_first(means, permutations, SEED).T, strict=True))
    for place, (name, rows) in enumerate(best.items()):
        if name not in p:  # all that it is made of goes with its own rows
            every = stats.permutation_with_first(ranked.statistics[rows], permutations, SEED, ranked.formula)
            p[name] = every[:, place]
        yield np.full(len(rows) - 1, rows[0]), rows[1:], p[name]


def _part(ranked: Ranked, place: int, left: Places, right: Places, p: Array) -> pd.DataFrame:
    """The rows of one column; intervals from the resampled means of both."""
    means = np.moveaxis(ranked.resampled, 0, -1)[:, place]  # [rows, trials]
    low, high = stats.interval((means[left] - means[right]).T)
    column = ranked.values[:, place]
    names = np.array(ranked.rows)
    cells = {"row_a": names[left], "row_b": names[right], "difference": column[left] - column[right]}
    cells |= {"ci_low": low, "ci_high": high, "p": p, "p_holm": stats.holm(p)}
    return pd.DataFrame(cells).assign(metric=ranked.columns[place])


def agreement_table(ranked: Ranked) -> pd.DataFrame:
    """Spearman's rho and Kendall's tau-b for all pairs of metrics.

    system: over the means of the rows. sample: over the samples of a row, the mean over the best rows (AGREEING at
    most) in which both metrics vary; `rows` counts them.
    """
    metrics = np.array(tuple(ranked.formula.columns))
    values = ranked.own[:, :, : len(metrics)]
    system = stats.agreement(ranked.values[:, : len(metrics)])
    each = np.array([stats.agreement(row) for row in values[:AGREEING]])  # [rows, 2, k, k]
    counted = (~np.isnan(each)).sum(axis=0)[0]
    levels = (("system", *system, np.full_like(counted, len(values))), ("sample", *known_mean(each, axis=0), counted))
    a, b = np.triu_indices(len(metrics), k=1)
    parts = [
        pd.DataFrame(
            {"metric_a": metrics[a], "metric_b": metrics[b], "spearman": rho[a, b], "kendall": tau[a, b]}
        ).assign(level=level, rows=rows[a, b])
        for level, rho, tau, rows in levels
    ]
    return pd.concat(parts, ignore_index=True).assign(n=values.shape[1])
