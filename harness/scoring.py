"""Scores per sample: every metric sees each distinct pair once, over all runs together."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import Metric, Pair, Score, ScoreProtocol
from harness.progress import bar
from harness.store import SHORT, digest, file_digest, read_json, write_json, write_text

CHUNK = 512  # pairs between two steps of the progress bar


@dataclass(frozen=True)
class Scorable:
    """The rows of one run and the folder its scores go to. A row: id, status, reference, caption."""

    folder: Path
    rows: Sequence[Mapping[str, Any]]

    def texts(self) -> str:
        """Hex digest of what a text metric sees of this run."""
        return digest([[row["id"], row["reference"], row["caption"]] for row in self.rows])


@dataclass(frozen=True)
class Column:
    """A leaderboard column: the metric behind it and which of its values it shows."""

    name: str
    metric: Metric
    value: str


def score(runs: Sequence[Scorable], columns: Sequence[Column], protocol: ScoreProtocol, device: str) -> dict[str, str]:
    """Fill missing score files and write each run's `scores/<protocol>.json`. Returns column -> why it is blank."""
    blank: dict[str, str] = {}
    entries: dict[str, list[dict[str, Any]]] = {}
    for column in columns:
        reason = column.metric.missing()
        if reason:
            blank[column.name] = reason
            entries[column.name] = [{"missing": reason}] * len(runs)
        else:
            entries[column.name] = _score_column(runs, column, device)
    for index, run in enumerate(runs):
        found = {name: rows[index] for name, rows in entries.items()}
        record = {"protocol": asdict(protocol), "columns": found, "texts": run.texts()}
        target = run.folder / "scores" / f"{protocol.name}.json"
        if not target.is_file() or read_json(target) != json_plain(record):
            write_json(target, record)
    return blank


def json_plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _score_column(runs: Sequence[Scorable], column: Column, device: str) -> list[dict[str, Any]]:
    """One metric over all runs: only runs without a file for this signature and these texts are computed."""
    metric, signature = column.metric, column.metric.signature()
    files = [run.folder / "scores" / f"{metric.name}-{digest([signature, run.texts()])[:SHORT]}.csv" for run in runs]
    todo = [(run, file) for run, file in zip(runs, files, strict=True) if not file.is_file()]
    if todo:
        metric.load(device, {})
    for references, group in _by_references(todo).items():
        _score_group(metric, list(references), group)
    facts = {"value": column.value, "signature": signature, "higher_is_better": metric.higher_is_better}
    return [{"file": file.name, "sha256": file_digest(file), **facts} for file in files]


def _by_references(
    todo: Sequence[tuple[Scorable, Path]],
) -> dict[tuple[str, ...], list[tuple[Scorable, Path]]]:
    """Runs on the same split share their references, and with them a metric's corpus statistics."""
    groups: dict[tuple[str, ...], list[tuple[Scorable, Path]]] = {}
    for run, file in todo:
        groups.setdefault(tuple(row["reference"] for row in run.rows), []).append((run, file))
    return groups


def _score_group(metric: Metric, references: list[str], group: Sequence[tuple[Scorable, Path]]) -> None:
    pairs = {
        (row["reference"], row["caption"]): Pair(row["reference"], row["caption"])
        for run, _ in group
        for row in run.rows
        if row["status"] == "ok"
    }
    keys = sorted(pairs, key=lambda key: (len(key[0]) + len(key[1]), key))  # alike lengths together: less padding
    scores: dict[tuple[str, str], Score] = {}
    with bar(f"score {metric.name}", len(keys)) as advance:
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            scores |= dict(zip(part, metric.score([pairs[k] for k in part], references), strict=True))
            advance(len(part))
    for run, file in group:
        write_text(file, _score_csv(metric, run.rows, scores))


def _score_csv(metric: Metric, rows: Sequence[Mapping[str, Any]], scores: Mapping[tuple[str, str], Score]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["id", *metric.values, "reason"])
    for row in rows:
        if row["status"] == "ok":
            result = scores[row["reference"], row["caption"]]
        else:
            result = Score({}, row.get("error") or "no caption")
        cells = [repr(float(result.values[name])) if name in result.values else "" for name in metric.values]
        writer.writerow([row["id"], *cells, result.reason])
    return buffer.getvalue()
