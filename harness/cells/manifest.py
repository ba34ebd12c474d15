"""Manifests of fits and runs: what they are, what they cost, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.cells.identity import Known, titles
from harness.cells.parts import Parts
from harness.contracts import CapBenchError, Split
from harness.machine import provenance, ranks
from harness.store import SCHEMA, SHORT, JournalRow, digest, file_digest, write_json
from harness.training.fit import Fitted


def write_run(
    parts: Parts,
    known: Known,
    status: str,
    rows: Sequence[JournalRow],
    fitted: Mapping[str, Any],
    meter: provenance.Meter,
    started: str,
    learnt: Mapping[str, Any] | None,
) -> None:
    """Write down a run whose captions are made. fitted: the row of what came before them; learnt: by a control."""
    facts = {"control": learnt} if learnt is not None else _seeing(parts, known)
    row = {
        **_labels(parts, known),
        **_counts(rows, known.test),
        **_costs(fitted, rows, meter),
        **_place_and_time(parts, started),
    }
    manifest = {
        **_head("run", status, known.run_identity),
        "unlabelled_fit": known.unlabelled_fit,
        "row": row,
        "rejected": [asdict(r) for r in known.test.rejected],
        "files": {"captions.jsonl": file_digest(known.folder / "captions.jsonl")},
        **facts,
        **_provenance(parts, known, known.run_identity),
    }
    write_json(known.folder / "manifest.json", manifest)


def write_failed_run(parts: Parts, known: Known, reason: str) -> None:
    """Write down a run that ended with an error."""
    row = _labels(parts, known) | {"error": reason, "n_requested": len(known.test.samples)}
    record_failure(known.folder, known.run_identity, row, _provenance(parts, known, known.run_identity))


def record_failure(folder: Path, identity: Mapping[str, Any], row: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write down a cell that ended with an error: it becomes a row of runs.csv, not only a line that scrolled away."""
    write_json(folder / "manifest.json", {**_head("run", "failed", identity), "row": dict(row), **facts})


def brief(error: BaseException) -> str:
    """An error in one line for tables: the class of foreign ones, the message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, CapBenchError) else f"{type(error).__name__}: {text}"


def write_fit(
    parts: Parts, known: Known, done: Fitted, train: Split, meter: provenance.Meter, started: str, folder: Path
) -> Mapping[str, Any]:
    """Write down a finished fit, on the first process; returns its row of costs on every one."""
    row = {
        **asdict(done),
        "n_train": len(train.samples),
        "n_rejected": len(train.rejected),
        "peak_memory_bytes": meter.peak_bytes(),
        **_place_and_time(parts, started),
    }
    if ranks.first():
        manifest = {
            **_head("fit", "ok", known.fit_identity),
            "row": row,
            "rejected": [asdict(r) for r in train.rejected],
            "files": {f"adapter/{p.name}": file_digest(p) for p in sorted((folder / "adapter").iterdir())},
            **_provenance(parts, known, {}),
        }
        write_json(folder / "manifest.json", manifest)
    return row


# ---------------------------------------------------------------- what stands in them


def _head(kind: str, status: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "kind": kind, "status": status, "identity": dict(identity)}


def _place_and_time(parts: Parts, started: str) -> dict[str, str]:
    device = provenance.device_name(parts.device)
    return {"device": device, "started_at": started, "finished_at": provenance.now()}


def _labels(parts: Parts, known: Known) -> dict[str, Any]:
    return {
        "run_id": known.run_id,
        "fit_id": digest(known.fit_identity)[:SHORT],
        "dataset": parts.dataset.name,
        "split": parts.settings.split,
        "weights": parts.weights,
        **titles(parts, labelled=known.labelled),
        "seed": None if parts.control.replaces_captioner else parts.settings.seed,
        "params_total": known.plan.params_total,
        "params_trained": known.plan.params_trained,
        "params_trained_pct": known.plan.params_trained_pct,
    }


def _counts(rows: Sequence[JournalRow], test: Split) -> dict[str, int]:
    ok = [row for row in rows if row.status == "ok"]
    return {
        "n_requested": len(test.samples),
        "n_ok": len(ok),
        "n_failed": len(test.samples) - len(ok),
        "n_empty": sum(not row.caption for row in ok),
        "n_truncated": sum(row.truncated for row in ok),
        "n_distinct": len({row.caption for row in ok}),  # few: the captioner says the same of many pictures
        "n_rejected": len(test.rejected),
    }


def _costs(fitted: Mapping[str, Any], rows: Sequence[JournalRow], meter: provenance.Meter) -> dict[str, Any]:
    train_seconds, seconds = fitted.get("seconds"), sum(row.seconds for row in rows)
    return {
        "train_seconds": train_seconds,
        "train_samples_per_s": fitted["samples"] / train_seconds if train_seconds else None,
        "generate_seconds": seconds,
        "captions_per_s": len(rows) / seconds if seconds else None,
        "peak_memory_bytes": max(meter.peak_bytes(), fitted.get("peak_memory_bytes", 0)),
    }


def _seeing(parts: Parts, known: Known) -> dict[str, str]:
    """Of a run on grey pictures, the variant that sees."""
    if not parts.settings.blank:
        return {}
    seeing = {key: value for key, value in known.run_identity.items() if key != "blank"}
    return {"seeing": _variant(known.fit_identity, seeing)}


def _provenance(parts: Parts, known: Known, run_identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "variant": _variant(known.fit_identity, run_identity),
        "config_hash": digest([parts.identities, parts.settings.seed, parts.settings.split])[:SHORT],
        "plan": asdict(known.plan),
        "config": dict(parts.config),
        "command": provenance.command(),
        "code_version": provenance.code_version(),
        "environment": provenance.environment(),
        "seeds": {"fit": parts.settings.seed},
        "device": parts.device,
        "processes": ranks.world(),
    }


def _variant(fit_identity: Mapping[str, Any], run_identity: Mapping[str, Any]) -> str:
    """The identity without the seed: runs that share it are repetitions of one leaderboard row."""
    fit = {key: value for key, value in fit_identity.items() if key != "seed"}
    return digest([fit, {key: value for key, value in run_identity.items() if key != "fit"}])
