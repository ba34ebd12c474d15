"""Controls, each from its yaml: what they say, of what, and that it depends on nothing else."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer

from harness import config
from harness.cells.blank_pictures import blanked
from harness.choices import groups
from harness.contracts import CapBenchError, ImageError, Query, RequestError, Sample
from harness.controls import nearest as nearest_file
from harness.controls._typical import typical
from harness.controls.constant import Constant
from harness.controls.nearest import Nearest, most_similar
from harness.controls.template import Template
from harness.datasets.phantom import Phantom
from harness.encoders.medimageinsight import MedImageInsight
from harness.encoders.pairs import PairVectors

NAMES = [name for name in groups()["control"] if name != "none"]
PHANTOM = Phantom("phantom", train=24, valid=1, test=10, size=64, seed=3, style="radiology", limit=None)
TRAIN, TEST = PHANTOM.load("train").samples, PHANTOM.load("test").samples


def built(name):
    torch.set_num_threads(1)
    return config.build(config.cells("run", [f"control={name}"])[0], "control")


def learnt(name, train=TRAIN, features=None):
    control = built(name)
    control.learn(train, "cpu", {} if features is None else features)
    return control


class Broken:
    """A picture that is there and cannot be decoded, or not even read."""

    def __init__(self, there: bool) -> None:
        self.there = there

    def load(self):
        raise ImageError("the file is cut short")

    def digest(self):
        if not self.there:
            raise ImageError("no such file")
        return "ab" * 32


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", NAMES)
def test_every_control_says_one_caption_of_training_per_sample_whatever_the_others_are(name):
    control = learnt(name)
    answers = control.caption(TEST)
    known = {" ".join(sample.caption.split()) for sample in TRAIN}
    assert len(answers) == len(TEST)
    assert all(said.caption in known and not said.reason for said in answers)
    alone = [said for sample in reversed(TEST) for said in control.caption([sample])]
    assert [said.caption for said in reversed(alone)] == [said.caption for said in answers]
    assert control.caption([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_control_sees_the_answer(name):
    lying = [replace(sample, caption="Another caption.", concepts=("C0",)) for sample in TEST]
    control = learnt(name)
    assert [said.caption for said in control.caption(lying)] == [said.caption for said in control.caption(TEST)]


@pytest.mark.parametrize("name", groups()["control"])
def test_what_was_learnt_is_plain_json_and_one_control_alone_leaves_the_captioner_its_word(name):
    import json

    control = built(name)
    facts = control.learn(TRAIN, "cpu", {})
    assert json.loads(json.dumps(dict(facts))) == facts
    assert control.replaces_captioner == (name != "none")
    assert control.digest() == built(name).digest()
    if name == "none":
        assert all(said.caption is None for said in control.caption(TEST))


# ---------------------------------------------------------------- typical captions


def test_the_most_frequent_caption_is_taken_white_space_aside_and_of_equals_the_first():
    found = typical(["b", "a  x", "c", "a x ", "c"], 10)
    assert (found.caption, found.rule, found.count, found.distinct, found.captions) == ("a x", "most frequent", 2, 3, 5)
    assert typical(["b"], 10).caption == "b"


def test_among_distinct_captions_the_one_with_most_words_in_common_is_taken():
    captions = [
        "CT of the chest with a nodule, a nodule.",
        "Chest X-ray",
        "CT of the abdomen with a mass in the liver",
        "MRI of the brain with a mass",
        "Axial CT of the chest with a mass in the left lung",
    ]
    scorer = RougeScorer(["rouge1"])
    means = [
        np.mean([scorer.score(one, other)["rouge1"].fmeasure for other in captions if other != one]) for one in captions
    ]
    found = typical(captions, 10)
    assert found.caption == captions[int(np.argmax(means))]
    assert found.rule != "most frequent"


def test_no_more_captions_are_compared_than_asked_for():
    captions = [f"{word} {number}" for number, word in enumerate(["odd one", "CT scan"] * 50)]
    assert typical(captions, 50).caption.startswith("odd"), "every second one: all of them say the same"
    assert typical(["?", "!"], 2).caption == "?", "without a word nothing is shared"


def test_template_says_the_typical_caption_of_the_modality_and_the_constant_one_of_an_unknown():
    def sample(number, modality, caption):
        return Sample(str(number), (), caption, "train", modality=modality)

    pairs = [("CT", "one"), ("MRI", "two"), ("CT", "three"), ("CT", "three"), ("MRI", "two"), ("MRI", "two")]
    train = [sample(number, *pair) for number, pair in enumerate(pairs)]
    template, constant = Template("template", 10), Constant("constant", 10)
    facts = template.learn(train, "cpu", {})
    constant.learn(train, "cpu", {})
    asked = [sample(0, modality, "?") for modality in ("CT", "MRI", "PET")]
    assert [said.caption for said in template.caption(asked)] == ["three", "two", "two"]
    assert [said.caption for said in constant.caption(asked)] == ["two"] * 3
    assert {name: one["count"] for name, one in facts["modalities"].items()} == {"CT": 2, "MRI": 3}


@pytest.mark.parametrize("kind", [Constant, Template])
def test_a_sample_of_captions_needs_two(kind):
    with pytest.raises(RequestError, match=r"control\.sampled"):
        kind("x", 1)


# ---------------------------------------------------------------- nearest


@pytest.mark.parametrize(("known", "asked"), [(8192, 1024), (7, 3), (1, 1)])
def test_most_similar_is_the_brute_force_one_in_whatever_parts(known, asked, monkeypatch):
    monkeypatch.setattr(nearest_file, "KNOWN", known)
    monkeypatch.setattr(nearest_file, "ASKED", asked)
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(n, 6)).astype(np.float32) for n in (50, 20))
    one[[31, 44]] = one[5]  # of equals the first
    other[3] = one[5]
    places, cosines = most_similar(one, other)
    whole = other.astype(np.float64) @ one.T.astype(np.float64)
    assert places.tolist() == whole.argmax(axis=1).tolist()
    assert cosines == pytest.approx(whole.max(axis=1), rel=1e-5)
    assert most_similar(one, other[:0])[0].tolist() == []


def test_nearest_copies_the_caption_of_the_most_similar_picture():
    features: dict[str, bytes] = {}
    control = learnt("nearest", features=features)
    assert len(features) == len(TRAIN)
    vectors = PairVectors(control.checkpoint, "cpu", {}, 1).encoder
    train, test = (np.asarray(vectors.images([s.images[0].load() for s in part])) for part in (TRAIN, TEST))
    best = (test @ train.T).argmax(axis=1)
    answers = control.caption(TEST)
    assert [said.facts["neighbour"] for said in answers] == [TRAIN[place].id for place in best]
    assert [said.caption for said in answers] == [TRAIN[place].caption for place in best]
    assert [said.facts["cosine"] for said in answers] == pytest.approx((test @ train.T).max(axis=1), abs=1e-5)
    assert len(features) == len(TRAIN) + len(TEST), "of the encoder and the picture: kept for the next time"


def test_kept_vectors_are_not_computed_again(monkeypatch):
    features: dict[str, bytes] = {}
    first = learnt("nearest", features=features).caption(TEST)
    monkeypatch.setattr(MedImageInsight, "images", lambda *_: pytest.fail("a picture was looked at again"))
    assert learnt("nearest", features=features).caption(TEST) == first


def test_a_test_picture_that_is_a_training_picture_is_marked_and_gets_the_first_ones_caption():
    twin = replace(TRAIN[4], id="twin", caption="The same picture again.")
    control = learnt("nearest", [*TRAIN, twin])
    (said,) = control.caption([replace(TRAIN[4], id="leak", split="test")])
    assert (said.caption, said.facts["neighbour"]) == (TRAIN[4].caption, TRAIN[4].id)
    assert said.facts["duplicate"]
    assert not any(said.facts["duplicate"] for said in control.caption(TEST))


@pytest.mark.parametrize(
    ("images", "reason"), [((Broken(True),), "cut short"), ((Broken(False),), "no such file"), ((), "no picture")]
)
def test_a_picture_that_cannot_be_read_is_a_reason_in_test_and_a_count_in_training(images, reason):
    bad = replace(TEST[0], id="bad", images=images)
    control = built("nearest")
    facts = control.learn([*TRAIN[:3], bad], "cpu", {})
    assert (facts["pictures"], facts["unreadable"]) == (3, 1)
    good, failed = control.caption([TEST[1], bad])
    assert good.caption
    assert failed.caption is None
    assert reason in failed.reason


def test_training_pictures_of_which_none_can_be_read_are_named():
    with pytest.raises(CapBenchError, match="none of 1 training pictures can be read"):
        learnt("nearest", [replace(TRAIN[0], images=(Broken(True),))])


def test_an_encoder_that_is_not_here_is_named_with_a_remedy(tmp_path):
    control = Nearest("nearest", "hub", "transformers", str(tmp_path), "float32", 4)
    with pytest.raises(RequestError, match="control nearest: checkpoint .* hf download"):
        control.digest()


def test_the_hubs_encoder_is_not_the_judge_of_similarity():
    cell = config.cells("run", ["control=nearest", "weights=hub"])[0]
    judge = config.choice("protocol", "paper")["columns"]["similarity"]["options"]["checkpoint"]
    assert cell.config["control"]["hub"] != judge


# ---------------------------------------------------------------- blank


def test_blank_pictures_are_grey_of_the_same_size_and_nothing_else_changes():
    queries = [Query(sample, f"A {sample.modality}?") for sample in TEST]
    for before, after in zip(queries, blanked(queries), strict=True):
        picture, original = after.sample.images[0], before.sample.images[0]
        width, height = original.load().size
        assert picture.load().size == (width, height)
        assert picture.load().getcolors() == [(width * height, (128, 128, 128))]
        assert picture.digest() != original.digest()
        assert after.prompt == before.prompt
        assert replace(after.sample, images=before.sample.images) == before.sample
    assert Counter(query.sample.images[0].digest() for query in blanked(queries)).most_common(1)[0][1] == 1


@pytest.mark.parametrize("there", [True, False])
def test_a_picture_that_cannot_be_read_cannot_be_made_grey(there):
    (query,) = blanked([Query(replace(TEST[0], images=(Broken(there),)), "?")])
    with pytest.raises(ImageError):
        query.sample.images[0].load()
