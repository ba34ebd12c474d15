"""Samples of a split: representative, the same each time, nested."""

from collections import Counter
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import config
from harness.contracts import RequestError, Sample
from harness.datasets._sampling import Sampling, shares

SIZES = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=1), st.integers(1, 40), min_size=1, max_size=6)


def samples(*modalities):
    return [Sample(f"id{number}", (), "A.", "test", modality) for number, modality in enumerate(modalities)]


def ids(chosen):
    return [sample.id for sample in chosen]


@settings(deadline=None, max_examples=150)
@given(SIZES, st.data())
def test_each_stratum_gets_its_exact_share_rounded_up_or_down(sizes, data):
    total = sum(sizes.values())
    limit = data.draw(st.integers(1, total))
    counts = shares(sizes, limit)
    assert sum(counts.values()) == limit
    for name, size in sizes.items():
        exact = Fraction(size * limit, total)
        assert floor(exact) <= counts[name] <= ceil(exact)


@settings(deadline=None, max_examples=20)
@given(SIZES)
def test_no_stratum_loses_when_the_limit_grows(sizes):
    before = dict.fromkeys(sizes, 0)
    for limit in range(1, sum(sizes.values()) + 1):
        counts = shares(sizes, limit)
        assert all(counts[name] >= before[name] for name in sizes), limit
        before = counts
    assert before == sizes


def test_largest_remainders_would_not_be_nested():
    """The Alabama paradox, which `shares` avoids: with largest remainders c falls from 1 to 0 as the limit grows."""

    def remainders(sizes, limit):
        total = sum(sizes.values())
        exact = {name: Fraction(size * limit, total) for name, size in sizes.items()}
        counts = {name: floor(share) for name, share in exact.items()}
        rest = sorted(exact, key=lambda name: counts[name] - exact[name])
        return counts | {name: counts[name] + 1 for name in rest[: limit - sum(counts.values())]}

    sizes = {"a": 6, "b": 6, "c": 2}
    assert [remainders(sizes, limit)["c"] for limit in (10, 11)] == [2, 1]
    assert [shares(sizes, limit)["c"] for limit in (10, 11)] == [1, 1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["CT", "MRI", "X-ray"]), min_size=2, max_size=80), st.integers(0, 5), st.data())
@pytest.mark.parametrize("stratify", ["modality", "none"])
def test_samples_are_nested_ordered_and_stable(stratify, modalities, seed, data):
    every = samples(*modalities)
    small, large = sorted(data.draw(st.lists(st.integers(1, len(every)), min_size=2, max_size=2)))
    first, second = (ids(Sampling(limit, stratify, seed).pick(every)) for limit in (small, large))
    assert len(first) == small
    assert set(first) <= set(second)
    assert first == [sample.id for sample in every if sample.id in first], "in the dataset's order"
    shuffled = data.draw(st.permutations(every))
    assert set(ids(Sampling(small, stratify, seed).pick(shuffled))) == set(first), "whatever the order of the rows"


def test_one_percent_has_the_proportions_of_the_whole():
    counts = {"CT": 40913, "X-ray": 31827, "MRI": 18570, "Ultrasound": 17147, "Other": 8178}
    every = samples(*(name for name, count in counts.items() for _ in range(count)))
    chosen = Counter(sample.modality for sample in Sampling(1166, "modality", 0).pick(every))
    for name, count in counts.items():
        assert abs(chosen[name] - count * 1166 / 116635) < 1


def test_another_seed_is_another_sample():
    every = samples(*["CT"] * 200)
    chosen = [set(ids(Sampling(50, "none", seed).pick(every))) for seed in range(3)]
    assert chosen[0] != chosen[1] != chosen[2]
    assert ids(Sampling(50, "none", 0).pick(every))[:3] == ["id0", "id8", "id9"], "on every machine"


@pytest.mark.parametrize("limit", [None, 3, 9])
def test_a_limit_that_does_not_bind_changes_nothing(limit):
    every = samples("CT", "MRI", "CT")
    assert Sampling(limit, "modality", 0).pick(every) == every


@pytest.mark.parametrize("name", ["imageclef", "rocov2", "table"])
@pytest.mark.parametrize("override", ["dataset.limit=0", "dataset.seed=-1"])
def test_ranges(name, override):
    cell = config.cells("data_check", [f"dataset={name}", override])[0]
    with pytest.raises(RequestError, match=override.partition("=")[0]):
        config.build(cell, "dataset")
