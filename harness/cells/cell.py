"""One cell of a sweep: dataset -> prompt -> captioner (strategy) -> fit -> captions; every step is kept by identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cells.identity import Known, identify
from harness.cells.manifest import brief, write_failed_run, write_run
from harness.cells.parts import Parts
from harness.cells.stages import ask, caption, check, prepare_captioner, run_control
from harness.contracts import CapBenchError, Query
from harness.machine import provenance, ranks
from harness.store import Journal, locked, read_manifest, same_identity, write_text


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
    if not _done(read_manifest(known.folder)):
        check(parts, known)
    with ranks.held(locked(known.folder)):
        manifest = ranks.once(lambda: read_manifest(known.folder))
        if manifest is not None:
            same_identity(known.folder, manifest["identity"], known.run_identity)
        if _done(manifest):
            return Outcome(known.run_id, known.folder, "ok", fresh=False)
        queries = ask(parts, known.test)
        if ranks.first():
            write_text(known.folder / "config.yaml", parts.config_yaml)
        try:
            status = _captions(parts, known, queries)
        except Exception as error:  # whatever a model or a library raises: written down, then raised again
            reason = ranks.fail(brief(error))
            if ranks.speaker():
                write_failed_run(parts, known, reason)
            raise Recorded(reason) from error
    return Outcome(known.run_id, known.folder, status, fresh=True)


def _done(manifest: Mapping[str, Any] | None) -> bool:
    return manifest is not None and manifest["status"] == "ok"


def _captions(parts: Parts, known: Known, queries: Sequence[Query]) -> str:
    """Make the captions and the manifest of their run; returns its status."""
    started, journal = provenance.now(), Journal(known.folder / "captions.jsonl")
    if parts.control.replaces_captioner:
        meter = provenance.Meter(parts.device)
        learnt, fitted = run_control(parts, known, journal)
    else:
        learnt, fitted = None, prepare_captioner(parts, known)
        meter = provenance.Meter(parts.device)  # of the captions alone: a fit has one of its own
        caption(parts, known, queries, journal)
    rows = ranks.once(journal.latest)
    status = "ok" if all(row.status == "ok" for row in rows) else "partial"
    if ranks.first():
        write_run(parts, known, status, rows, fitted, meter, started, learnt)
    return status
