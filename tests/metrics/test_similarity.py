"""Similarity: its scale, what is encoded once, what cannot be scored."""

import pytest
import torch

from harness.contracts import Pair
from harness.encoders.medimageinsight import MedImageInsight
from harness.encoders.pair_files import TWIN
from harness.encoders.pairs import PairCheckpoint
from tests.support import similarity
from tests.support.metric_data import build
from tests.support.similarity import PAIRS, SAMPLES, Broken, loaded, put, weights


@pytest.fixture
def release(tmp_path):
    return similarity.release(tmp_path)


# ---------------------------------------------------------------- scores


def test_scale_and_clipping():
    image, texts = SAMPLES[0].images[0], [sample.caption for sample in SAMPLES[:40]]
    pairs = [Pair("r", text, image) for text in texts]
    features = {}
    clipped, plain = (loaded(features=features, clip_at_zero=clip, scale=3.0) for clip in (True, False))
    for one, two in zip(clipped.score(pairs, []), plain.score(pairs, []), strict=True):
        cosine = one.values["cosine"]
        assert cosine == two.values["cosine"]
        assert one.values["similarity"] == pytest.approx(3 * max(cosine, 0))
        assert two.values["similarity"] == pytest.approx(3 * cosine)
    assert min(score.values["similarity"] for score in plain.score(pairs, [])) < 0


def test_the_default_is_what_imageclef_computes(metrics):
    (score,) = metrics["similarity"].score(PAIRS[:1], [])
    assert score.values["similarity"] == pytest.approx(2.5 * max(score.values["cosine"], 0))
    encoder = MedImageInsight(TWIN, "cpu", torch.float32)
    picture, text = encoder.images([PAIRS[0].image.load()])[0], encoder.texts([PAIRS[0].candidate])[0]
    assert score.values["cosine"] == pytest.approx(float(picture @ text), abs=1e-6)


@pytest.mark.parametrize(
    ("image", "reason"),
    [(None, "no picture"), (Broken(readable=True), "truncated"), (Broken(readable=False), "no such file")],
)
def test_a_picture_that_cannot_be_looked_at_gives_a_reason_and_no_value(metrics, image, reason):
    good, bad, empty = metrics["similarity"].score([PAIRS[0], Pair("CT", "CT", image), Pair("CT", "", image)], [])
    assert good.values
    assert not bad.values
    assert not empty.values
    assert reason in bad.reason
    assert reason in empty.reason


@pytest.mark.parametrize(("reference", "candidate", "value"), [("CT", "", 0.0), ("", "", 1.0)])
def test_empty_candidates_are_ruled(metrics, reference, candidate, value):
    (score,) = metrics["similarity"].score([Pair(reference, candidate, SAMPLES[0].images[0])], [])
    assert score.values == {"truncated": 0.0, "cosine": value, "similarity": value}


def test_an_empty_reference_does_not_matter(metrics):
    image = SAMPLES[0].images[0]
    one, two = metrics["similarity"].score([Pair("", "CT", image), Pair("MRI", "CT", image)], [])
    assert one == two


def test_vectors_that_are_not_finite_give_a_reason(release):
    state = weights(release)
    state["image_projection"][0, 0] = float("nan")
    put(release, state)
    (score,) = loaded(release).score(PAIRS[:1], [])
    assert not score.values
    assert "not finite" in score.reason


class Counting:
    """An encoder that notes what it was given."""

    def __init__(self, encoder) -> None:
        self.encoder, self.pictures, self.read = encoder, [], []

    def images(self, pictures):
        self.pictures.append(len(pictures))
        return self.encoder.images(pictures)

    def texts(self, texts):
        self.read.append(list(texts))
        return self.encoder.texts(texts)

    def cut(self, text):
        return self.encoder.cut(text)


class Noting:
    """A picture that counts how often it is decoded."""

    decoded = 0

    def __init__(self, image) -> None:
        self.image = image

    def load(self):
        Noting.decoded += 1
        return self.image.load()

    def digest(self):
        return self.image.digest()


@pytest.fixture
def counted(monkeypatch):
    """Makes a metric, with the encoder that it reads by."""
    plain, opened = PairCheckpoint.open, []
    monkeypatch.setattr(PairCheckpoint, "open", lambda *one: opened.append(Counting(plain(*one))) or opened[-1])
    return lambda features, **options: (loaded(features=features, **options), opened[-1])


def test_each_distinct_picture_and_text_is_encoded_once_and_never_again(counted):
    Noting.decoded = 0
    pairs = [Pair("r", sample.caption, Noting(sample.images[0])) for sample in SAMPLES[:10] * 3]
    features: dict[str, bytes] = {}
    first, seen = counted(features)
    scores = first.score(pairs, [])
    assert seen.pictures == [2] * 5, "no more pictures at a time than a CPU takes, nor than batch_size"
    assert sorted(text for batch in seen.read for text in batch) == sorted({pair.candidate for pair in pairs})
    assert Noting.decoded == 10
    assert {len(value) for value in features.values()} == {4 * 64}, "float32"

    second, seen = counted(features, scale=1.0)  # another command, the same encoder
    other = [Pair("r", "another system's caption", pair.image) for pair in pairs]
    assert [score.values["cosine"] for score in second.score(pairs, [])] == [s.values["cosine"] for s in scores]
    second.score(other, [])
    assert seen.pictures == []
    assert seen.read == [["another system's caption"]]
    assert Noting.decoded == 10


def test_other_arithmetic_does_not_take_over_kept_vectors(counted):
    features: dict[str, bytes] = {}
    exact = loaded(features=features).score(PAIRS, [])
    made, seen = counted(features, dtype="bfloat16")
    rough = made.score(PAIRS, [])
    assert sum(seen.pictures) == len(PAIRS)
    for one, two in zip(exact, rough, strict=True):
        assert one.values["cosine"] != two.values["cosine"]
        assert one.values["cosine"] == pytest.approx(two.values["cosine"], abs=0.05)


def test_a_picture_that_failed_is_tried_again():
    features: dict[str, bytes] = {}
    made = loaded(features=features)
    made.score([Pair("r", "CT", Broken(readable=True))], [])
    assert len(features) == 1, "the text"


def test_yaml_defaults():
    made = build("similarity")
    assert (made.scale, made.clip_at_zero, made.checkpoint.dtype, made.values[-1]) == (
        2.5,
        True,
        "float32",
        "similarity",
    )
