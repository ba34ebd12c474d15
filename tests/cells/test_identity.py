"""What a run is known by: whatever its questions are made of, and for runs of earlier versions what it always was."""

import json
from dataclasses import dataclass, fields, replace

import pytest

from harness import config
from harness.cells.identity import identify
from harness.cells.parts import Parts, build_parts
from harness.contracts import Sample
from tests.support.cell_driver import parts
from tests.support.commands import ROOT

EARLIER = sorted((ROOT / "tests" / "data" / "results_0.1" / "runs").glob("*/manifest.json"))


class Asking:
    """A style of a user that takes the question from the data."""

    name = "asking"

    def text(self, sample: Sample, modality: str | None) -> str:
        return f"{modality or ''} {sample.factors['question']}"


class Regions:
    """A label source of a user that looks at what the fingerprint leaves out."""

    name = "regions"

    def labels(self, samples):
        return [sample.factors["question"] for sample in samples]


class Questions:
    """A dataset whose samples have questions."""

    def __init__(self, dataset, question: str) -> None:
        self.dataset, self.name, self.question = dataset, dataset.name, question

    def load(self, split: str):
        found = self.dataset.load(split)
        return replace(found, samples=tuple(replace(one, factors={"question": self.question}) for one in found.samples))


def asked(made: Parts, question: str, **changes) -> Parts:
    return replace(made, dataset=Questions(made.dataset, question), **changes)


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.parent.name)
def test_a_run_of_an_earlier_version_keeps_its_identity(path):
    manifest = json.loads(path.read_text())
    known = identify(build_parts(config.Cell("", {}, {**manifest["config"], "results": "nowhere"}), {}))
    assert known.run_identity == manifest["identity"]
    assert known.folder.name == path.parent.name
    assert known.unlabelled_fit == manifest["unlabelled_fit"]


@pytest.mark.parametrize("strategy", ["none", "targeted"])
def test_another_question_from_the_data_is_another_run(strategy, tmp_path):
    made = parts(["model=smolvlm", f"lora={strategy}"], tmp_path)
    first, same, other = (identify(asked(made, text, prompt=Asking())) for text in ("Where?", "Where?", "What?"))
    assert first.run_id == same.run_id != other.run_id
    assert (first.fit_identity == other.fit_identity) == (strategy == "none"), "a fit is taught the questions"


def test_another_label_from_the_data_is_another_run(tmp_path):
    made = parts(["model=smolvlm", "lora=none", "prompt=modality"], tmp_path)
    ids = [identify(asked(made, text, modality=Regions())).run_id for text in ("hand", "foot")]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("modality", ["none", "oracle", "predicted"])
@pytest.mark.parametrize("prompt", ["plain", "modality"])
def test_what_no_question_is_made_of_changes_no_run(prompt, modality, tmp_path):
    made = parts(["model=smolvlm", "lora=none", f"prompt={prompt}", f"modality={modality}"], tmp_path)
    known = identify(made)
    assert "questions" not in known.run_identity
    assert identify(asked(made, "Where?")).run_id == known.run_id


@pytest.mark.parametrize("overrides", [["control=constant"], ["model=cnn_transformer", "lora=none"]])
def test_who_is_asked_nothing_has_no_questions(overrides, tmp_path):
    made = parts(overrides, tmp_path)
    ids = [identify(asked(made, text, prompt=Asking())).run_id for text in ("Where?", "What?")]
    assert ids == [identify(made).run_id] * 2


@dataclass(frozen=True)
class Placed(Sample):
    """A sample of a user's dataset, with a field of its own."""

    place: str = ""


class Placing(Questions):
    """A dataset of such samples."""

    def load(self, split: str):
        found = self.dataset.load(split)
        placed = (
            Placed(**{f.name: getattr(one, f.name) for f in fields(Sample)}, place=self.question)
            for one in found.samples
        )
        return replace(found, samples=tuple(placed))


def test_a_field_of_ones_own_is_part_of_the_question_and_of_the_run(tmp_path):
    class Where(Asking):
        def text(self, sample: Sample, modality: str | None) -> str:
            return f"What is in the {sample.place}?"

    made = parts(["model=smolvlm", "lora=none"], tmp_path)
    ids = [
        identify(replace(made, dataset=Placing(made.dataset, text), prompt=Where())).run_id for text in ("hand", "foot")
    ]
    assert ids[0] != ids[1]
    plain = [identify(replace(made, dataset=Placing(made.dataset, text))).run_id for text in ("hand", "foot")]
    assert plain[0] == plain[1] == identify(made).run_id
