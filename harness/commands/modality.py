"""capbench modality: train the classifier of the imaging modality behind modality=predicted.

usage: capbench modality fit [--config-dir DIR] [dataset=NAME] [dataset.KEY=VALUE ...] [out=FOLDER] [KEY=VALUE ...]

Trains a ResNet to tell the modalities of the split "train" apart, calibrates it on "valid", measures it on "test". The
folder is for modality=predicted modality.checkpoint=FOLDER; its metrics.json, confusion.csv and calibration.csv say
how good it is. A finished fit is not repeated. Samples without a known modality are left out and counted.

Options of the training: classifier.epochs=N, .batch_size, .learning_rate, .size, .workers
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import config
from harness.commands._options import parse
from harness.contracts import ModalityClassifier, NonNegative, Positive, RequestError, Sample
from harness.machine import provenance
from harness.machine.devices import pick_device
from harness.machine.terminal import bar, console
from harness.store import SCHEMA, file_digest, make_folder, read_json, write_json
from harness.tables import calibration
from harness.tables.csv_files import write_csv
from harness.training.modality import Data, done, identity_of, load

CHECKPOINT = ("config.json", "model.safetensors", "preprocessor_config.json")
TABLES = ("metrics.json", "confusion.csv", "calibration.csv")


@dataclass(frozen=True)
class Settings:
    """The root-level values of conf/modality_fit.yaml."""

    out: str
    seed: NonNegative
    device: str
    threads: Positive | None
    bins: Positive


def main(argv: Sequence[str]) -> int:
    """`fit [KEY=VALUE ...]`: train, unless that was done before, and say how good it is."""
    arguments = parse("modality", argv)
    words = arguments.overrides
    if words[:1] != ["fit"]:
        raise RequestError(f"modality {words[0] if words else ''}: expected fit; see `capbench modality --help`")
    cell = config.cells("modality_fit", words[1:], config_dir=arguments.config_dir)[0]
    settings: Settings = config.settings(cell, Settings)
    device = pick_device(settings.device, settings.threads)
    classifier: ModalityClassifier = config.build(cell, "classifier")
    data = load(config.build(cell, "dataset"))
    out = make_folder(Path(settings.out), "out")
    identity = identity_of(
        config.identity_values(cell.config["classifier"]), classifier, data, settings.seed, settings.bins
    )
    fresh = not done(out, identity)
    if fresh:
        _work(classifier, data, settings, device, out, identity, cell)
    _report(out, fresh=fresh)
    return 0


# ---------------------------------------------------------------- work


def _work(
    classifier: ModalityClassifier,
    data: Data,
    settings: Settings,
    device: str,
    out: Path,
    identity: Mapping[str, Any],
    cell: config.Cell,
) -> None:
    started, start = provenance.now(), time.perf_counter()
    with bar("fit modality", classifier.steps(len(data.train.samples))) as advance:
        classifier.fit(data.train.samples, data.classes, settings.seed, device, advance)
    seconds = round(time.perf_counter() - start, 1)
    temperature = _temperature(classifier, data)
    metrics = _measure(classifier, data, temperature, settings.bins, out)
    classifier.save(out, temperature)
    write_json(out / "metrics.json", metrics)
    manifest = {
        "schema": SCHEMA,
        "kind": "modality",
        "status": "ok",
        "identity": identity,
        "row": {"seconds": seconds, "device": provenance.device_name(device), "started_at": started},
        "rejected": {name: [asdict(r) for r in part.split.rejected] for name, part in data.parts.items()},
        "files": {name: file_digest(out / name) for name in (*CHECKPOINT, *TABLES)},
        "config": dict(cell.config),
        "command": provenance.command(),
        "code_version": provenance.code_version(),
        "environment": provenance.environment(),
    }
    write_json(out / "manifest.json", manifest)  # last: without it the folder is no finished fit


def _temperature(classifier: ModalityClassifier, data: Data) -> float:
    """Fitted on the samples of "valid" whose class was learnt; 1 without any."""
    places = {name: place for place, name in enumerate(data.classes)}
    samples = [sample for sample in (data.valid.samples if data.valid else ()) if sample.modality in places]
    if not samples:
        return 1.0
    truth = np.array([places[sample.modality] for sample in samples])
    return calibration.temperature(_logits(classifier, samples), truth)


def _measure(classifier: ModalityClassifier, data: Data, temperature: float, bins: int, out: Path) -> dict[str, Any]:
    """What metrics.json says; confusion.csv and calibration.csv are written on the way."""
    truth, logits = data.test.modalities, _logits(classifier, data.test.samples)
    confidence, places = calibration.confidences(logits, temperature)
    predicted = [data.classes[place] for place in places]
    right = np.array(truth) == np.array(predicted)
    table = calibration.reliability(confidence, right, bins)
    before = calibration.reliability(calibration.confidences(logits, 1.0)[0], right, bins)
    write_csv(calibration.confusion(truth, predicted, data.classes), out / "confusion.csv")
    write_csv(table, out / "calibration.csv")
    low, high = calibration.wilson(int(right.sum()), len(right))
    kinds = np.array(truth)
    return {
        "accuracy": float(right.mean()),
        "ci_low": low,
        "ci_high": high,
        "n": len(right),
        "recall": {kind: float(right[kinds == kind].mean()) for kind in sorted(set(truth))},
        "temperature": temperature,
        "uncalibrated": data.uncalibrated,
        "expected_calibration_error": calibration.expected_error(table),
        "expected_calibration_error_at_temperature_1": calibration.expected_error(before),
        "samples": {name: len(part.samples) for name, part in data.parts.items()},
        "without_modality": {name: part.left_out for name, part in data.parts.items()},
        "rejected": {name: len(part.split.rejected) for name, part in data.parts.items()},
    }


def _logits(classifier: ModalityClassifier, samples: Sequence[Sample]) -> calibration.Array:
    return classifier.logits(samples).double().numpy()


# ---------------------------------------------------------------- what is said


def _report(out: Path, *, fresh: bool) -> None:
    found = read_json(out / "metrics.json")
    left = {name: count for name, count in found["without_modality"].items() if count}
    lines = [
        f"{out}: {'fitted' if fresh else 'done before'}; accuracy {found['accuracy']:.3f} "
        f"[{found['ci_low']:.3f}, {found['ci_high']:.3f}] on {found['n']} pictures of test",
        f"expected calibration error {found['expected_calibration_error']:.3f} at temperature "
        f"{found['temperature']:.2f} ({found['expected_calibration_error_at_temperature_1']:.3f} before)",
        "right by modality: " + ", ".join(f"{kind} {share:.2f}" for kind, share in found["recall"].items()),
    ]
    if found["uncalibrated"]:
        lines.append(f"not calibrated: {found['uncalibrated']}")
    if left:
        lines.append("without a known modality, left out: " + ", ".join(f"{n} of {name}" for name, n in left.items()))
    console.print("\n".join([*lines, f"use it with: modality=predicted modality.checkpoint={out}"]))
