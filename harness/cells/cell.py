"""One cell of a sweep: dataset -> prompt -> captioner (strategy) -> fit -> captions; every step is kept by identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.batches.feature_files import FeatureFiles
from harness.batches.features import LIBRARIES, Features, allowed
from harness.batches.limit import Limit
from harness.cells.blank_pictures import blanked
from harness.cells.identity import Known, Parts, identify, queries_of, titles
from harness.cells.leaks import refuse_leaks
from harness.contracts import (
    CapBenchError,
    Plan,
    Query,
    Speak,
    Split,
    TowerCached,
)
from harness.inference import vllm
from harness.inference.controls import say
from harness.inference.generate import generate
from harness.machine import memory, provenance, ranks
from harness.machine.bfloat16 import emulation_for
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
from harness.training.fit import Fitted, fit, rows_per_process
from harness.training.trainer import check_options


@dataclass(frozen=True)
class Outcome:
    """How a cell ended. `fresh` is false when everything had been done before."""

    run_id: str
    folder: Path
    status: str
    fresh: bool


class Recorded(CapBenchError):
    """A cell that failed and has written so into its run folder; the cause is chained."""


def run(parts: Parts) -> Outcome:
    """Bring one cell to its end: whatever is finished stays, whatever is not goes on from where it stopped.

    Under torchrun all processes call this, each with its own device, and process 0 alone writes.
    """
    ranks.start(parts.device)
    known = identify(parts)
    if not finished(known):
        check(parts, known)
    with ranks.held(locked(known.folder)):
        manifest = ranks.once(lambda: read_manifest(known.folder))
        if manifest is not None:
            same_identity(known.folder, manifest["identity"], known.run_key)
            if manifest["status"] == "ok":
                return Outcome(known.run_id, known.folder, "ok", fresh=False)
        queries = [] if parts.control.speaks else _questions(parts, known)
        if ranks.first():
            write_text(known.folder / "config.yaml", parts.config_yaml)
        try:
            status = _caption(parts, known, queries)
        except Exception as error:  # whatever a model or a library raises: written down, then raised again
            reason = ranks.fail(brief(error))
            row = _labels(parts, known) | {"error": reason, "n_requested": len(known.test.samples)}
            if ranks.speaker():
                facts = _provenance(parts, known.plan, known.fit_key, known.run_key)
                record_failure(known.folder, known.run_key, row, facts)
            raise Recorded(reason) from error
    return Outcome(known.run_id, known.folder, status, fresh=True)


def finished(known: Known) -> bool:
    """Whether nothing is left to be done."""
    manifest = read_manifest(known.folder)
    return manifest is not None and manifest["status"] == "ok"


def check(parts: Parts, known: Known) -> None:
    """Look for a wrong request before the work begins. Raises Refused, RequestError."""
    if parts.control.speaks:
        return
    if known.fit_folder is not None and not (known.fit_folder / "manifest.json").exists():
        rows_per_process(parts.training)
        check_options(parts.training, parts.device)
    allowed(parts.captioner, known.plan, parts.features)
    vllm.check(parts.captioner, parts.decoding, parts.device)


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


# ---------------------------------------------------------------- the work


def _questions(parts: Parts, known: Known) -> Sequence[Query]:
    """What the captioner is asked of the split. Raises RequestError where a question knows the answer."""
    queries = queries_of(parts, known.test, parts.modality)
    if parts.captioner.prompted:
        refuse_leaks(queries, parts.prompt.name)  # before a fit whose captions could not be used
    return blanked(queries) if parts.blank else queries


def _caption(parts: Parts, known: Known, queries: Sequence[Query]) -> str:
    started, test = provenance.now(), known.test
    journal = Journal(known.folder / "captions.jsonl")
    if parts.control.speaks:
        facts, fitted, meter = _control(parts, known, journal)
    else:
        facts, fitted, meter = _captioner(parts, known, queries, journal)
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
        "unlabelled_fit": known.unlabelled_fit,
        "row": row,
        "rejected": [asdict(r) for r in test.rejected],
        "files": {"captions.jsonl": file_digest(known.folder / "captions.jsonl")},
        **facts,
        **_provenance(parts, known.plan, known.fit_key, known.run_key),
    }
    if ranks.first():
        write_json(known.folder / "manifest.json", manifest)
    return status


Work = tuple[Mapping[str, Any], Mapping[str, Any], provenance.Meter]
"""Facts for the manifest, the row of what came before the captions, and the meter of their cost."""


def _captioner(parts: Parts, known: Known, queries: Sequence[Query], journal: Journal) -> Work:
    fitted = _ensure_fit(parts, known)
    meter = provenance.Meter(parts.device)
    limit = _limit(parts, known.fit_key, {"generate": dict(parts.identities["generate"])})
    features = _features(parts, known.plan, known.fit_key)
    with _engine(parts, known, queries) as speak:
        generate(parts.captioner, queries, parts.decoding, journal, limit, features, speak)
    if not parts.blank:
        return {}, fitted, meter
    seeing = {key: value for key, value in known.run_key.items() if key != "blank"}
    return {"seeing": _variant(known.fit_key, seeing)}, fitted, meter


@contextmanager
def _engine(parts: Parts, known: Known, queries: Sequence[Query]) -> Iterator[Speak]:
    """What makes the captions. Raises CapBenchError where another engine says something else than the captioner."""
    if parts.decoding.engine == "transformers":
        with emulation_for(parts.captioner.model):
            yield parts.captioner.generate
        return
    merge = _as_stored(parts, known)
    with vllm.started(parts.captioner, parts.decoding, parts.device, vllm.probes(queries), merge) as (found, speak):
        if not found.healthy:
            raise CapBenchError(
                f"generate.engine={parts.decoding.engine} for model={parts.captioner.name}: its captions differ from "
                f"the captioner's own ({found.first}); use transformers"
            )
        yield speak


def _as_stored(parts: Parts, known: Known) -> Callable[[], None]:
    """The captioner with its adapter as the fit has stored it, and what folds it in."""
    if known.fit_folder is None:
        return vllm.nothing
    del parts.captioner.model  # there may be no room for two
    memory.release()
    parts.captioner.load(parts.device)
    return vllm.as_stored(parts.captioner, parts.strategy, known.plan, known.fit_folder / "adapter")


def _control(parts: Parts, known: Known, journal: Journal) -> Work:
    """One process says it all: a control costs little beside a captioner."""
    assert known.train is not None
    train, test, meter = known.train.samples, known.test.samples, provenance.Meter(parts.device)
    cache = parts.results / "cache"
    learnt, costs = ranks.once(lambda: say(parts.control, train, test, journal, parts.device, cache))
    return {"control": learnt}, costs, meter


def _limit(parts: Parts, fit_key: Mapping[str, Any], asked: Mapping[str, Any]) -> Limit:
    """The rows that fit into memory at once depend on the captioner, the device and what is asked of them."""
    about = {
        "checkpoint": fit_key["checkpoint"],
        "captioner": fit_key["captioner"],
        "device": provenance.device_name(parts.device),
    }
    return Limit(parts.results / "cache", about | dict(asked))


def _features(parts: Parts, plan: Plan, fit_key: Mapping[str, Any]) -> Features | None:
    """What the vision tower has made of pictures before, where the strategy leaves it as it is."""
    if not allowed(parts.captioner, plan, parts.features) or not isinstance(parts.captioner, TowerCached):
        return None
    packages = provenance.environment()["packages"]
    about = {
        "checkpoint": fit_key["checkpoint"],
        "captioner": fit_key["captioner"],
        "device": parts.device.partition(":")[0],
        "packages": {name: packages[name] for name in LIBRARIES},
    }
    files = FeatureFiles(parts.results / "cache" / "features", parts.features_gb * 2**30)
    return Features(parts.captioner, files, about)


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
    queries = queries_of(parts, train, parts.taught_labels)
    asked = {"lora": dict(parts.identities["lora"]), "max_caption_tokens": parts.training.max_caption_tokens}
    limit = _limit(parts, identity, asked)
    features = _features(parts, plan, identity)
    with emulation_for(parts.captioner.model):
        done: Fitted = fit(
            parts.captioner, parts.strategy, plan, queries, parts.training, parts.seed, folder, limit, features
        )
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


def _labels(parts: Parts, known: Known) -> dict[str, Any]:
    return {
        "run_id": known.run_id,
        "fit_id": digest(known.fit_key)[:SHORT],
        "dataset": parts.dataset.name,
        "split": parts.split,
        "weights": parts.weights,
        **titles(parts, labelled=known.labelled),
        "seed": None if parts.control.speaks else parts.seed,
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
    return {
        "variant": _variant(fit_key, run_key),
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


def _variant(fit_key: Mapping[str, Any], run_key: Mapping[str, Any]) -> str:
    """The identity without the seed: runs that share it are repetitions of one leaderboard row."""
    return digest([{k: v for k, v in fit_key.items() if k != "seed"}, {k: v for k, v in run_key.items() if k != "fit"}])
