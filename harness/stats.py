"""Intervals by bootstrap: how far could means, averages and ranks differ on another draw of images?

A matrix of per-sample values has one row per image and one column per column of the protocol; NaN marks a failure.
There is one denominator: an image that failed in any column is left out of all of them, so that an average covers the
same images as its parts. `complete` says which images remain; the caller counts and prints the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from harness.contracts import RequestError

Array = NDArray[np.float64]

CHUNK = 2_000_000  # draws held in memory at once (16 MB)


def complete(values: Array) -> NDArray[np.bool_]:
    """Rows of `values` [n, k] without NaN, as a mask [n]."""
    return np.asarray(~np.isnan(values).any(axis=1))


def bootstrap(values: Array, trials: int, seed: int) -> Array:
    """Column means [trials, k] over resampled rows of `values` [n, k] (Efron 1979); all columns see the same rows.

    The draws depend on n, trials and seed only. So matrices of several systems over the same images in the same order
    are resampled jointly, failed images included: those are drawn, then left out. A trial of nothing else is NaN.
    """
    n, k = values.shape
    if n == 0:
        return np.full((trials, k), np.nan)
    kept = complete(values)
    weighted = np.column_stack([np.where(kept[:, None], values, 0.0), kept])
    rng = np.random.default_rng(seed)
    sums = np.empty((trials, k + 1))
    step = max(1, CHUNK // n)
    for start in range(0, trials, step):
        rows = min(step, trials - start)
        sums[start : start + rows] = _multinomial(rng, rows, n) @ weighted
    with np.errstate(invalid="ignore"):
        means: Array = sums[:, :k] / sums[:, k:]
    return means


def interval(means: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Percentile interval: lower and upper bound over the trials, the first axis of `means`."""
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def ranks(overall: Array, level: float = 0.95) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best and worst plausible rank [systems] from jointly resampled means [trials, systems], higher being better.

    Rank 1 is best; equal systems share the better rank. The bounds are ranks that occurred, and cover `level` or more.
    Raises RequestError on NaN: a system without a scored image cannot be ranked.
    """
    if np.isnan(overall).any():
        raise RequestError("ranks: expected finite means, got NaN: leave systems without a scored image out")
    table = rankdata(-overall, method="min", axis=1)
    tail = (1 - level) / 2
    low = np.quantile(table, tail, axis=0, method="lower")
    high = np.quantile(table, 1 - tail, axis=0, method="higher")
    return low.astype(np.int64), high.astype(np.int64)


def _multinomial(rng: np.random.Generator, trials: int, n: int) -> Array:
    """How often each of n rows is drawn in n draws: [trials, n]. Much faster than Generator.multinomial for large n."""
    draws = rng.integers(n, size=(trials, n)) + np.arange(trials)[:, None] * n
    return np.bincount(draws.ravel(), minlength=trials * n).reshape(trials, n).astype(np.float64)
