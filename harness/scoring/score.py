"""Scores per sample: every metric sees each distinct pair once, over all runs and protocols together."""

from __future__ import annotations

import csv
import gc
import io
import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.contracts import ImageError, ImageSource, Metric, Pair, Score, ScoreProtocol
from harness.machine.memory import release
from harness.machine.terminal import bar, errors
from harness.store import SHORT, digest, file_digest, read_json, write_json, write_text
from harness.store.cache import Cache
from harness.store.journal import JournalRow, texts_digest

CHUNK = 2048  # pairs given to a metric at once, and kept once they are scored: an interrupted scoring loses no more

Images = Mapping[str, ImageSource]


@dataclass(frozen=True)
class Scorable:
    """The rows of one run and the folder its scores go to. A row: id, status, reference, caption.

    images: the picture of each id, asked for only when a metric looks at pictures; None where there are none.
    Raises CapBenchError.
    """

    folder: Path
    rows: Sequence[JournalRow]
    images: Callable[[], Images] | None = None

    @cached_property
    def recorded(self) -> dict[str, str]:
        """Score file -> its sha256 in the records of earlier scorings. Raises Damaged."""
        records = [read_json(path) for path in sorted((self.folder / "scores").glob("*.json"))]
        columns = [column for record in records for column in record["columns"].values()]
        return {column["file"]: column["sha256"] for column in columns if "file" in column}


@dataclass(frozen=True)
class Column:
    """A leaderboard column: the metric behind it and which of its values it shows."""

    name: str
    metric: Metric
    value: str


@dataclass(frozen=True)
class Plan:
    """A protocol with its columns, built."""

    protocol: ScoreProtocol
    columns: Sequence[Column]


@dataclass(frozen=True)
class Compared:
    """One row as a metric sees it: a pair with its key, or the score of a row that cannot be compared."""

    key: str
    pair: Pair | None
    score: Score | None = None


@dataclass
class Scoring:
    """What scoring ended with. blank: column -> why it has no values; failed: metric -> its error."""

    blank: dict[str, str]
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
def score(runs: Sequence[Scorable], plans: Sequence[Plan], device: str, results: Path) -> Scoring:
    """Fill missing score files and write each run's `scores/<protocol>.json`.

    Several protocols may share a metric: it runs once. A metric that fails leaves its columns blank and stops no other.
    """
    ended = Scoring({}, {})
    entries: dict[str, list[dict[str, Any]] | str] = {}
    cache = Cache(results / "cache")
    for column in (column for plan in plans for column in plan.columns):
        reason = _obstacle(runs, column.metric)
        key = reason or column.metric.signature()
        if key not in entries:
            entries[key] = reason or _shielded(runs, column.metric, device, cache, results, ended)
        found = entries[key]
        if isinstance(found, str):
            ended.blank[column.name] = found
    cache.close()
    for plan in plans:
        for place, run in enumerate(runs):
            _write_record(run, plan, [_entry(runs, column, entries, place) for column in plan.columns])
    return ended


def json_plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _obstacle(runs: Sequence[Scorable], metric: Metric) -> str | None:
    """Why a metric cannot run at all, and what helps."""
    if "image" in metric.needs and all(run.images is None for run in runs):
        return "it looks at the pictures: add images=FOLDER with <id>.jpg or <id>.png"
    return metric.missing()


def _entry(
    runs: Sequence[Scorable], column: Column, entries: Mapping[str, list[dict[str, Any]] | str], place: int
) -> dict[str, Any]:
    """A column's entry in the record of one run."""
    found = entries[_obstacle(runs, column.metric) or column.metric.signature()]
    if isinstance(found, str):
        return {"missing": found}
    facts = {"signature": column.metric.signature(), "higher_is_better": column.metric.higher_is_better}
    return {**found[place], "value": column.value, **facts}


def _write_record(run: Scorable, plan: Plan, entries: Sequence[Mapping[str, Any]]) -> None:
    columns = {column.name: entry for column, entry in zip(plan.columns, entries, strict=True)}
    record = {"protocol": asdict(plan.protocol), "columns": columns, "texts": texts_digest(run.rows)}
    target = run.folder / "scores" / f"{plan.protocol.name}.json"
    if not target.is_file() or read_json(target) != json_plain(record):
        write_json(target, record)


def _shielded(
    runs: Sequence[Scorable], metric: Metric, device: str, cache: Cache, results: Path, ended: Scoring
) -> list[dict[str, Any]] | str:
    """One metric over all runs, or why it failed: its error is kept, whatever it is, and the other metrics go on."""
    try:
        return _score_metric(runs, metric, device, cache)
    except Exception as error:  # noqa: BLE001 - whatever a metric's library raises
        log = results / "logs" / f"score-{metric.name}.log"
        write_text(log, "".join(traceback.format_exception(error)))
        first = (str(error).strip().splitlines() or [""])[0]
        ended.failed[metric.name] = f"failed: {type(error).__name__}: {first}"
        errors.print(f"capbench: {metric.name} {ended.failed[metric.name]}; the whole error: {log}", markup=False)
        return ended.failed[metric.name]


def _score_metric(runs: Sequence[Scorable], metric: Metric, device: str, cache: Cache) -> list[dict[str, Any]]:
    """One file per run; only what neither a file nor the cache holds is computed."""
    signature = metric.signature()
    compared = [_compared(run, metric, signature) for run in runs]
    files = [
        run.folder / "scores" / f"{metric.name}-{digest([row.key for row in rows])[:SHORT]}.csv"
        for run, rows in zip(runs, compared, strict=True)
    ]
    todo = [place for place, file in enumerate(files) if not _kept(runs[place], file)]
    for references, places in _by_corpus(runs, metric, todo).items():
        wanted = {row.key: row.pair for place in places for row in compared[place] if row.pair is not None}
        scores = _scores(metric, wanted, list(references), device, cache)
        for place in places:
            found = [row.score or scores[row.key] for row in compared[place]]
            write_text(files[place], _score_csv(metric, runs[place].rows, found))
    return [{"file": file.name, "sha256": file_digest(file)} for file in files]


def _kept(run: Scorable, file: Path) -> bool:
    """Whether a score file is there as it was recorded. One that no record knows is of an interrupted scoring."""
    if not file.is_file():
        return False
    expected = run.recorded.get(file.name)
    if expected is not None and file_digest(file) != expected:
        errors.print(f"{file}: edited or damaged; made again", markup=False)
        return False
    return expected is not None


def _compared(run: Scorable, metric: Metric, signature: str) -> list[Compared]:
    corpus = digest([row.reference for row in run.rows]) if "corpus" in metric.needs else ""
    images = None
    if "image" in metric.needs:
        images = run.images() if run.images else {}
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


def _by_corpus(runs: Sequence[Scorable], metric: Metric, places: Sequence[int]) -> dict[tuple[str, ...], list[int]]:
    """Places of the runs by the references that a value depends on besides its own; none for most metrics."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place in places:
        corpus = tuple(row.reference for row in runs[place].rows) if "corpus" in metric.needs else ()
        groups.setdefault(corpus, []).append(place)
    return groups


def _scores(
    metric: Metric, pairs: Mapping[str, Pair], references: Sequence[str], device: str, cache: Cache
) -> dict[str, Score]:
    """Scores by key, from the cache or from the metric. Failures are not kept: the next time may be better."""
    found = {key: Score(json.loads(value)) for key, value in cache.scores.read(list(pairs)).items()}
    # Pairs with one reference, or of like length, stand together: less padding, and a reference is read once.
    rest = sorted(
        pairs.keys() - found.keys(),
        key=lambda key: (len(pairs[key].reference), pairs[key].reference, len(pairs[key].candidate), key),
    )
    if rest:
        metric = copy(metric)  # its weights end with it: those of two metrics need not fit into memory together
        metric.load(device, cache.features)
    with bar(f"score {metric.name}", len(pairs), len(found)) as advance:
        for start in range(0, len(rest), CHUNK):
            part = rest[start : start + CHUNK]
            new = dict(zip(part, metric.score([pairs[key] for key in part], references), strict=True))
            good = {key: json.dumps(dict(made.values)).encode() for key, made in new.items() if made.values}
            cache.scores.write(good)
            found |= new
            advance(len(part))
    del metric
    release()
    return found


def _score_csv(metric: Metric, rows: Sequence[JournalRow], scores: Sequence[Score]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["id", *metric.values, "reason"])
    for row, result in zip(rows, scores, strict=True):
        cells = [repr(float(result.values[name])) if name in result.values else "" for name in metric.values]
        writer.writerow([row.id, *cells, result.reason])
    return buffer.getvalue()
