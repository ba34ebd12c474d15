"""Captions of one split, batch by batch onto the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from harness.contracts import Captioner, Decoding, Example, Generated, ImageError, Query
from harness.progress import bar
from harness.store import Journal


@dataclass(frozen=True)
class Pass:
    """What this attempt did: seconds of generation and the captions made in them (finished ones are not repeated)."""

    seconds: float
    captions: int


def generate(captioner: Captioner, queries: Sequence[Query], decoding: Decoding, journal: Journal) -> Pass:
    """Caption every query that the journal lacks. A picture that cannot be read becomes a failed row with its reason."""
    done = {row["id"] for row in journal.rows()}
    todo = [query for query in queries if query.sample.id not in done]
    captioner.model.eval()
    start = time.perf_counter()
    with bar(f"captions {captioner.name}", len(queries), len(done)) as advance:
        for batch in _batches(todo, decoding.batch_size):
            journal.append(_caption(captioner, batch, decoding))
            advance(len(batch))
    return Pass(time.perf_counter() - start, len(todo))


def _batches(queries: Sequence[Query], size: int) -> Iterator[list[Query]]:
    rest = iter(queries)
    while batch := list(islice(rest, size)):
        yield batch


def _caption(captioner: Captioner, batch: Sequence[Query], decoding: Decoding) -> list[dict[str, Any]]:
    """One journal row per query, in the order of the batch."""
    rows: dict[str, dict[str, Any]] = {}
    readable: list[tuple[Query, Example]] = []
    for query in batch:
        try:
            readable.append((query, Example(tuple(i.load() for i in query.sample.images), query.prompt)))
        except ImageError as error:
            rows[query.sample.id] = _failed(query, str(error))
    if readable:
        outputs = captioner.generate([example for _, example in readable], decoding)
        for (query, _), output in zip(readable, outputs, strict=True):
            rows[query.sample.id] = _ok(query, output)
    return [rows[query.sample.id] for query in batch]


def _ok(query: Query, output: Generated) -> dict[str, Any]:
    return {
        "id": query.sample.id,
        "status": "ok",
        "caption": output.caption,
        "tokens": output.tokens,
        "truncated": output.truncated,
        "prompt": query.prompt,
    }


def _failed(query: Query, reason: str) -> dict[str, Any]:
    return {"id": query.sample.id, "status": "failed", "caption": None, "error": reason, "prompt": query.prompt}
