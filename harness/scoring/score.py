"""Scores per sample: every metric sees each distinct pair once, over all runs and protocols together."""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import (
    CapBenchError,
    Combined,
    ImageError,
    ImageSource,
    Metric,
    Pair,
    RequestError,
    Score,
    ScoreProtocol,
)
from harness.machine.memory import release
from harness.machine.terminal import bar, errors
from harness.store import SHORT, csv_text, digest, file_digest, read_json, through_json, write_json, write_text
from harness.store.cache import Cache
from harness.store.journal import JournalRow, texts_digest
from harness.store.runs import Run

CHUNK = 2048  # pairs given to a metric at once, and kept once they are scored: an interrupted scoring loses no more

Images = Mapping[str, ImageSource]
Pictures = Callable[[Run], Images]
"""The picture of each id of a run, asked for only when a metric looks at pictures. Raises CapBenchError."""


@dataclass(frozen=True)
class Column:
    """A leaderboard column: the metric behind it and which of its values it shows."""

    name: str
    metric: Metric
    value: str


@dataclass(frozen=True)
class Scheme:
    """A protocol with its columns, built. Raises RequestError where it cannot be put to use."""

    protocol: ScoreProtocol
    columns: Sequence[Column]

    def __post_init__(self) -> None:
        """Check that no average mixes columns where more is better with such where less is."""
        better = {column.name: column.metric.higher_is_better for column in self.columns}
        for name, parts in self.protocol.averages.items():
            kinds = {better[part]: part for part in parts if part in better}
            if len(kinds) > 1:
                raise RequestError(
                    f"protocol {self.protocol.name}: averages.{name}: expected columns of one direction, got "
                    f"{kinds[True]}, where more is better, and {kinds[False]}, where less is; average each kind apart"
                )
            if kinds:
                better[name] = next(iter(kinds))


@dataclass(frozen=True)
class Job:
    """What all metrics of one scoring work on. pictures: None where there are none to look at."""

    runs: Sequence[Run]
    pictures: Pictures | None
    device: str
    results: Path
    cache: Cache

    def obstacle(self, metric: Metric) -> str | None:
        """Why a metric cannot run at all, and what helps."""
        if "image" in metric.needs and self.pictures is None:
            return "it looks at the pictures: add images=FOLDER with <id>.jpg or <id>.png"
        return metric.missing()


@dataclass(frozen=True)
class Compared:
    """One row as a metric sees it: a pair with its key, or the score of a row that cannot be compared."""

    key: str
    pair: Pair | None
    score: Score | None = None


@dataclass
class Scoring:
    """What scoring ended with. unfilled: column -> why it has no values; failed: metric -> its error."""

    unfilled: dict[str, str]
    failed: dict[str, str]


@contextmanager
def _few_collections() -> Iterator[None]:
    """What is imported by now is looked at no more (torch's objects take 0.3 s), and new objects more rarely.

    MedCAT makes so many that a fifth of its time went into looking for cycles among them.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_few_collections()
def score(
    runs: Sequence[Run], schemes: Sequence[Scheme], device: str, results: Path, pictures: Pictures | None = None
) -> Scoring:
    """Fill missing score files and write each run's `scores/<protocol>.json`.

    Several protocols may share a metric: it runs once. A metric that fails leaves its columns blank and stops no other.
    pictures: of the runs; without them a metric that looks at pictures cannot run.
    """
    ended = Scoring({}, {})
    entries: dict[str, list[dict[str, Any]] | str] = {}
    job = Job(runs, pictures, device, results, Cache(results / "cache"))
    for column in (column for scheme in schemes for column in scheme.columns):
        reason = job.obstacle(column.metric)
        key = reason or column.metric.signature()
        if key not in entries:
            entries[key] = reason or _shielded(job, column.metric, ended)
        found = entries[key]
        if isinstance(found, str):
            ended.unfilled[column.name] = found
    job.cache.close()
    for scheme in schemes:
        for place, run in enumerate(runs):
            columns = {column.name: _entry(job, column, entries, place) for column in scheme.columns}
            _write_record(run, scheme.protocol, columns)
    return ended


def _entry(job: Job, column: Column, entries: Mapping[str, list[dict[str, Any]] | str], place: int) -> dict[str, Any]:
    """A column's entry in the record of one run, with its formula where it is no mean over samples."""
    metric = column.metric
    found = entries[job.obstacle(metric) or metric.signature()]
    if isinstance(found, str):
        return {"missing": found}
    entry = {**found[place], "value": column.value, "signature": metric.signature()}
    entry["higher_is_better"] = metric.higher_is_better
    if isinstance(metric, Combined) and column.value in metric.combine:
        entry["combine"] = [asdict(ratio) for ratio in metric.combine[column.value]]
    return entry


def _write_record(run: Run, protocol: ScoreProtocol, columns: Mapping[str, Mapping[str, Any]]) -> None:
    record = {"protocol": asdict(protocol), "columns": columns, "texts": texts_digest(run.rows)}
    target = run.folder / "scores" / f"{protocol.name}.json"
    if not target.is_file() or read_json(target) != through_json(record):
        write_json(target, record)


def _shielded(job: Job, metric: Metric, ended: Scoring) -> list[dict[str, Any]] | str:
    """One metric over all runs, or why it failed: its error is kept, whatever it is, and the other metrics go on."""
    try:
        return _score_metric(job, metric)
    except Exception as error:  # noqa: BLE001 - whatever a metric's library raises
        log = job.results / "logs" / f"score-{metric.name}.log"
        write_text(log, "".join(traceback.format_exception(error)))
        first = (str(error).strip().splitlines() or [""])[0]
        ended.failed[metric.name] = f"failed: {type(error).__name__}: {first}"
        errors.print(f"capbench: {metric.name} {ended.failed[metric.name]}; the whole error: {log}")
        return ended.failed[metric.name]


def _score_metric(job: Job, metric: Metric) -> list[dict[str, Any]]:
    """One file per run; only what neither a file nor the cache holds is computed."""
    runs, signature = job.runs, metric.signature()
    compared = [_compared(run, metric, signature, job.pictures) for run in runs]
    files = [
        run.folder / "scores" / f"{metric.name}-{digest([row.key for row in rows])[:SHORT]}.csv"
        for run, rows in zip(runs, compared, strict=True)
    ]
    todo = [place for place, file in enumerate(files) if not _kept(runs[place], file)]
    for references, places in _by_corpus(runs, metric, todo).items():
        wanted = {row.key: row.pair for place in places for row in compared[place] if row.pair is not None}
        scores = _scores(job, metric, wanted, list(references))
        for place in places:
            found = [row.score or scores[row.key] for row in compared[place]]
            write_text(files[place], _score_csv(metric, runs[place].rows, found))
    return [{"file": file.name, "sha256": file_digest(file)} for file in files]


def _recorded(run: Run) -> dict[str, str]:
    """Score file -> its sha256 in the records of earlier scorings. Raises Damaged."""
    records = [read_json(path) for path in sorted((run.folder / "scores").glob("*.json"))]
    columns = [column for record in records for column in record["columns"].values()]
    return {column["file"]: column["sha256"] for column in columns if "file" in column}


def _kept(run: Run, file: Path) -> bool:
    """Whether a score file is there as it was recorded. One that no record knows is of an interrupted scoring."""
    if not file.is_file():
        return False
    expected = _recorded(run).get(file.name)
    if expected is not None and file_digest(file) != expected:
        errors.print(f"{file}: edited or damaged; made again")
        return False
    return expected is not None


def _compared(run: Run, metric: Metric, signature: str, pictures: Pictures | None) -> list[Compared]:
    corpus = digest([row.reference for row in run.rows]) if "corpus" in metric.needs else ""
    images = pictures(run) if "image" in metric.needs and pictures is not None else None
    return [_row(row, signature, corpus, images) for row in run.rows]


def _row(row: JournalRow, signature: str, corpus: str, images: Images | None) -> Compared:
    known = [signature, corpus, row.reference, row.caption]
    if row.status != "ok" or row.caption is None:
        return Compared(digest([*known, row.id]), None, Score({}, row.error or "no caption"))
    if images is None:
        return Compared(digest(known), Pair(row.reference, row.caption))
    if row.id not in images:
        return Compared(digest([*known, row.id]), None, Score({}, "no picture of this id"))
    image = images[row.id]
    try:
        return Compared(digest([*known, image.digest()]), Pair(row.reference, row.caption, image))
    except ImageError as error:
        return Compared(digest([*known, row.id]), None, Score({}, f"the picture cannot be read: {error}"))


def _by_corpus(runs: Sequence[Run], metric: Metric, places: Sequence[int]) -> dict[tuple[str, ...], list[int]]:
    """Places of the runs by the references that a value depends on besides its own; none for most metrics."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place in places:
        corpus = tuple(row.reference for row in runs[place].rows) if "corpus" in metric.needs else ()
        groups.setdefault(corpus, []).append(place)
    return groups


def _scores(job: Job, metric: Metric, pairs: Mapping[str, Pair], references: Sequence[str]) -> dict[str, Score]:
    """Scores by key, from the cache or from the metric. Failures are not kept: the next time may be better."""
    found = {key: Score(json.loads(value)) for key, value in job.cache.scores.read(list(pairs)).items()}
    # Pairs with one reference, or of like length, stand together: less padding, and a reference is read once.
    rest = sorted(
        pairs.keys() - found.keys(),
        key=lambda key: (len(pairs[key].reference), pairs[key].reference, len(pairs[key].candidate), key),
    )
    if rest:
        metric = copy(metric)  # its weights end with it: those of two metrics need not fit into memory together
        metric.load(job.device, job.cache.features)
    with bar(f"score {metric.name}", len(pairs), len(found)) as advance:
        for start in range(0, len(rest), CHUNK):
            part = rest[start : start + CHUNK]
            new = dict(zip(part, metric.score([pairs[key] for key in part], references), strict=True))
            unknown = sorted({name for made in new.values() for name in made.values} - set(metric.values))
            if unknown:
                raise CapBenchError(f"scores have {', '.join(unknown)}; `values` has {', '.join(metric.values)}")
            good = {key: json.dumps(dict(made.values)).encode() for key, made in new.items() if made.values}
            job.cache.scores.write(good)
            found |= new
            advance(len(part))
    del metric
    release()
    return found


def _score_csv(metric: Metric, rows: Sequence[JournalRow], scores: Sequence[Score]) -> str:
    numbers = [
        [repr(float(one.values[name])) if name in one.values else "" for one in scores] for name in metric.values
    ]
    columns = [[row.id for row in rows], *numbers, [one.reason for one in scores]]
    return csv_text(["id", *metric.values, "reason"], zip(*columns, strict=True))
