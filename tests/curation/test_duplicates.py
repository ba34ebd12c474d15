"""Look-alikes: changed copies are recognised, other pictures are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from harness import config
from harness.curation import duplicates, pictures
from harness.curation.duplicates import Picture, duplicate_pictures, similar_groups
from harness.curation.pictures import Facts, perceptual_hash
from tests.support import dirty

# ---------------------------------------------------------------- look-alikes


def facts(image: Image.Image) -> Facts:
    class Source:
        def load(self):
            return image

        def digest(self):
            return ""

    found = pictures.facts_of(Source())
    assert isinstance(found, Facts)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
        lambda image: image.resize((300, 300), Image.Resampling.BICUBIC),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_a_changed_copy_is_recognised(change):
    originals = [dirty.body(seed) for seed in range(400, 412)]
    together = [facts(image) for image in originals] + [facts(change(image)) for image in originals]
    assert similar_groups(together) == [[place, place + 12] for place in range(12)]


def test_other_pictures_are_not():
    phantom = config.build_node(config.choice("dataset", "phantom"), "dataset")
    drawn = [sample.images[0].load() for sample in phantom.load("test").samples[:60]]
    assert similar_groups([facts(image) for image in [*drawn, *(dirty.body(seed) for seed in range(500, 540))]]) == []


def test_one_half_of_the_frequencies_lies_above_the_median():
    for seed in range(20):
        grey = np.random.default_rng(seed).uniform(0, 255, (32, 32)).astype(np.float32)
        assert 31 <= int(np.unpackbits(perceptual_hash(grey)).sum()) <= 33


@given(st.integers(0, 2**32), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_the_search_finds_all_pairs_that_a_full_comparison_finds(seed, count):
    """Few distinct bits, so that buckets are crowded and distances of 0 to 6 are common."""
    rng = np.random.default_rng(seed)
    base = int(rng.integers(0, 2**63))
    hashes = []
    for _ in range(count):
        value = base
        for bit in rng.integers(0, 64, int(rng.integers(0, 4))):
            value ^= 1 << int(bit)
        hashes.append(value)
    array = np.array(hashes, np.uint64)
    close = [
        (int(a), int(b)) for left, right in duplicates.close_pairs(array) for a, b in zip(left, right, strict=True)
    ]
    expected = {
        (a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if (hashes[a] ^ hashes[b]).bit_count() <= duplicates.DISTANCE
    }
    assert sorted(tuple(sorted(pair)) for pair in close) == sorted(expected), "each of them once"


def test_the_kept_picture_is_of_the_most_protected_split():
    same = facts(dirty.body(1))
    members = [Picture("train", "a", same), Picture("valid", "b", same), Picture("test", "c", same)]
    named = {(p.split, p.id, p.kind, p.detail) for p in duplicate_pictures(members)}
    kind, detail = "same_image_in_other_split", "the same pixels as test:c"
    assert named == {("train", "a", kind, detail), ("valid", "b", kind, detail)}


def test_two_pictures_of_one_row_may_be_the_same():
    same = facts(dirty.body(1))
    assert list(duplicate_pictures([Picture("test", "a", same), Picture("test", "a", same)])) == []
