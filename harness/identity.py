"""What a cell is before any of its work: the identities of its fit and its run, and the folders they name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import (
    Captioner,
    Dataset,
    Decoding,
    ModalitySource,
    Plan,
    PromptStyle,
    Query,
    RequestError,
    Split,
    Strategy,
    Training,
)
from harness.store import SCHEMA, SHORT, digest


@dataclass(frozen=True)
class Parts:
    """The built plug-ins and options of one cell. `identities` holds, per group, the values that enter the hashes."""

    dataset: Dataset
    captioner: Captioner
    strategy: Strategy
    prompt: PromptStyle
    modality: ModalitySource
    training: Training
    decoding: Decoding
    identities: Mapping[str, Mapping[str, Any]]
    split: str
    seed: int
    weights: str
    device: str
    results: Path
    config: Mapping[str, Any]
    config_yaml: str


@dataclass(frozen=True)
class Known:
    """What a cell is, before any of its work: the identities of its fit and run, and their folders."""

    plan: Plan
    train: Split | None
    test: Split
    fit_key: dict[str, Any]
    run_key: dict[str, Any]
    fit_folder: Path | None
    folder: Path

    @property
    def run_id(self) -> str:
        """The short hash in the folder's name."""
        return digest(self.run_key)[:SHORT]


def identify(parts: Parts) -> Known:
    """Read data and checkpoint as far as the identities need it. Raises Refused, RequestError."""
    test = parts.dataset.load(parts.split)
    if not test.samples:
        raise RequestError(f"dataset={parts.dataset.name}: split '{parts.split}' has no usable sample")
    train = parts.dataset.load("train") if parts.strategy.trains else None
    plan = parts.strategy.plan(parts.captioner)
    fit_key = _fit_identity(parts, plan, train)
    run_key = _run_identity(parts, fit_key, test)
    fits, runs = (
        f"{_name(parts, inference=of_run)}-{digest(key)[:SHORT]}" for of_run, key in ((False, fit_key), (True, run_key))
    )
    fit_folder = parts.results / "fits" / fits if train is not None else None
    return Known(plan, train, test, fit_key, run_key, fit_folder, parts.results / "runs" / runs)


def queries_of(parts: Parts, split: Split, modality: ModalitySource | None) -> list[Query]:
    """Every sample with its question; modality None: without a label, as in training."""
    labels = modality.labels(split.samples) if modality else [None] * len(split.samples)
    return [Query(s, parts.prompt.text(s, label)) for s, label in zip(split.samples, labels, strict=True)]


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
            "prompt": _training_prompts(parts, train),
            "train": dict(parts.identities["train"]),
            "seed": parts.seed,
        }
    return _plain(identity)


def _run_identity(parts: Parts, fit_key: Mapping[str, Any], test: Split) -> dict[str, Any]:
    return _plain(
        {
            "schema": SCHEMA,
            "fit": digest(fit_key),
            "split": parts.split,
            "data": test.fingerprint,
            "prompt": _inference_prompt(parts),
            "generate": dict(parts.identities["generate"]),
        }
    )


def _training_prompts(parts: Parts, train: Split) -> Any:
    """What is asked in training, word by word: a style that differs in the label alone shares the fit.

    The modality label joins at inference only, over an unchanged adapter. A baseline is asked nothing.
    """
    if not parts.captioner.prompted:
        return None
    texts = [query.prompt for query in queries_of(parts, train, None)]
    return {"text": texts[0]} if len(set(texts)) == 1 else {"texts": digest(texts)}


def _inference_prompt(parts: Parts) -> Any:
    """Style and label source by their values: what they ask of each sample follows."""
    asked = [dict(parts.identities["prompt"]), dict(parts.identities["modality"])]
    return asked if parts.captioner.prompted else None


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The same value as it comes back from JSON, so that a stored identity compares equal."""
    value = json.loads(json.dumps(identity))
    assert isinstance(value, dict)
    return value


def _name(parts: Parts, *, inference: bool) -> str:
    words = [parts.captioner.name, parts.strategy.name]
    if inference:
        words += [parts.prompt.name, *([parts.modality.name] if parts.modality.name != "none" else [])]
    if parts.strategy.trains:  # else the seed changes nothing, and cells that differ in it are one run
        words.append(f"s{parts.seed}")
    return "-".join(words)
