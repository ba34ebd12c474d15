"""modality=predicted: labels from pictures, a run known by the classifier's content, labels in training."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from harness import config
from harness.cells.identity import identify, queries_of
from harness.cells.parts import build_parts
from harness.cli import main
from harness.contracts import Checkpointed, ImageError, RequestError, Sample
from harness.datasets.phantom import Phantom
from harness.modality.predicted import EMBEDDED, Predicted
from harness.store.runs import find_runs
from tests.support.commands import LIGHT, SMALL

# Pictures that neither the classifier nor its test split has: another seed of the same dataset.
SAMPLES = Phantom("phantom", 1, 1, 200, 128, 4711, "radiology", None).load("test").samples


def predicted(checkpoint: str | None = "embedded", least: float = 0.0) -> Predicted:
    return Predicted("predicted", checkpoint, least, 16, "cpu")


def known(*overrides: str, results: Path = Path("nowhere")):
    small = [item for item in SMALL if not item.startswith("dataset.train")]
    cell = config.cells("run", [*small, "dataset.train=8", f"results={results}", *overrides])[0]
    return identify(build_parts(cell, {}))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """The same architecture with another last bias: another classifier."""
    folder = tmp_path_factory.mktemp("other") / "classifier"
    shutil.copytree(EMBEDDED, folder)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.1.bias"] = weights["classifier.1.bias"] + 100 * (weights["classifier.1.bias"].argsort() == 0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# ---------------------------------------------------------------- labels


def test_the_embedded_classifier_knows_pictures_that_it_has_never_seen():
    labels = predicted().labels(SAMPLES)
    right = [label == sample.modality for label, sample in zip(labels, SAMPLES, strict=True)]
    assert sum(right) / len(right) > 0.9
    assert set(labels) <= {"CT", "X-ray", "MRI", "Ultrasound", "Angiography", "PET"}


def test_labels_come_from_the_picture_alone():
    blind = [replace(sample, modality="CT", caption="x", id=str(n)) for n, sample in enumerate(SAMPLES[:20])]
    assert predicted().labels(blind) == predicted().labels(SAMPLES)[:20]
    assert predicted().labels(SAMPLES[5:9]) == predicted().labels(SAMPLES)[5:9]


class Counted:
    """A picture that counts how often it is decoded."""

    def __init__(self, image, loads: Counter):
        self.image, self.loads = image, loads

    def digest(self) -> str:
        return self.image.digest()

    def load(self):
        self.loads[self.digest()] += 1
        return self.image.load()


def test_a_picture_is_looked_at_once():
    loads: Counter = Counter()
    samples = [replace(sample, images=(Counted(sample.images[0], loads),)) for sample in SAMPLES[:6]]
    source = predicted()
    first = source.labels([*samples, samples[0]])
    assert first[-1] == first[0]
    assert source.labels(samples[::-1]) == first[5::-1]
    assert set(loads.values()) == {1}


class Broken:
    def __init__(self, digest: str | None):
        self.value = digest

    def digest(self) -> str:
        if self.value is None:
            raise ImageError("it is gone")
        return self.value

    def load(self):
        raise ImageError("it is torn")


def test_a_picture_that_cannot_be_read_gets_no_label():
    samples = [Sample("a", (Broken("a"),), "c", "test"), SAMPLES[0], Sample("b", (Broken(None),), "c", "test")]
    labels = predicted().labels(samples)
    assert labels[0] is labels[2] is None
    assert labels[1] == SAMPLES[0].modality
    assert predicted().labels([Sample("c", (), "c", "test")]) == [None]


def test_below_the_least_confidence_there_is_no_label():
    every, sure = predicted().labels(SAMPLES), predicted(least=0.97).labels(SAMPLES)
    kept = [(one, other) for one, other in zip(every, sure, strict=True) if other is not None]
    assert 0 < len(kept) < len(SAMPLES)
    assert all(one == other for one, other in kept)
    with pytest.raises(RequestError, match=r"modality\.least.*1\.5"):
        predicted(least=1.5)


# ---------------------------------------------------------------- checkpoints


def test_the_checkpoint_is_part_of_what_a_run_is_known_by(other, tmp_path):
    source = predicted()
    assert isinstance(source, Checkpointed)
    copy = tmp_path / "elsewhere"
    shutil.copytree(EMBEDDED, copy)
    (copy / "metrics.json").write_text("{}")  # says nothing about what is predicted
    assert predicted(str(copy)).digest() == source.digest() != predicted(str(other)).digest()
    shipped, copied, changed = (
        known("modality=predicted", "prompt=modality", f"modality.checkpoint={place}")
        for place in ("embedded", copy, other)
    )
    assert shipped.run_identity["prompt"][1]["checkpoint"] == source.digest()
    assert shipped.run_id == copied.run_id != changed.run_id
    assert shipped.fit_identity == changed.fit_identity, "the label joins at inference"
    assert known("modality=predicted", "modality.least=0.5").run_id != known("modality=predicted").run_id


def test_another_classifier_gives_other_labels(other):
    assert len(set(predicted(str(other)).labels(SAMPLES[:30]))) == 1


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{ torn")


def wrong_kind(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "vit"}))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def other_shape(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"hidden_sizes": [16, 24, 40]}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, ["there is none", "capbench modality fit"]),
        (broken_config, ["config.json is no JSON", "capbench modality fit"]),
        (wrong_kind, ["'vit'", "capbench modality fit"]),
        (no_weights, ["no model.safetensors", "capbench modality fit"]),
        (cut_weights, ["model.safetensors", "fit or get the checkpoint again"]),
        (other_shape, ["is not as config.json says", "fit or get the checkpoint again"]),
    ],
)
def test_a_checkpoint_that_is_none_is_named_with_the_command_that_helps(damage, words, tmp_path):
    folder = tmp_path / "classifier"
    shutil.copytree(EMBEDDED, folder)
    damage(folder)
    with pytest.raises(RequestError) as caught:
        predicted(str(folder)).labels(SAMPLES[:2])
    for word in words:
        assert word in str(caught.value)


def test_real_weights_need_a_classifier_of_real_pictures():
    cell = config.cells("run", ["modality=predicted", "weights=hub"])[0]
    assert cell.config["modality"]["checkpoint"] is None
    with pytest.raises(RequestError, match=r"modality\.checkpoint: no value.*capbench modality fit"):
        config.build(cell, "modality").labels(SAMPLES[:1])
    assert config.cells("run", ["modality=predicted"])[0].config["modality"]["checkpoint"] == "embedded"


# ---------------------------------------------------------------- labels in training


def test_labels_in_training_are_a_fit_of_their_own():
    plain, usual = known("prompt=modality"), known("prompt=modality", "modality=oracle")
    taught = known("prompt=modality", "modality=oracle", "labels_in_training=true")
    assert usual.fit_identity == plain.fit_identity != taught.fit_identity
    assert not usual.labelled
    assert taught.labelled
    assert usual.unlabelled_fit == taught.unlabelled_fit
    assert [key for key in taught.fit_identity if taught.fit_identity[key] != usual.fit_identity[key]] == ["prompt"]
    assert "targeted-labelled" in taught.fit_folder.name
    assert "targeted-labelled-modality-oracle" in taught.folder.name
    others = [known("prompt=modality", f"modality={m}", "labels_in_training=true") for m in ("wrong", "predicted")]
    assert len({taught.run_id, *(other.run_id for other in others)}) == 3


@pytest.mark.parametrize("more", [["modality=none"], ["modality=oracle", "prompt=plain"]])
def test_without_a_label_in_the_questions_there_is_no_other_fit(more):
    taught = known("prompt=modality", *more, "labels_in_training=true")
    usual = known("prompt=modality", *more)
    assert (taught.fit_folder, taught.folder) == (usual.fit_folder, usual.folder)


def test_a_zero_shot_run_has_no_training_to_label():
    one = known("lora=none", "prompt=modality", "modality=oracle", "labels_in_training=true")
    assert one.folder == known("lora=none", "prompt=modality", "modality=oracle").folder


def test_training_questions_carry_the_labels():
    cell = config.cells("run", [*SMALL, "prompt=modality", "modality=oracle", "labels_in_training=true"])[0]
    built = build_parts(cell, {})
    train = built.dataset.load("train")
    for query in queries_of(built, train, built.taught_labels):
        assert query.prompt.startswith(f"Imaging modality: {query.sample.modality}. ")
        assert query.label == query.sample.modality
    assert {query.label for query in queries_of(built, train, None)} == {None}


# ---------------------------------------------------------------- in a run


def test_a_run_says_which_label_it_gave(tmp_path):
    arguments = ["model=smolvlm", "lora=none", f"results={tmp_path}", *LIGHT, *SMALL]
    assert main(["run", "-m", "prompt=modality,plain", "modality=none,predicted", *arguments]) == 0
    runs = {(run.row["prompt"], run.row["modality"]): run.rows for run in find_runs(tmp_path)}
    assert len(runs) == 4
    for row in runs["modality", "predicted"]:
        assert row.prompt.startswith(f"Imaging modality: {row.label}. ")
    for asked in (("modality", "none"), ("plain", "none"), ("plain", "predicted")):
        assert all(row.label is None for row in runs[asked]), "none was given"


def test_a_taught_row_is_told_apart_on_the_leaderboard(tmp_path):
    arguments = ["model=smolvlm", "prompt=modality", "modality=oracle", f"results={tmp_path}", *LIGHT, *SMALL]
    assert main(["run", "-m", "labels_in_training=false,true", *arguments]) == 0
    board = (tmp_path / "leaderboard.csv").read_text()
    assert ",oracle," in board
    assert ",oracle[training]," in board
    assert "labels_in_training" not in board
    names = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "fits").iterdir())
    assert names == ["smolvlm-targeted-labelled-s0", "smolvlm-targeted-s0"]
