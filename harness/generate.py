"""Captions of one split, batch by batch onto the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from harness.contracts import Captioner, Decoding, Example, Generated, ImageError, Query
from harness.progress import bar
from harness.store import Journal


def generate(captioner: Captioner, queries: Sequence[Query], decoding: Decoding, journal: Journal) -> None:
    """Caption every query without an ok row. A picture that cannot be read becomes a failed row with its reason.

    Failed rows are tried again by the next attempt; the last row of an id counts.
    A row's `seconds` is its share of its batch, so that the cost of a pass is known however often it was interrupted.
    """
    done = {row["id"] for row in journal.rows() if row["status"] == "ok"}
    todo = [query for query in queries if query.sample.id not in done]
    captioner.model.eval()
    with bar(f"captions {captioner.name}", len(queries), len(done)) as advance:
        for batch in _batches(todo, decoding.batch_size):
            start = time.perf_counter()
            rows = _caption(captioner, batch, decoding)
            share = round((time.perf_counter() - start) / len(batch), 6)
            journal.append({**row, "seconds": share} for row in rows)
            advance(len(batch))


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
    made = {"caption": output.caption, "tokens": output.tokens, "truncated": output.truncated}
    return {"id": query.sample.id, "status": "ok", **made, **_facts(query)}


def _failed(query: Query, reason: str) -> dict[str, Any]:
    return {"id": query.sample.id, "status": "failed", "caption": None, "error": reason, **_facts(query)}


def _facts(query: Query) -> dict[str, Any]:
    """What scoring and the tables need later, so that they need no dataset: the row stands for itself."""
    sample = query.sample
    known = {"reference": sample.caption, "modality": sample.modality, "concepts": list(sample.concepts)}
    return {"prompt": query.prompt, **known}
