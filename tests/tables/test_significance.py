"""Permutation tests, Holm's correction and agreement: against scipy, exact enumeration, and their error rates."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, kendalltau, permutation_test, spearmanr

from harness.tables.stats import agreement, holm, permutation, permutation_with_first

TRIALS = 4000


def exact(left: np.ndarray, right: np.ndarray) -> float:
    """The p-value over all 2^n swaps."""
    difference = left - right
    sums = [abs(np.dot(signs, difference)) for signs in product((-1, 1), repeat=len(difference))]
    return float(np.mean(np.array(sums) >= abs(difference.sum()) * (1 - 1e-12)))


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_those_of_all_swaps(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 9, 2)) + np.array([0, 0.4, 0.9])[:, None, None]
    p = permutation(values, TRIALS, seed=1)
    for one, other, column in product(range(3), range(3), range(2)):
        expected = exact(values[one, :, column], values[other, :, column])
        assert p[one, other, column] == pytest.approx(
            expected, abs=4 * (expected * (1 - expected) / TRIALS) ** 0.5 + 1e-3
        )


def test_p_values_are_scipys():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(2, 40, 1))
    values[1] += 0.35
    theirs = permutation_test(
        (values[0, :, 0], values[1, :, 0]),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=TRIALS,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    assert permutation(values, TRIALS, seed=2)[0, 1, 0] == pytest.approx(theirs.pvalue, abs=0.02)


def test_alike_systems_and_the_diagonal_have_1():
    values = np.repeat(np.random.default_rng(0).normal(size=(1, 30, 2)), 2, axis=0)
    assert (permutation(values, 100, seed=0) == 1).all()


def test_the_smallest_p_value_is_that_of_no_larger_draw():
    values = np.stack([np.zeros((60, 1)), np.ones((60, 1))])
    assert permutation(values, 999, seed=0)[0, 1, 0] == 1 / 1000


def test_false_findings_on_null_data_are_as_rare_as_stated():
    rng = np.random.default_rng(3)
    hits = sum(permutation(rng.gamma(1, size=(2, 30, 1)), 199, seed=n)[0, 1, 0] <= 0.05 for n in range(600))
    assert binomtest(hits, 600, 0.05).pvalue > 1e-3


def test_holm_keeps_the_rate_over_all_pairs():
    rng = np.random.default_rng(4)
    upper = np.triu_indices(5, k=1)
    every = [permutation(rng.normal(size=(5, 25, 1)), 399, seed=n)[..., 0][upper] for n in range(300)]
    families = [holm(p).min() <= 0.05 for p in every]
    assert sum(families) / 300 < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_holm_by_hand():
    """Holm 1979: 4, 3, 2 and 1 times the ordered p-values, never less than the one before, at most 1."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.5])).tolist() == [1.0, 1.0]


@settings(max_examples=50, deadline=None)
@given(arrays(float, st.integers(1, 12), elements=st.floats(0.001, 1)))
def test_holm_keeps_the_order_and_never_helps(p):
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


def test_p_values_are_symmetric():
    p = permutation(np.random.default_rng(1).normal(size=(4, 20, 2)), 199, seed=0)
    assert (p == p.transpose(1, 0, 2)).all()


def test_agreement_of_orders():
    means = np.array([[1.0, 10.0, 3.0, 5.0], [2.0, 20.0, 2.0, 5.0], [3.0, 25.0, 1.0, 5.0]])
    rho, tau = agreement(means)
    for table in (rho, tau):
        assert table[0, 1] == pytest.approx(1)
        assert table[0, 2] == pytest.approx(-1)
        assert np.isnan(table[3]).all(), "a constant column orders nothing"
    assert np.isnan(agreement(means[:1])[0]).all()


def test_chunks_of_few_draws_give_the_same_p_values(monkeypatch):
    from harness.tables import stats

    values = np.random.default_rng(6).normal(size=(6, 32, 2))
    whole = permutation(values, 300, seed=4)
    monkeypatch.setattr(stats, "CHUNK", 640)  # 20 draws at once: whole words of the generator
    assert (permutation(values, 300, seed=4) == whole).all()


def test_pairs_with_the_first_are_those_among_all():
    values = np.random.default_rng(7).normal(size=(5, 24, 3))
    assert (permutation_with_first(values, 500, seed=3) == permutation(values, 500, seed=3)[0, 1:]).all()


def test_differences_that_tie_with_the_observed_one_count():
    """Values of a few steps, as concept scores are: many draws give exactly the observed sum, in another order."""
    rng = np.random.default_rng(8)
    values = rng.choice([0, 1 / 3, 0.5, 1], size=(2, 10, 1))
    expected = exact(values[0, :, 0], values[1, :, 0])
    assert permutation(values, 20_000, seed=1)[0, 1, 0] == pytest.approx(expected, abs=0.012)


def test_equal_means_of_unequal_samples_have_1():
    """The observed difference is 0 but for rounding: no draw is smaller."""
    one = np.random.default_rng(10).random((30, 1))
    assert permutation(np.stack([one, np.roll(one, 1), one[::-1]]), 500, seed=1).min() == 1


def test_agreement_is_scipys_with_ties():
    means = np.random.default_rng(9).integers(0, 6, size=(30, 4)).astype(float)
    rho, tau = agreement(means)
    for one, other in product(range(4), repeat=2):
        assert rho[one, other] == pytest.approx(spearmanr(means[:, one], means[:, other]).statistic)
        assert tau[one, other] == pytest.approx(kendalltau(means[:, one], means[:, other]).statistic)
