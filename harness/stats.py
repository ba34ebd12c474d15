"""How sure are we? Intervals by bootstrap, differences by paired permutation tests, agreement of metrics.

A matrix of per-sample values has one row per image and one column per column of the protocol; NaN marks a failure.
There is one denominator: an image that failed in any column is left out of all of them, so that an average covers the
same images as its parts. `complete` says which images remain; the caller counts and prints the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata, spearmanr

from harness.contracts import RequestError

Array = NDArray[np.float64]

CHUNK = 2_000_000  # draws held in memory at once (16 MB)
EQUAL = 1e-9  # relative: the same sum in another order is no larger one


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


def permutation(values: Array, trials: int, seed: int) -> Array:
    """p-values [systems, systems, k] of the paired two-sided test for a difference of means (Good 2005, section 3).

    values: [systems, n, k] over the same n images, no NaN. If two systems were alike, the captions of an image could
    be swapped: the sign of its difference is drawn at random, the same draws for all pairs and columns.
    p = (1 + draws with a difference at least as large) / (1 + trials) (Phipson and Smyth 2010); 1 on the diagonal.
    """
    systems, n, k = values.shape
    centred = values - values.mean(axis=0)  # cancels in every difference, and keeps the sums small
    flat = centred.transpose(1, 0, 2).reshape(n, systems * k)
    observed = np.abs(_differences(flat.sum(axis=0).reshape(1, systems, k))[0]) * (1 - EQUAL)
    larger = np.ones((systems, systems, k))
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // max(n, 1))
    for start in range(0, trials, step):
        signs = rng.integers(0, 2, size=(min(step, trials - start), n), dtype=np.int8) * 2.0 - 1.0
        sums = (signs @ flat).reshape(-1, systems, k)
        larger += (np.abs(_differences(sums)) >= observed).sum(axis=0)
    return larger / (trials + 1)


def holm(p: Array) -> Array:
    """p-values of one family of tests [m], corrected to hold for any false finding in all of them (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def holm_pairs(p: Array) -> Array:
    """Holm's correction over all pairs of systems, per column: [systems, systems, k] symmetric, 1 on the diagonal."""
    corrected = np.ones_like(p)
    upper = np.triu_indices(p.shape[0], k=1)
    for column in range(p.shape[2]):
        family = holm(p[..., column][upper])
        corrected[(*upper, column)] = family
        corrected[(upper[1], upper[0], column)] = family
    return corrected


def agreement(means: Array) -> tuple[Array, Array]:
    """Spearman's rho and Kendall's tau-b [k, k]: do the columns of `means` [systems, k] order the systems alike?

    NaN for a column that is constant, and everywhere with fewer than two systems.
    """
    k = means.shape[1]
    rho, tau = np.full((k, k), np.nan), np.full((k, k), np.nan)
    varied = [place for place in range(k) if len(means) > 1 and np.ptp(means[:, place]) > 0]
    for left in varied:
        for right in varied:
            pair = means[:, left], means[:, right]
            rho[left, right], tau[left, right] = spearmanr(*pair).statistic, kendalltau(*pair).statistic
    return rho, tau


def _differences(sums: Array) -> Array:
    """[trials, systems, k] -> [trials, systems, systems, k]."""
    return sums[:, :, None] - sums[:, None]


def _multinomial(rng: np.random.Generator, trials: int, n: int) -> Array:
    """How often each of n rows is drawn in n draws: [trials, n]. Much faster than Generator.multinomial for large n."""
    draws = rng.integers(n, size=(trials, n)) + np.arange(trials)[:, None] * n
    return np.bincount(draws.ravel(), minlength=trials * n).reshape(trials, n).astype(np.float64)
