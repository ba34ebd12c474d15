"""Runs and fits of a results folder: found by id, folder name or prefix, and read."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.choices import pick
from harness.contracts import RequestError
from harness.store import Damaged, Journal, JournalRow, find_folders, read_json, read_manifest
from harness.store.scores import Array, ScoreFile, read_scores


@dataclass(frozen=True)
class Run:
    """One folder below results/runs, as it is on the disk."""

    folder: Path
    manifest: Mapping[str, Any]
    kept: MutableMapping[str, bytes] | None = None  # of score files, see read_scores

    @property
    def status(self) -> str:
        """ok, partial or failed."""
        return str(self.manifest["status"])

    @cached_property
    def row(self) -> Mapping[str, Any]:
        """The manifest's facts for runs.csv."""
        row: Mapping[str, Any] = self.manifest["row"]
        return row

    def read(self) -> list[JournalRow]:
        """The captions in the order of the split, read now; none for a run that failed."""
        return Journal(self.folder / "captions.jsonl").latest() if self.status != "failed" else []

    @property
    def control(self) -> str:
        """The control that speaks in it, "blank" for a captioner on grey pictures; empty for every other run."""
        return str(self.row.get("control") or "")

    @cached_property
    def rows(self) -> list[JournalRow]:
        """The same, kept."""
        return self.read()

    @cached_property
    def protocols(self) -> dict[str, Mapping[str, Any]]:
        """Protocol name -> what `capbench score` recorded for this run; empty for a run that failed."""
        if self.status == "failed":
            return {}
        files = sorted((self.folder / "scores").glob("*.json"))
        return {path.stem: read_json(path) for path in files}

    @cached_property
    def _scores(self) -> dict[str, ScoreFile]:
        return {}

    def scores(self, column: Mapping[str, Any]) -> ScoreFile:
        """The file behind a scored column, read once. Raises Damaged."""
        name = str(column["file"])
        if name not in self._scores:
            self._scores[name] = read_scores(self.folder / "scores" / name, self.kept)
        return self._scores[name]

    def values(self, column: Mapping[str, Any]) -> Array:
        """Per-sample values of a scored column, NaN where there is none. Raises Damaged."""
        return self.scores(column).values[column["value"]]

    def truncated(self, column: Mapping[str, Any]) -> int:
        """How many pairs a metric could not read to the end; 0 for a metric without a limit."""
        counts = self.scores(column).values.get("truncated", np.zeros(0)) if "file" in column else np.zeros(0)
        return int((counts > 0).sum())


def find_runs(results: Path, kept: MutableMapping[str, bytes] | None = None) -> list[Run]:
    """All runs with a manifest, by folder name. A damaged manifest becomes a failed run with the reason."""
    found = (_record(folder, kept) for folder in find_folders(results / "runs"))
    return [run for run in found if run]


def find_fits(results: Path) -> list[Run]:
    """The same of fits."""
    found = (_record(folder) for folder in find_folders(results / "fits"))
    return [fit for fit in found if fit]


def _record(folder: Path, kept: MutableMapping[str, bytes] | None = None) -> Run | None:
    try:
        manifest = read_manifest(folder)
    except Damaged as error:
        manifest = {"status": "failed", "row": {"run_id": short_id(folder), "error": str(error)}}
    return Run(folder, manifest, kept) if manifest is not None else None


def find_run(results: Path, text: str) -> Run:
    """A run by id, folder name, unambiguous prefix or path; by its fit's id where one run has it. Raises RequestError.

    Raises Damaged for a path to a damaged manifest.
    """
    return _find(results, text, fits=False)


def find_run_or_fit(results: Path, text: str) -> Run:
    """The same among runs and fits: where a name fits one of each, the run. Raises RequestError, Damaged."""
    return _find(results, text, fits=True)


def _find(results: Path, text: str, *, fits: bool) -> Run:
    if text and (manifest := read_manifest(Path(text))):
        if not fits and manifest.get("kind") == "fit":
            raise RequestError(f"{text}: expected a run, got a fit; `capbench ls` lists both")
        return Run(Path(text), manifest)
    runs, others = find_runs(results), find_fits(results) if fits else []
    names = [[(name, one) for one in some for name in _names(one)] for some in (runs, others)]
    used = [(str(run.row.get("fit_id")), run) for run in runs]  # a zero-shot fit has no folder of its own
    return pick(text, [*names, used], _label)


def _names(record: Run) -> tuple[str, ...]:
    return record.folder.name, short_id(record.folder), _label(record)


def _label(record: Run) -> str:
    return f"{record.folder.parent.name}/{record.folder.name}"


def short_id(folder: Path) -> str:
    """The hash at the end of a folder's name."""
    return folder.name.rpartition("-")[2]
