"""samples.csv of every run: captions and all scores side by side, written again only where something changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.store import Damaged, csv_text, digest, file_digest, read_json, write_json, write_text
from harness.store.runs import Run
from harness.tables.columns import SAMPLE_COLUMNS
from harness.tables.csv_files import number_cells, text_cells

FORM = 1  # of the file; raised with any change of what is in it, so that no old one is kept
KEPT = "cache/samples.json"


def refresh(runs: Iterable[Run], results: Path) -> None:
    """Bring samples.csv of all runs that have captions up to date. Raises Damaged on a damaged journal.

    A file stays as it is when its own digest and those of all that it is made from are the ones noted when it was
    written: nothing is taken for unchanged by its date. Losing the notes costs time, never a result.
    """
    known = _known(results / KEPT)
    there = [run for run in runs if run.status != "failed" and (run.folder / "captions.jsonl").is_file()]
    made = {run.folder.name: _refresh(run, known.get(run.folder.name)) for run in there}
    if made != known:
        write_json(results / KEPT, made)


def _known(path: Path) -> Mapping[str, Any]:
    try:
        known = read_json(path) if path.is_file() else {}
    except Damaged:
        return {}
    return known if isinstance(known, dict) else {}


def _refresh(run: Run, before: Any) -> list[str]:
    """The digests of what the file is made from and of the file."""
    target = run.folder / "samples.csv"
    columns = [
        [name, run.scores(column).digest, column["value"]] for name, column in _columns(run).items() if "file" in column
    ]
    parts = digest([FORM, SAMPLE_COLUMNS, list(_columns(run)), columns, file_digest(run.folder / "captions.jsonl")])
    if target.is_file() and before == [parts, file_digest(target)]:
        return [*before]
    text = samples_csv(run)
    write_text(target, text, durable=False)
    return [parts, hashlib.sha256(text.encode()).hexdigest()]


def _columns(run: Run) -> dict[str, Mapping[str, Any]]:
    return {name: column for record in run.protocols.values() for name, column in record["columns"].items()}


def samples_csv(run: Run) -> str:
    """One row per sample, then one column per metric of all protocols; numbers and texts as in every other table."""
    rows, columns = run.read(), _columns(run)
    unfilled = np.full(len(rows), np.nan)
    texts = [text_cells(name, [getattr(row, name) for row in rows]) for name in SAMPLE_COLUMNS]
    numbers = [number_cells(run.values(c) if "file" in c else unfilled) for c in columns.values()]
    return csv_text([*SAMPLE_COLUMNS, *columns], zip(*texts, *numbers, strict=True))
