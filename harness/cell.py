"""One cell of a sweep: dataset -> prompt -> captioner (strategy) -> fit -> captions; every step is kept by identity."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import provenance, ranks
from harness.contracts import (
    CapBenchError,
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
from harness.fit import Fitted, fit, rows_per_process
from harness.generate import generate
from harness.memory import Limit
from harness.store import (
    SCHEMA,
    SHORT,
    Damaged,
    Journal,
    digest,
    file_digest,
    locked,
    read_manifest,
    same_identity,
    write_json,
    write_text,
)


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
class Outcome:
    """How a cell ended. `fresh` is false when everything had been done before."""

    run_id: str
    folder: Path
    status: str
    fresh: bool


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


class Recorded(CapBenchError):
    """A cell that failed and has written so into its run folder; the cause is chained."""


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


def run(parts: Parts) -> Outcome:
    """Bring one cell to its end: whatever is finished stays, whatever is not goes on from where it stopped.

    Under torchrun all processes call this, each with its own device, and process 0 alone writes.
    """
    ranks.start(parts.device)
    known = identify(parts)
    if known.fit_folder is not None and not (known.fit_folder / "manifest.json").exists():
        rows_per_process(parts.training)  # a wrong request, known before the work begins
    with ranks.held(locked(known.folder)):
        manifest = ranks.once(lambda: read_manifest(known.folder))
        if manifest is not None:
            same_identity(known.folder, manifest["identity"], known.run_key)
            if manifest["status"] == "ok":
                return Outcome(known.run_id, known.folder, "ok", fresh=False)
        if ranks.first():
            write_text(known.folder / "config.yaml", parts.config_yaml)
        try:
            status = _caption(parts, known)
        except Exception as error:
            reason = ranks.fail(brief(error))
            row = _labels(parts, known) | {"error": reason, "n_requested": len(known.test.samples)}
            if ranks.speaker():
                facts = _provenance(parts, known.plan, known.fit_key, known.run_key)
                record_failure(known.folder, known.run_key, row, facts)
            raise Recorded(reason) from error
    return Outcome(known.run_id, known.folder, status, fresh=True)


def brief(error: BaseException) -> str:
    """An error in one line for tables: the class of foreign ones, the message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, CapBenchError) else f"{type(error).__name__}: {text}"


def record_failure(folder: Path, identity: Mapping[str, Any], row: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write down a cell that ended with an error: it becomes a row of runs.csv, not only a line that scrolled away."""
    manifest = {
        "schema": SCHEMA,
        "kind": "run",
        "status": "failed",
        "identity": dict(identity),
        "row": dict(row),
        **parts,
    }
    write_json(folder / "manifest.json", manifest)


# ---------------------------------------------------------------- identities


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
    texts = [query.prompt for query in _queries(parts, train, None)]
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
    return "-".join([*words, f"s{parts.seed}"])


# ---------------------------------------------------------------- the work


def _caption(parts: Parts, known: Known) -> str:
    started, test = provenance.now(), known.test
    fitted = _ensure_fit(parts, known)
    meter = provenance.Meter(parts.device)
    journal = Journal(known.folder / "captions.jsonl")
    limit = _limit(parts, known.fit_key, {"generate": dict(parts.identities["generate"])})
    generate(parts.captioner, _queries(parts, test, parts.modality), parts.decoding, journal, limit)
    rows = ranks.once(journal.latest)
    status = "ok" if all(row["status"] == "ok" for row in rows) else "partial"
    row = {
        **_labels(parts, known),
        **_counts(rows, test),
        **_costs(fitted, rows, meter),
        "device": provenance.device_name(parts.device),
        "started_at": started,
        "finished_at": provenance.now(),
    }
    manifest = {
        "schema": SCHEMA,
        "kind": "run",
        "status": status,
        "identity": known.run_key,
        "row": row,
        "rejected": [asdict(r) for r in test.rejected],
        "files": {"captions.jsonl": file_digest(known.folder / "captions.jsonl")},
        **_provenance(parts, known.plan, known.fit_key, known.run_key),
    }
    if ranks.first():
        write_json(known.folder / "manifest.json", manifest)
    return status


def _limit(parts: Parts, fit_key: Mapping[str, Any], asked: Mapping[str, Any]) -> Limit:
    """The rows that fit into memory at once depend on the captioner, the device and what is asked of them."""
    about = {
        "checkpoint": fit_key["checkpoint"],
        "captioner": fit_key["captioner"],
        "device": provenance.device_name(parts.device),
    }
    return Limit(parts.results / "cache", about | dict(asked))


def _ensure_fit(parts: Parts, known: Known) -> Mapping[str, Any]:
    """A loaded captioner with the fit's weights in place; the fit's row of costs."""
    folder = known.fit_folder
    if folder is None or known.train is None:
        parts.captioner.load(parts.device)
        return {}
    with ranks.held(locked(folder)):
        manifest = ranks.once(lambda: read_manifest(folder))
        parts.captioner.load(parts.device)
        if manifest is not None and manifest["status"] == "ok":
            same_identity(folder, manifest["identity"], known.fit_key)
            _check_files(folder, manifest["files"])
            model = parts.strategy.attach(parts.captioner, known.plan)
            parts.strategy.load(model, known.plan, folder / "adapter")
            row: Mapping[str, Any] = manifest["row"]
            return row
        return _fit(parts, known.plan, known.fit_key, known.train, folder)


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    """An adapter that was exchanged or cut short is refused: its captions would count for another one."""
    for name, known in files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != known:
            raise Damaged(f"{path}: not the file that this fit wrote; put it back, or delete {folder} to fit anew")


def _fit(parts: Parts, plan: Plan, identity: dict[str, Any], train: Split, folder: Path) -> Mapping[str, Any]:
    if ranks.first():
        write_text(folder / "config.yaml", parts.config_yaml)
    started, meter = provenance.now(), provenance.Meter(parts.device)
    queries = _queries(parts, train, None)
    asked = {"lora": dict(parts.identities["lora"]), "max_caption_tokens": parts.training.max_caption_tokens}
    limit = _limit(parts, identity, asked)
    done: Fitted = fit(parts.captioner, parts.strategy, plan, queries, parts.training, parts.seed, folder, limit)
    row = {
        **asdict(done),
        "n_train": len(queries),
        "n_rejected": len(train.rejected),
        "peak_memory_bytes": meter.peak_bytes(),
        "device": provenance.device_name(parts.device),
        "started_at": started,
        "finished_at": provenance.now(),
    }
    if not ranks.first():
        return row
    write_json(
        folder / "manifest.json",
        {
            "schema": SCHEMA,
            "kind": "fit",
            "status": "ok",
            "identity": identity,
            "row": row,
            "rejected": [asdict(r) for r in train.rejected],
            "files": {f"adapter/{p.name}": file_digest(p) for p in sorted((folder / "adapter").iterdir())},
            **_provenance(parts, plan, identity, {}),
        },
    )
    return row


def _queries(parts: Parts, split: Split, modality: ModalitySource | None) -> list[Query]:
    labels = modality.labels(split.samples) if modality else [None] * len(split.samples)
    return [Query(s, parts.prompt.text(s, label)) for s, label in zip(split.samples, labels, strict=True)]


def _labels(parts: Parts, known: Known) -> dict[str, Any]:
    return {
        "run_id": known.run_id,
        "fit_id": digest(known.fit_key)[:SHORT],
        "dataset": parts.dataset.name,
        "split": parts.split,
        "model": parts.captioner.name,
        "class": parts.captioner.kind,
        "weights": parts.weights,
        "strategy": parts.strategy.name,
        "prompt": parts.prompt.name,
        "modality": parts.modality.name,
        "seed": parts.seed,
        "params_total": known.plan.params_total,
        "params_trained": known.plan.params_trained,
        "params_trained_pct": known.plan.params_trained_pct,
    }


def _counts(rows: Sequence[Mapping[str, Any]], test: Split) -> dict[str, int]:
    ok = [row for row in rows if row["status"] == "ok"]
    return {
        "n_requested": len(test.samples),
        "n_ok": len(ok),
        "n_failed": len(test.samples) - len(ok),
        "n_empty": sum(not row["caption"] for row in ok),
        "n_truncated": sum(row["truncated"] for row in ok),
        "n_distinct": len({row["caption"] for row in ok}),  # few: the captioner says the same of many pictures
        "n_rejected": len(test.rejected),
    }


def _costs(fitted: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], meter: provenance.Meter) -> dict[str, Any]:
    train_seconds, seconds = fitted.get("seconds"), sum(row["seconds"] for row in rows)
    return {
        "train_seconds": train_seconds,
        "train_samples_per_s": fitted["samples"] / train_seconds if train_seconds else None,
        "generate_seconds": seconds,
        "captions_per_s": len(rows) / seconds if seconds else None,
        "peak_memory_bytes": max(meter.peak_bytes(), fitted.get("peak_memory_bytes", 0)),
    }


def _provenance(parts: Parts, plan: Plan, fit_key: dict[str, Any], run_key: dict[str, Any]) -> dict[str, Any]:
    """`variant` is the identity without the seed: runs that share it are repetitions of one leaderboard row."""
    unseeded = [{k: v for k, v in fit_key.items() if k != "seed"}, {k: v for k, v in run_key.items() if k != "fit"}]
    return {
        "variant": digest(unseeded),
        "config_hash": digest([parts.identities, parts.seed, parts.split])[:SHORT],
        "plan": asdict(plan),
        "config": dict(parts.config),
        "command": provenance.command(),
        "code_version": provenance.code_version(),
        "environment": provenance.environment(),
        "seeds": {"fit": parts.seed},
        "device": parts.device,
        "processes": ranks.world(),
    }
