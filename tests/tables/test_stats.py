"""Bootstrap, intervals and ranks: properties, an independent implementation, and the coverage that is promised."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.contracts import RequestError
from harness.tables import stats
from harness.tables.values import add_averages


def sample(n: int, k: int = 1, seed: int = 0) -> np.ndarray:
    """Skewed values in [0, 1], as scores of captions are."""
    return np.random.default_rng(seed).beta(2, 5, size=(n, k))


def test_same_seed_same_means_and_another_seed_others():
    values = sample(50, 3)
    assert np.array_equal(stats.bootstrap(values, 100, 7), stats.bootstrap(values, 100, 7))
    assert not np.array_equal(stats.bootstrap(values, 100, 7), stats.bootstrap(values, 100, 8))


def test_chunks_do_not_change_the_draws(monkeypatch):
    values = sample(30, 2)
    whole = stats.bootstrap(values, 101, 1)
    monkeypatch.setattr(stats, "CHUNK", 90)
    np.testing.assert_allclose(stats.bootstrap(values, 101, 1), whole, rtol=1e-13)


def test_columns_are_resampled_jointly():
    values = sample(40, 1)
    means = stats.bootstrap(np.hstack([values, 1 - values]), 200, 0)
    np.testing.assert_allclose(means.sum(axis=1), 1)


def test_systems_are_resampled_jointly_even_when_images_failed():
    first, second = sample(40, 1), sample(40, 1) + 0.1
    second[3] = np.nan
    difference = stats.bootstrap(second, 500, 0) - stats.bootstrap(np.where(np.isnan(second), np.nan, first), 500, 0)
    np.testing.assert_allclose(difference, 0.1)


@pytest.mark.parametrize("seed", range(3))
def test_interval_agrees_with_scipy(seed):
    values = sample(60, 1, seed)
    ours = stats.interval(stats.bootstrap(values, 20_000, seed))
    theirs = scipy_stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    width = theirs.high - theirs.low
    np.testing.assert_allclose(np.ravel(ours), [theirs.low, theirs.high], atol=0.03 * width)


@pytest.mark.parametrize("seed", range(3))
def test_interval_of_a_paired_difference_agrees_with_scipy(seed):
    one, other = sample(50, 1, seed), sample(50, 1, seed + 100)
    means = stats.joint(np.stack([one, other]), 20_000, seed)
    ours = stats.interval(means[:, 0] - means[:, 1])
    theirs = scipy_stats.bootstrap(
        (one[:, 0], other[:, 0]),
        lambda a, b, axis=-1: np.mean(a - b, axis=axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    np.testing.assert_allclose(np.ravel(ours), theirs, atol=0.03 * (theirs.high - theirs.low))


def test_systems_together_are_resampled_as_each_alone():
    values = np.stack([sample(30, 2, seed) for seed in range(3)])
    together = stats.joint(values, 200, 4)
    for place, alone in enumerate(values):
        np.testing.assert_allclose(together[:, place], stats.bootstrap(alone, 200, 4), rtol=1e-12)


@given(st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.95]), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_bounds_are_numpys_quantiles(trials, level, seed):
    means = np.random.default_rng(seed).normal(size=(trials, 2, 3))
    means[0, 1, 1] = np.nan
    expected = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    np.testing.assert_allclose(stats.interval(means, level), expected, rtol=1e-12)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_interval_is_ordered_and_within_the_values(column, seed):
    values = np.array(column)[:, None]
    low, high = stats.interval(stats.bootstrap(values, 100, seed))
    assert values.min() - 1e-12 <= low[0] <= high[0] <= values.max() + 1e-12


def test_interval_holds_the_mean_and_shrinks_with_n():
    widths = []
    for n in (25, 100, 400, 1600):
        values = sample(n)
        low, high = stats.interval(stats.bootstrap(values, 2_000, 0))
        assert low[0] < values.mean() < high[0]
        widths.append(high[0] - low[0])
    # Four times the images, half the width.
    ratios = np.array(widths[:-1]) / widths[1:]
    assert ((ratios > 1.5) & (ratios < 2.7)).all(), ratios


def test_interval_widens_with_the_level():
    means = stats.bootstrap(sample(50), 1_000, 0)
    narrow, wide = (np.diff(stats.interval(means, level), axis=0)[0, 0] for level in (0.5, 0.95))
    assert 0 < narrow < wide


def test_95_percent_intervals_cover_the_true_mean_about_95_times_in_100():
    truth, datasets = 2 / 7, 1_000
    covered = 0
    for seed in range(datasets):
        low, high = stats.interval(stats.bootstrap(sample(150, 1, seed), 400, seed))
        covered += bool(low[0] <= truth <= high[0])
    assert 0.90 <= covered / datasets <= 0.98


def test_a_failed_image_leaves_all_columns():
    values = np.array([[0.0, 1.0], [1.0, np.nan], [0.5, 0.5]])
    assert stats.complete(values).tolist() == [True, False, True]
    means = stats.bootstrap(values, 500, 0)
    assert np.nanmax(means[:, 0]) <= 0.5, "the 1.0 of the failed image must not count"


def test_nothing_to_average_is_nan():
    for values in (np.empty((0, 2)), np.full((3, 2), np.nan)):
        assert np.isnan(stats.bootstrap(values, 10, 0)).all()


COMPOSITES = {
    "relevance": ["bertscore", "rouge", "similarity", "bleurt"],
    "factuality": ["umls_f1", "alignscore"],
    "overall": ["relevance", "factuality"],
}


def test_averages_commute_with_resampling_and_are_blank_with_a_blank_part():
    values = pd.DataFrame(sample(30, 3), columns=list("abc"))
    wanted = {"relevance": ["a", "b"], "overall": ["relevance", "c"]}
    per_image = add_averages(values, wanted)["overall"].to_numpy()
    resampled = pd.DataFrame(stats.bootstrap(values.to_numpy(), 50, 3), columns=list("abc"))
    expected = add_averages(resampled, wanted)["overall"]
    np.testing.assert_allclose(stats.bootstrap(per_image[:, None], 50, 3)[:, 0], expected)
    assert add_averages(values.assign(b=np.nan), wanted)[["relevance", "overall"]].isna().all().all()


@pytest.mark.parametrize(
    "row",
    [
        "0.3755,0.5786,0.1724,0.6250,0.3234,1.0104,0.3555,0.2160,0.1287",
        "0.3603,0.5527,0.1679,0.6017,0.2725,0.9902,0.3463,0.1822,0.1537",
        "0.3065,0.4705,0.1426,0.5465,0.2224,0.7787,0.3342,0.1443,0.1408",
    ],
)
def test_official_board_averages(row):
    """Rows 1, 2 and 8 of the ImageCLEFmedical Caption 2026 board: averages are means of means, to 4 decimals."""
    names = [
        "overall",
        "relevance",
        "factuality",
        "bertscore",
        "rouge",
        "similarity",
        "bleurt",
        "umls_f1",
        "alignscore",
    ]
    printed = pd.DataFrame([list(map(float, row.split(",")))], columns=names)
    ours = add_averages(printed.drop(columns=list(COMPOSITES)), COMPOSITES)
    for name in COMPOSITES:
        assert ours[name].item() == pytest.approx(printed[name].item(), abs=1e-4)


def joint_means(systems: list[np.ndarray]) -> np.ndarray:
    return np.stack([stats.bootstrap(values, 1_000, 5)[:, 0] for values in systems], axis=1)


def test_ranks_of_clear_and_of_unclear_differences():
    base = sample(200)
    noise = np.random.default_rng(1).normal(0, 0.1, size=base.shape)
    low, high = stats.ranks(joint_means([base, base + 0.3, base + noise]))
    assert (low.tolist(), high.tolist()) == ([2, 1, 2], [3, 1, 3])


def test_equal_systems_share_the_better_rank():
    base = sample(50)
    low, high = stats.ranks(joint_means([base, base, base - 0.2]))
    assert (low.tolist(), high.tolist()) == ([1, 1, 3], [1, 1, 3])


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_order_of_systems_does_not_matter(order):
    means = joint_means([sample(40, 1, seed) for seed in range(4)])
    straight, shuffled = stats.ranks(means), stats.ranks(means[:, order])
    for bound, other in zip(straight, shuffled, strict=True):
        assert bound[list(order)].tolist() == other.tolist()


def test_a_system_without_scores_cannot_be_ranked():
    with pytest.raises(RequestError, match="NaN"):
        stats.ranks(np.array([[0.1, np.nan]]))
