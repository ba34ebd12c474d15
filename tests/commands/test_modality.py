"""The modality classifier: what `capbench modality fit` writes, how it is measured, and that it can be done again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import binomtest
from transformers import ResNetConfig, ResNetForImageClassification

from harness.cli import main
from harness.datasets.phantom import Phantom
from harness.modality.predicted import EMBEDDED, Predicted
from harness.store import file_digest
from harness.tables import calibration

FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}
TABLES = {"metrics.json", "confusion.csv", "calibration.csv"}
TINY = ["dataset.train=48", "dataset.valid=16", "dataset.test=24", "classifier.epochs=2", "classifier.batch_size=16"]


def fit(out: Path, *more: str) -> int:
    return main(["modality", "fit", f"out={out}", *TINY, *more])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("classifier") / "out"
    assert fit(out) == 0
    return out


def test_a_fit_leaves_a_checkpoint_and_its_measures(fitted):
    assert {path.name for path in fitted.iterdir()} == FILES | TABLES | {"manifest.json"}
    config = json.loads((fitted / "config.json").read_text())
    assert config["architectures"] == ["ResNetForImageClassification"]
    assert sorted(config["id2label"].values()) == list(config["id2label"].values())
    manifest = json.loads((fitted / "manifest.json").read_text())
    assert manifest["files"] == {name: file_digest(fitted / name) for name in FILES | TABLES}
    assert set(manifest["identity"]["data"]) == {"train", "valid", "test"}
    assert manifest["command"].startswith("capbench")


def test_the_measures_are_those_of_its_predictions_on_test(fitted):
    """The labels that `modality=predicted` gives are the ones that were counted."""
    samples = Phantom("phantom", 48, 16, 24, 128, 2025, "radiology", None).load("test").samples
    said = Predicted("predicted", str(fitted), 0.0, 5, "cpu").labels(samples)
    metrics = json.loads((fitted / "metrics.json").read_text())
    right = [label == sample.modality for label, sample in zip(said, samples, strict=True)]
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    assert metrics["n"] == 24
    interval = binomtest(sum(right), 24).proportion_ci(method="wilson")
    assert (metrics["ci_low"], metrics["ci_high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
    confusion = pd.read_csv(fitted / "confusion.csv", keep_default_na=False)
    for row in confusion.to_dict("records"):
        pairs = [(s.modality, label) for s, label in zip(samples, said, strict=True)]
        assert row["n"] == pairs.count((row["truth"], row["predicted"]))
    assert confusion["n"].sum() == 24
    table = pd.read_csv(fitted / "calibration.csv")
    assert (len(table), table["n"].sum()) == (10, 24)
    assert (table["accuracy"] * table["n"]).sum() == pytest.approx(sum(right), abs=1e-4)
    gaps = ((table["confidence"] - table["accuracy"]).abs() * table["n"]).sum() / 24
    assert metrics["expected_calibration_error"] == pytest.approx(gaps, abs=1e-5)


def test_a_finished_fit_is_not_repeated_and_another_one_is_refused(fitted, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(fitted, copy)
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert fit(copy) == 0
    assert "done before" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert fit(copy, "classifier.epochs=3") == 2
    error = capsys.readouterr().err
    assert "epochs" in error
    assert "another out=FOLDER" in error
    (copy / "metrics.json").write_text("{}")
    assert fit(copy) == 2
    assert "metrics.json is not what the fit wrote" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights_and_another_other_ones(fitted, tmp_path):
    assert fit(tmp_path / "again") == 0
    assert fit(tmp_path / "other", "seed=1") == 0
    first, again, other = (
        load_file(folder / "model.safetensors") for folder in (fitted, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def pictures(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """A table of flat pictures; a split of each row, a modality of each shade."""
    lines = ["image,caption,split,modality"]
    for place, (split, modality) in enumerate(rows):
        Image.new("RGB", (40, 40), (20 if modality == "CT" else 220,) * 3).save(folder / f"{place}.png")
        lines.append(f"{place}.png,Picture {place}.,{split},{modality}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def test_unknown_modalities_are_left_out_and_counted_and_a_split_may_lack(tmp_path, capsys):
    rows = [(split, kind) for split in ("train", "test") for kind in ("CT", "MRI", "") * 6]
    table = pictures(tmp_path, rows)
    request = ["modality", "fit", "dataset=table", f"dataset.path={table}", f"out={tmp_path / 'out'}"]
    assert main([*request, "classifier.epochs=6", "classifier.batch_size=4", "classifier.size=32"]) == 0
    text = capsys.readouterr().out
    assert "left out: 6 of train, 6 of test" in text
    assert "not calibrated" in text
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["samples"] == {"train": 12, "test": 12}
    assert metrics["without_modality"] == {"train": 6, "test": 6}
    assert (metrics["temperature"], metrics["accuracy"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["modality"], ["modality : expected fit"]),
        (["modality", "train"], ["modality train: expected fit"]),
        (["modality", "fit", "classifier.epochs=0"], ["classifier.epochs", "1 or more", "0"]),
        (["modality", "fit", "classifier.channels=null"], ["either hub", "or channels"]),
        (["modality", "fit", "weights=hub"], ["classifier.hub=microsoft/resnet-50", "weights=embedded"]),
        (["modality", "fit", "bins=0"], ["bins: expected 1 or more, got 0"]),
    ],
)
def test_wrong_requests_get_one_line(words, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    assert main([*words, *([f"out={tmp_path / 'out'}"] if len(words) > 1 else [])]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in expected:
        assert word in error


def test_one_modality_alone_cannot_be_learnt(tmp_path, capsys):
    table = pictures(tmp_path, [("train", "CT"), ("train", "CT"), ("test", "CT")])
    assert main(["modality", "fit", "dataset=table", f"dataset.path={table}", f"out={tmp_path / 'out'}"]) == 2
    assert "two or more in 'train'" in capsys.readouterr().err


def test_a_checkpoint_with_other_classes_gets_a_new_head(tmp_path):
    """As ResNet-50 comes: trained for ImageNet's 1,000 classes, with bottleneck blocks."""
    start = tmp_path / "start"
    shape = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "bottleneck"}
    ResNetForImageClassification(ResNetConfig(**shape, num_labels=1000)).save_pretrained(start)
    shutil.copy(EMBEDDED / "preprocessor_config.json", start)
    hub = ["weights=hub", f"classifier.hub={start}", "classifier.workers=0", "classifier.size=64"]
    assert fit(tmp_path / "out", *hub) == 0
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert weights["resnet.embedder.embedder.convolution.weight"].shape == (8, 3, 7, 7)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert set(config["id2label"].values()) <= {"CT", "X-ray", "MRI", "Ultrasound", "Angiography", "PET"}
    assert weights["classifier.1.weight"].shape == (len(config["id2label"]), 32)
    identity = json.loads((tmp_path / "out" / "manifest.json").read_text())["identity"]
    assert len(identity["start"]) == 64
    assert "hub" not in identity["classifier"]


# ---------------------------------------------------------------- what ships


def test_the_embedded_classifier_is_small_and_what_its_manifest_says():
    manifest = json.loads((EMBEDDED / "manifest.json").read_text())
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 300_000
    assert {path.name for path in EMBEDDED.iterdir()} == FILES | TABLES | {"manifest.json", "README.md"}
    assert manifest["files"] == {name: file_digest(EMBEDDED / name) for name in FILES | TABLES}
    assert "capbench modality fit out=harness/modality/embedded" in (EMBEDDED / "README.md").read_text()


def test_the_command_would_make_the_embedded_classifier_again(capsys):
    """Its identity is that of the default fit: same data, same recipe."""
    assert main(["modality", "fit", f"out={EMBEDDED}"]) == 0
    assert "done before" in capsys.readouterr().out


@pytest.mark.long
def test_the_embedded_classifier_made_again_is_as_good(tmp_path):
    assert main(["modality", "fit", f"out={tmp_path}"]) == 0
    again, shipped = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, EMBEDDED))
    assert again["accuracy"] == pytest.approx(shipped["accuracy"], abs=0.02)  # other processors round otherwise


# ---------------------------------------------------------------- calibration by hand


def test_the_temperature_undoes_a_known_exaggeration():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(4000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(4, p=row) for row in shares])
    assert calibration.temperature(logits, truth) == pytest.approx(1, abs=0.08)
    assert calibration.temperature(3 * logits, truth) == pytest.approx(3, abs=0.24)
    sure, places = calibration.confidences(3 * logits, 3.0)
    exact = calibration.expected_error(calibration.reliability(sure, places == truth, 10))
    bold, places = calibration.confidences(3 * logits, 1.0)
    assert exact < 0.03 < 0.1 < calibration.expected_error(calibration.reliability(bold, places == truth, 10))


def test_no_error_on_few_samples_is_no_certainty():
    truth = np.arange(30) % 3
    logits = 50 * np.eye(3)[truth]
    assert calibration.confidences(logits, calibration.temperature(logits, truth))[0].max() < 0.99
    assert calibration.temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1


def test_reliability_by_hand():
    sure = np.array([0.5, 0.55, 0.95, 1.0, 0.91])
    table = calibration.reliability(sure, np.array([True, False, True, True, False]), 10)
    assert table["n"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 3]
    assert table["accuracy"].tolist()[-1] == pytest.approx(2 / 3)
    assert table["confidence"].tolist()[-1] == pytest.approx(2.86 / 3)
    expected = (0.5 + 0.55 + abs(2.86 - 2)) / 5
    assert calibration.expected_error(table) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (7, 20), (148, 150)])
def test_the_interval_is_wilsons(right, n):
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert calibration.wilson(right, n) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_a_class_that_was_never_learnt_is_in_the_confusion_table():
    table = calibration.confusion(["a", "b", "c", "a"], ["a", "a", "b", "b"], ["a", "b"])
    cells = {(row["truth"], row["predicted"]): row["n"] for row in table.to_dict("records")}
    assert cells == {("a", "a"): 1, ("a", "b"): 1, ("b", "a"): 1, ("b", "b"): 0, ("c", "a"): 0, ("c", "b"): 1}
