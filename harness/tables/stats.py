"""Statistics of scores: intervals by bootstrap, differences by paired permutation tests, agreement of metrics.

A matrix of statistics has one row per image; their means are the columns of the protocol, or make them by a `Formula`.
NaN marks a failure. A value that one resample of the images does not have (0/0) has no interval and no rank range.
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
from harness.store.scores import Array
from harness.tables.formulas import Formula

Places = NDArray[np.int64]

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


def resampled(statistics: Array, trials: int, seed: int, formula: Formula) -> Array:
    """Values of columns [trials, systems, columns] over jointly resampled images of `statistics` [systems, n, all]."""
    mix = formula.mix
    return formula(joint(statistics[:, :, : len(mix)], trials, seed, mix))


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


def permutation(values: Array, trials: int, seed: int, formula: Formula | None = None) -> Array:
    """p-values [systems, systems, columns] of the paired two-sided test for a difference (Good 2005, section 3).

    values: statistics [systems, n, k] over the same n images, no NaN; without a formula their means are the columns.
    If two systems were alike, the captions of an image could be swapped, and with them all its statistics: whether
    they are is drawn at random, the same draws for all pairs and columns. p = (1 + draws with a difference at least as
    large) / (1 + trials) (Phipson and Smyth 2010); 1 on the diagonal. A draw without a difference counts as a larger
    one; columns without an observed difference have no p-value.
    """
    one, other = np.triu_indices(len(values), k=1)
    found = _swaps(values, trials, seed, one, other, formula)
    p = np.ones((len(values), len(values), found.shape[1]))
    p[one, other] = p[other, one] = found
    return p


def permutation_with_first(values: Array, trials: int, seed: int, formula: Formula | None = None) -> Array:
    """The p-values [systems - 1, columns] of `permutation` for the pairs of the first system with each other one."""
    others = np.arange(1, len(values))
    return _swaps(values, trials, seed, others, np.zeros_like(others), formula)


def _swaps(values: Array, trials: int, seed: int, one: Places, other: Places, formula: Formula | None) -> Array:
    """p-values [pairs, columns]. A swap turns the sign of an image's share in the difference of the sums of a pair."""
    systems, n, k = values.shape
    flat = (values - values.mean(axis=0)).transpose(1, 0, 2).reshape(n, systems * k)  # smaller sums, same differences
    total = flat.sum(axis=0).reshape(systems, k)
    rounding = EQUAL * np.abs(flat).sum(axis=0).reshape(systems, k).max(axis=0)
    gaps, rounding = _gaps(values, one, other, rounding, formula)
    least = np.abs(gaps(total[one] - total[other])) - rounding
    larger = np.ones(least.shape)
    rng = np.random.default_rng(seed)
    for part in _parts(trials, max(n, systems * k, least.size)):
        chosen = (_bits(rng, part.stop - part.start, n) @ flat).reshape(-1, systems, k)
        drawn = 2 * chosen - total  # chosen - (total - chosen): signs of +1, -1
        larger += (~(np.abs(gaps(drawn[:, one] - drawn[:, other])) < least)).sum(axis=0)
    return np.where(np.isnan(least), np.nan, larger / (trials + 1))


def _gaps(
    values: Array, one: Places, other: Places, rounding: Array, formula: Formula | None
) -> tuple[Callable[[Array], Array], Array]:
    """From differences of sums [..., pairs, k] to those of columns, and what rounding may add to these.

    The sums of both systems of a pair together stay as they are, so that a difference says what each of them is.
    """
    if formula is None or formula.plain:
        return lambda sums: sums, rounding
    columns = [formula.names.index(name) for name in formula.linear]
    statistics = list(formula.linear.values())
    whole, size = values.sum(axis=1), np.abs(values).sum(axis=1)
    both, least = whole[one] + whole[other], EQUAL * (size[one] + size[other])
    n = values.shape[1]

    def gaps(sums: Array) -> Array:
        halves = (np.where(np.abs(half) < least, 0.0, half) / n for half in ((both + sums) / 2, (both - sums) / 2))
        left, right = (formula(half) for half in halves)
        found: Array = left - right
        found[..., columns] = sums[..., statistics]
        return found

    spread = EQUAL * np.nanmax(np.abs(formula(whole / n)), axis=0, initial=0.0)
    spread[columns] = rounding[statistics]
    return gaps, spread


def holm(p: Array) -> Array:
    """p-values of one family of tests [m], corrected to hold for any false finding in all of them (Holm 1979).

    A comparison without a p-value (NaN) is no test of the family.
    """
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected = np.full_like(p, np.nan)
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
