"""Prompt styles and modality sources, each from its yaml."""

from collections import Counter
from dataclasses import replace

import pytest

from harness import config
from harness.choices import groups
from harness.contracts import RequestError, Sample
from harness.modality.none import NoLabel
from harness.modality.oracle import Oracle
from harness.modality.shuffled import Shuffled
from harness.modality.wrong import Wrong
from harness.prompts.modality import ModalityFirst
from harness.prompts.plain import Plain

QUESTION = "Describe this medical image."
CT = Sample("a", (), "A caption.", "test", modality="CT")
BARE = Sample("b", (), "A caption.", "test")


def built(group, name):
    return config.build_node(config.choice(group, name), group)


@pytest.mark.parametrize("name", groups()["prompt"])
@pytest.mark.parametrize("modality", ["CT", "X-ray", None])
def test_every_style_asks_the_same_of_the_same_sample_and_never_tells_the_answer(name, modality):
    style = built("prompt", name)
    question = style.text(CT, modality)
    assert question == built("prompt", name).text(CT, modality)
    assert question.strip() == question != ""
    assert CT.caption not in question
    assert CT.id not in question.split()


@pytest.mark.parametrize("name", groups()["modality"])
def test_every_source_gives_one_label_per_sample(name):
    mixed = [CT, BARE, replace(CT, id="c", modality="MRI")]
    labels = built("modality", name).labels(mixed)
    assert len(labels) == 3
    assert labels[1] is None
    assert built("modality", name).labels(mixed) == labels
    assert built("modality", name).labels([]) == []


def test_plain_ignores_the_label():
    assert Plain("plain", QUESTION).text(CT, "CT") == QUESTION == Plain("plain", QUESTION).text(CT, None)


def test_modality_stands_before_the_question():
    style = ModalityFirst("modality", QUESTION, "This is a {modality} image.")
    assert style.text(CT, "MRI") == f"This is a MRI image. {QUESTION}"
    assert style.text(CT, None) == QUESTION


def test_braces_in_a_label_are_text():
    assert ModalityFirst("modality", "?", "{modality}:").text(CT, "{0.id}") == "{0.id}: ?"


def test_shipped_styles_differ_in_the_label_alone():
    plain, first = built("prompt", "plain"), built("prompt", "modality")
    assert first.text(CT, None) == plain.text(CT, None)
    assert first.text(CT, "CT").endswith(plain.text(CT, "CT"))
    assert "CT" in first.text(CT, "CT")


def test_oracle_tells_the_datasets_label_and_admits_ignorance():
    assert Oracle("oracle").labels([CT, BARE]) == ["CT", None]
    assert NoLabel("none").labels([CT, BARE]) == [None, None]


KINDS = ("CT", "MRI", "X-ray", "unknown")
MANY = [Sample(str(n), (), "A caption.", "test", modality=KINDS[n * n % 7 % 4]) for n in range(400)]


def test_shuffled_labels_are_the_same_ones_elsewhere():
    labels = Shuffled("shuffled", 0).labels(MANY)
    true = [sample.modality for sample in MANY]
    assert Counter(label for label in labels if label) == Counter(label for label in true if label != "unknown")
    assert all((label is None) == (known == "unknown") for label, known in zip(labels, true, strict=True))
    right = sum(label == known for label, known in zip(labels, true, strict=True))
    assert right < 200
    assert labels != Shuffled("shuffled", 1).labels(MANY)


def test_wrong_labels_are_never_right_and_each_other_one_occurs():
    labels = Wrong("wrong", 0).labels(MANY)
    given = {(sample.modality, label) for sample, label in zip(MANY, labels, strict=True)}
    kinds = {sample.modality for sample in MANY} - {"unknown"}
    assert given - {("unknown", None)} == {(own, other) for own in kinds for other in kinds if own != other}
    fewer = Wrong("wrong", 0).labels(MANY[5:])
    assert fewer == labels[5:], "a label depends on its sample"


def test_a_split_of_one_modality_has_no_wrong_label():
    with pytest.raises(RequestError, match="every sample is CT"):
        Wrong("wrong", 0).labels([CT, CT])


@pytest.mark.parametrize("wording", ["", "This is an image.", "{Modality}"])
def test_a_wording_without_place_for_the_label_is_refused(wording):
    with pytest.raises(RequestError, match=r"prompt\.wording.*\{modality\}"):
        ModalityFirst("modality", QUESTION, wording)


@pytest.mark.parametrize("make", [lambda q: Plain("p", q), lambda q: ModalityFirst("m", q, "{modality}")])
def test_an_empty_question_is_refused(make):
    with pytest.raises(RequestError, match=r"prompt\.question"):
        make("  ")
