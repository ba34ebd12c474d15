"""How sure are we? Intervals by bootstrap, differences by paired permutation tests, agreement of metrics.

A matrix of per-sample values has one row per image and one column per column of the protocol; NaN marks a failure.
There is one denominator: an image that failed in any column is left out of all of them, so that an average covers the
same images as its parts. `complete` says which images remain; the caller counts and prints the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from harness.contracts import RequestError

Array = NDArray[np.float64]

CHUNK = 2_000_000  # draws held in memory at once (16 MB)
EQUAL = 1e-9  # of the sum of all absolute values: the same sum in another order is no larger one


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
    sums = np.empty((k + 1, trials))  # the trials of one mean lie together, as the sorting in `interval` wants them
    for part in _parts(trials, n):
        sums[:, part] = (_multinomial(rng, part.stop - part.start, n) @ weighted).T
    with np.errstate(invalid="ignore"):
        means: Array = (sums[:k] / sums[k]).T
    return means


def joint(values: Array, trials: int, seed: int, mix: Array | None = None) -> Array:
    """Means [trials, systems, k] over jointly resampled images of `values` [systems, n, k].

    mix [k, m]: what is wanted are combinations of the means, such as averages of columns: [trials, systems, m].
    """
    systems, n, k = values.shape
    flat = values.transpose(1, 0, 2).reshape(n, systems * k)
    means = bootstrap(flat, trials, seed).T.reshape(systems, k, trials)
    if mix is not None:
        means = mix.T @ means
    return np.moveaxis(means, -1, 0)


def interval(means: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Percentile interval: lower and upper bound over the trials, the first axis of `means`; NaN where a mean is NaN.

    The quantiles are numpy's default ("linear"), by numpy's sort, which is several times faster than its partition.
    """
    ordered = np.sort(np.moveaxis(means, 0, -1), axis=-1)  # NaN comes last
    last = ordered.shape[-1] - 1
    bounds = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        below = int(share * last)
        low, high = ordered[..., below], ordered[..., min(below + 1, last)]
        bounds.append(np.where(np.isnan(ordered[..., -1]), np.nan, low + (high - low) * (share * last - below)))
    return bounds[0], bounds[1]


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
    systems, _, k = values.shape
    one, other = np.triu_indices(systems, k=1)
    found = _sign_flips(values, trials, seed, lambda sums: sums[:, one] - sums[:, other])
    p = np.ones((systems, systems, k))
    p[one, other] = p[other, one] = found
    return p


def permutation_with_first(values: Array, trials: int, seed: int) -> Array:
    """The p-values [systems - 1, k] of `permutation` for the pairs of the first system with each other one."""
    return _sign_flips(values, trials, seed, lambda sums: sums[:, 1:] - sums[:, :1])


def _sign_flips(values: Array, trials: int, seed: int, differences: Callable[[Array], Array]) -> Array:
    """p-values of the `differences` [draws, pairs, k] that come of the sums [draws, systems, k] under random signs."""
    systems, n, k = values.shape
    flat = (values - values.mean(axis=0)).transpose(1, 0, 2).reshape(n, systems * k)  # smaller sums, same differences
    total = flat.sum(axis=0)
    rounding = EQUAL * np.abs(flat).sum(axis=0).reshape(systems, k).max(axis=0)
    least = np.abs(differences(total.reshape(1, systems, k))[0]) - rounding
    larger = np.ones(least.shape)
    rng = np.random.default_rng(seed)
    for part in _parts(trials, max(n, systems * k, least.size)):
        chosen = _bits(rng, part.stop - part.start, n) @ flat
        drawn = differences((2 * chosen - total).reshape(-1, systems, k))  # chosen - (total - chosen): signs of +1, -1
        larger += (np.abs(drawn) >= least).sum(axis=0)
    return larger / (trials + 1)


def holm(p: Array) -> Array:
    """p-values of one family of tests [m], corrected to hold for any false finding in all of them (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def agreement(means: Array) -> tuple[Array, Array]:
    """Spearman's rho and Kendall's tau-b [k, k]: do the columns of `means` [systems, k] order the systems alike?

    NaN for a column that is constant, and everywhere with fewer than two systems.
    """
    k = means.shape[1]
    rho, tau = np.full((k, k), np.nan), np.full((k, k), np.nan)
    varied = [place for place in range(k) if len(means) > 1 and np.ptp(means[:, place]) > 0]
    if varied:
        rho[np.ix_(varied, varied)] = np.corrcoef(rankdata(means[:, varied], axis=0), rowvar=False)
    for left, right in combinations_with_replacement(varied, 2):
        tau[left, right] = tau[right, left] = kendalltau(means[:, left], means[:, right]).statistic
    return rho, tau


def _parts(trials: int, width: int) -> Iterator[slice]:
    """The trials in parts of at most CHUNK numbers, `width` of them for a trial."""
    step = max(1, CHUNK // max(width, 1))
    for start in range(0, trials, step):
        yield slice(start, min(start + step, trials))


def _bits(rng: np.random.Generator, trials: int, n: int) -> Array:
    """Fair coins [trials, n], 0 or 1; eight of each random byte."""
    drawn = np.frombuffer(rng.bytes(trials * -(-n // 8)), dtype=np.uint8).reshape(trials, -1)
    return np.unpackbits(drawn, axis=1, count=n).astype(np.float64)


def _multinomial(rng: np.random.Generator, trials: int, n: int) -> Array:
    """How often each of n rows is drawn in n draws: [trials, n]. Much faster than Generator.multinomial for large n."""
    draws = rng.integers(n, size=(trials, n)) + np.arange(trials)[:, None] * n
    return np.bincount(draws.ravel(), minlength=trials * n).reshape(trials, n).astype(np.float64)
