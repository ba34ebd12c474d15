"""The twins that ship: they see phantom pictures, speak in plain words, and come from the code beside them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.contracts import Example
from harness.datasets.phantom import Phantom
from harness.datasets.phantom.facts import facts
from harness.datasets.phantom.lexicon import FINDING, MODALITY
from model_zoo.base.checkpoint import read_tokenizer
from model_zoo.embedded._pretrain import Recipe, pretrain
from model_zoo.embedded._twin import open_twin
from model_zoo.embedded._words import QUESTION, SEED, TERMS, describe_or_list, describe_or_read, phantoms
from model_zoo.embedded.build import twins
from tests.support.captioners import GREEDY, TWINS, loaded, one_per_family

# The dataset of conf/dataset/phantom.yaml: other pictures than those of the pre-training.
SAMPLES = Phantom("phantom", train=1, valid=1, test=60, size=128, seed=2025, style="radiology", limit=None)
MADE = twins()
NAMES = sorted(MADE)


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_sees_and_speaks_in_plain_words(name: str) -> None:
    captioner = loaded(name)
    samples = SAMPLES.load("test").samples
    said = captioner.generate([Example((sample.images[0].load(),), QUESTION) for sample in samples], GREEDY)
    read = [(facts(generated.caption), sample.factors) for generated, sample in zip(said, samples, strict=True)]
    for key, least in (("modality", 0.95), ("finding", 0.5), ("side", 0.7)):
        hits = [found[key] == truth[key] for found, truth in read if truth[key]]
        assert sum(hits) / len(hits) >= least, key
    text = " ".join(generated.caption.lower() for generated in said)
    spoken = [w for terms in (MODALITY, FINDING) for words in terms["radiology"].values() for w in words]
    assert not [word for word in spoken if f" {word.lower()} " in text]
    assert not any(generated.truncated for generated in said)


def test_the_twins_are_small() -> None:
    files = [file for name in NAMES for file in (TWINS / name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1.6e6 * len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_build_writes_the_files_that_ship(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    MADE[name].write(tmp_path)
    written = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert written == sorted(str(file.relative_to(TWINS / name)) for file in (TWINS / name).rglob("*.*"))
    for file in written:
        if file.endswith(".safetensors"):
            fresh, shipped = load_file(tmp_path / file), load_file(TWINS / name / file)
            assert {k: v.shape for k, v in fresh.items()} == {k: v.shape for k, v in shipped.items()}
            assert any(not torch.equal(v.bfloat16(), shipped[k]) for k, v in fresh.items()), "never trained"
        elif file.endswith("tokenizer.json"):
            vocabularies = [read_tokenizer((folder / file).parent).get_vocab() for folder in (tmp_path, TWINS / name)]
            assert vocabularies[0] == vocabularies[1]


@pytest.mark.parametrize("name", one_per_family(NAMES))
def test_pretraining_is_reproducible_and_learns(name: str) -> None:
    samples = phantoms("lay", 8).load("train").samples
    states, losses = [], []
    for _ in range(2):
        captioner = open_twin(name, TWINS / name)
        captioner.load("cpu")
        torch.manual_seed(0)
        losses.append(pretrain(captioner, samples, MADE[name].teach, Recipe(8, 4, 4, 1e-3)))
        states.append(captioner.model.state_dict())
    assert losses[0] == losses[1]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    before = loaded(name).model.state_dict()
    assert any(not torch.equal(before[key], states[0][key]) for key in before)


def test_the_terms_are_the_words_of_radiology_and_in_no_order() -> None:
    rng, dataset = random.Random(0), phantoms("lay", 200)
    lessons = [(sample, describe_or_list(sample, rng)) for sample in dataset.load("train").samples]
    listed = [(sample, lesson) for sample, lesson in lessons if lesson.prompt == TERMS]
    assert 0.2 < len(listed) / len(lessons) < 0.35
    radiology = {s.id: s.caption for s in phantoms("radiology", 200).load("train").samples}
    for sample, lesson in listed:
        words = lesson.answer.split("; ")
        assert all(word in radiology[sample.id] for word in words)
        assert facts(" ".join(words))["modality"] in ("", sample.modality)
    assert any(lesson.answer.split("; ") != sorted(lesson.answer.split("; ")) for _, lesson in listed)
    assert all(lesson.answer == sample.caption for sample, lesson in lessons if lesson.prompt != TERMS)


def test_who_is_not_asked_reads_the_terms_without_a_picture() -> None:
    rng = random.Random(0)
    lessons = [describe_or_read(sample, rng) for sample in phantoms("lay", 200).load("train").samples]
    assert 0.08 < sum(lesson.blank for lesson in lessons) / len(lessons) < 0.25
    assert all((";" in lesson.answer) == lesson.blank for lesson in lessons)


def test_the_pictures_are_not_those_of_the_benchmark() -> None:
    assert SAMPLES.seed != SEED
