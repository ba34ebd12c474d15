"""What a cell is before any of its work: the identities of its fit and its run, and the folders they name."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.cells.parts import Parts
from harness.contracts import (
    Checkpointed,
    ModalitySource,
    Plan,
    PromptStyle,
    Query,
    Refused,
    RequestError,
    Sample,
    Split,
)
from harness.store import SCHEMA, SHORT, digest, through_json

LATER = {("optimiser", "adamw"), ("engine", "transformers")}
"""Options that came later, with the value that fits and runs had before: they keep the names they had."""


@dataclass(frozen=True)
class Known:
    """What a cell is, before any of its work: the identities of its fit and run, and their folders.

    unlabelled_fit: digest of the fit without labels in its training questions; usually that of the fit itself.
    """

    plan: Plan
    train: Split | None
    test: Split
    fit_identity: dict[str, Any]
    run_identity: dict[str, Any]
    unlabelled_fit: str
    fit_folder: Path | None
    folder: Path

    @property
    def run_id(self) -> str:
        """The short hash in the folder's name."""
        return digest(self.run_identity)[:SHORT]

    @property
    def labelled(self) -> bool:
        """Whether the fit was taught with labels."""
        return self.unlabelled_fit != digest(self.fit_identity)


def identify(parts: Parts) -> Known:
    """Read data and checkpoint as far as the identities need it. Raises Refused, RequestError."""
    test = parts.dataset.load(parts.settings.split)
    if not test.samples:
        raise RequestError(f"dataset={parts.dataset.name}: split '{parts.settings.split}' has no usable sample")
    if parts.control.replaces_captioner:
        return _identify_control(parts, test)
    train = parts.dataset.load("train") if parts.strategy.trains else None
    plan = parts.strategy.plan(parts.captioner)
    fit_identity = _fit_identity(parts, plan, train)
    run_identity = _run_identity(parts, fit_identity, test)
    unlabelled = digest(_without_labels(parts, fit_identity, train))
    labelled = unlabelled != digest(fit_identity)
    fits, runs = (
        f"{_name(parts, labelled=labelled, inference=of_run)}-{digest(key)[:SHORT]}"
        for of_run, key in ((False, fit_identity), (True, run_identity))
    )
    fit_folder = parts.results / "fits" / fits if train is not None else None
    return Known(plan, train, test, fit_identity, run_identity, unlabelled, fit_folder, parts.results / "runs" / runs)


def titles(parts: Parts, *, labelled: bool = False) -> dict[str, str]:
    """What a run is called in the tables: no captioner has a part in a control, and a blank run is one, too.

    labelled: the fit was taught with labels. An engine other than the captioner's own stands beside its name.
    """
    if parts.control.replaces_captioner:
        unused = dict.fromkeys(("strategy", "prompt", "modality"), "none")
        return {"model": parts.control.name, "class": "control", **unused, "control": parts.control.name}
    engine = parts.decoding.engine
    return {
        "model": parts.captioner.name + ("" if engine == "transformers" else f"[{engine}]"),
        "class": "control" if parts.settings.blank else parts.captioner.kind,
        "strategy": parts.strategy.name,
        "prompt": parts.prompt.name,
        "modality": f"{parts.modality.name}[training]" if labelled else parts.modality.name,
        "control": "blank" if parts.settings.blank else "",
    }


def queries_of(parts: Parts, split: Split, modality: ModalitySource | None) -> list[Query]:
    """Every sample with its question; modality None: without a label, as usual in training."""
    labels = modality.labels(split.samples) if modality else [None] * len(split.samples)
    return [_query(parts.prompt, s, label) for s, label in zip(split.samples, labels, strict=True)]


def _query(style: PromptStyle, sample: Sample, label: str | None) -> Query:
    """A style that leaves the label out gives none."""
    text = style.text(sample, label)
    return Query(sample, text, label if label is not None and text != style.text(sample, None) else None)


def _fit_identity(parts: Parts, plan: Plan, train: Split | None) -> dict[str, Any]:
    """All that can change the weights; for a strategy that trains nothing, the checkpoint alone."""
    identity: dict[str, Any] = {
        "schema": SCHEMA,
        "checkpoint": parts.captioner.digest(),
        "captioner": dict(parts.identities["model"]),
        "strategy": {"plan": asdict(plan), "values": dict(parts.identities["lora"])},
    }
    if train is not None:
        identity |= {
            "data": train.fingerprint,
            "prompt": _training_prompts(parts, train, parts.taught_labels),
            "train": _as_before(parts.identities["train"]),
            "seed": parts.settings.seed,
        }
    return through_json(identity)


def _as_before(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if (key, value) not in LATER}


def _without_labels(parts: Parts, fit_identity: dict[str, Any], train: Split | None) -> dict[str, Any]:
    if train is None or parts.taught_labels is None:
        return fit_identity
    return through_json(fit_identity | {"prompt": _training_prompts(parts, train, None)})


def _base_identity(parts: Parts, fit_identity: Mapping[str, Any], test: Split) -> dict[str, Any]:
    """What a run is known by, whoever speaks in it."""
    fit, split = digest(fit_identity), parts.settings.split
    return {"schema": SCHEMA, "fit": fit, "split": split, "data": test.fingerprint}


def _run_identity(parts: Parts, fit_identity: Mapping[str, Any], test: Split) -> dict[str, Any]:
    asked = {"prompt": _inference_prompt(parts), "generate": _as_before(parts.identities["generate"])}
    blank = {"blank": True} if parts.settings.blank else {}
    return through_json(_base_identity(parts, fit_identity, test) | asked | _other_questions(parts, test) | blank)


def _identify_control(parts: Parts, test: Split) -> Known:
    """A control is known by its values and what it looks at: no captioner, prompt, decoding or seed plays a part."""
    name = parts.control.name
    if parts.settings.blank:
        raise Refused(f"control={name} blank=true: refused, a grey picture is for a captioner; use one of the two")
    train = parts.dataset.load("train")
    if not train.samples:
        raise RequestError(f"control={name}: expected training captions, the split 'train' has no usable sample")
    fit_identity = through_json(
        {
            "schema": SCHEMA,
            "control": dict(parts.identities["control"]),
            "checkpoint": parts.control.digest(),
            "data": train.fingerprint,
            "weights": parts.weights,  # whose table it stands in: one run for each
        }
    )
    run_identity = _base_identity(parts, fit_identity, test)
    folder = parts.results / "runs" / f"control-{name}-{digest(run_identity)[:SHORT]}"
    return Known(Plan("none", 0, {}), train, test, fit_identity, run_identity, digest(fit_identity), None, folder)


def _training_prompts(parts: Parts, train: Split, labels: ModalitySource | None) -> Any:
    """What is asked in training, word by word: a style that differs in the label alone shares the fit.

    The modality label joins at inference only, over an unchanged adapter, unless labels_in_training asks for it here.
    A baseline is asked nothing.
    """
    if not parts.captioner.prompted:
        return None
    texts = [query.prompt for query in queries_of(parts, train, labels)]
    return {"text": texts[0]} if len(set(texts)) == 1 else {"texts": digest(texts)}


def _inference_prompt(parts: Parts) -> Any:
    """Style and label source by their values, a classifier by its content: what they ask of each sample follows."""
    if not parts.captioner.prompted:
        return None
    source = dict(parts.identities["modality"])
    if isinstance(parts.modality, Checkpointed):
        source["checkpoint"] = parts.modality.digest()
    return [dict(parts.identities["prompt"]), source]


FINGERPRINTED = {"id", "images", "caption", "split", "modality", "concepts"}
"""Of a sample: what a run is known by anyhow."""


def _watched(sample: Sample) -> Sample:
    """A copy, of the sample's own class, that notes under `read_on` when more of it is read than is fingerprinted."""

    def read(self: Any, name: str) -> Any:
        known = object.__getattribute__(self, "__dict__")
        if name in known and name not in FINGERPRINTED:
            known["read_on"] = True
        return object.__getattribute__(self, name)

    found = copy(sample)
    object.__setattr__(found, "__class__", type("Watched", (type(sample),), {"__getattribute__": read}))
    return found


def _other_questions(parts: Parts, test: Split) -> dict[str, str]:
    """The questions word by word, where style or label source make them of more than the fingerprint holds.

    A classifier would have to look at every picture: its labels come from pictures, and others stand in for them here.
    """
    if not parts.captioner.prompted:
        return {}
    samples = [_watched(one) for one in test.samples]
    classified = isinstance(parts.modality, Checkpointed)
    labels = [sample.modality for sample in samples] if classified else parts.modality.labels(samples)
    for sample, label in zip(samples, labels, strict=True):
        _query(parts.prompt, sample, label)
    if not any("read_on" in object.__getattribute__(sample, "__dict__") for sample in samples):
        return {}
    return {"questions": digest([query.prompt for query in queries_of(parts, test, parts.modality)])}


def _name(parts: Parts, *, labelled: bool, inference: bool) -> str:
    words = [parts.captioner.name, parts.strategy.name, *(["labelled"] if labelled else [])]
    if inference:
        words += [parts.prompt.name, *([parts.modality.name] if parts.modality.name != "none" else [])]
        words += ["blank"] if parts.settings.blank else []
        words += [parts.decoding.engine] if parts.decoding.engine != "transformers" else []
    if parts.strategy.trains:  # else the seed changes nothing, and cells that differ in it are one run
        words.append(f"s{parts.settings.seed}")
    return "-".join(words)
