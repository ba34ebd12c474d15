"""Captions of one split, batch by batch onto the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any

from harness import memory, ranks
from harness.contracts import Captioner, Decoding, Example, Generated, ImageError, Query
from harness.progress import bar
from harness.store import Journal

Row = dict[str, Any]


def generate(
    captioner: Captioner,
    queries: Sequence[Query],
    decoding: Decoding,
    journal: Journal,
    limit: memory.Limit | None = None,
) -> None:
    """Caption every query without an ok row. A picture that cannot be read becomes a failed row with its reason.

    Failed rows are tried again by the next attempt; the last row of an id counts.
    A row's `seconds` is its share of its batch on its process, so that the cost of a pass is known however often it was
    interrupted and however many processes share it.
    A batch that does not fit into memory is cut in halves, and so are all later ones. Raises DoesNotFit.

    Of several processes each takes one batch of a round; process 0 writes the rows in the order of the queries.
    """
    done = ranks.once(lambda: {row["id"] for row in journal.rows() if row["status"] == "ok"})
    limit = limit or memory.Limit()
    todo = [query for query in queries if query.sample.id not in done]
    size = ranks.once(lambda: limit.of(decoding.batch_size))
    made: dict[str, Row] = {}  # finished before their turn: they are written after their predecessors
    captioner.model.eval()
    with bar(f"captions {captioner.name}", len(queries), len(done)) as advance:
        while todo:
            batches = list(_round(todo, made, size))
            parts = ranks.gather(_attempt(captioner, batches[ranks.rank()], decoding))
            made |= {row["id"]: row for part in parts for row in part or ()}
            ready = _in_turn(todo, made)
            if ready and ranks.first():
                journal.append(ready)
            todo = todo[len(ready) :]
            advance(len(ready))
            size = _smaller(size, batches, parts, limit)


def _round(todo: Sequence[Query], made: Mapping[str, Row], size: int) -> Iterator[list[Query]]:
    """The next batch of each process; the last ones may be empty."""
    rest = (query for query in todo if query.sample.id not in made)
    for _ in range(ranks.world()):
        yield list(islice(rest, size))


def _in_turn(todo: Sequence[Query], made: dict[str, Row]) -> list[Row]:
    """Take out the rows that no unfinished query precedes."""
    ids = [query.sample.id for query in takewhile(lambda query: query.sample.id in made, todo)]
    return [made.pop(id_) for id_ in ids]


def _smaller(
    size: int, batches: Sequence[Sequence[Query]], parts: Sequence[Sequence[Row] | None], limit: memory.Limit
) -> int:
    """The size of the next batches, the same on every process: smaller when one of these did not fit."""
    failed = [batch for batch, part in zip(batches, parts, strict=True) if part is None]
    if not failed:
        return size
    smallest = min(failed, key=len)
    smaller = limit.lower(len(smallest), f"caption of {smallest[0].sample.id}")
    if ranks.first():
        limit.keep()
    return smaller


def _attempt(captioner: Captioner, batch: Sequence[Query], decoding: Decoding) -> list[Row] | None:
    """The rows of one batch; None when it does not fit into memory, which is free again then."""
    start = time.perf_counter()
    try:
        rows = _caption(captioner, batch, decoding)
    except (MemoryError, RuntimeError) as error:
        if not memory.is_shortage(error):
            raise
    else:
        seconds = time.perf_counter() - start
        return [{**row, "seconds": round(seconds / len(batch), 6)} for row in rows]
    memory.release()
    return None


def _caption(captioner: Captioner, batch: Sequence[Query], decoding: Decoding) -> list[Row]:
    """One journal row per query, in the order of the batch."""
    rows: dict[str, Row] = {}
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


def _ok(query: Query, output: Generated) -> Row:
    made = {"caption": output.caption, "tokens": output.tokens, "truncated": output.truncated}
    return {"id": query.sample.id, "status": "ok", **made, **_facts(query)}


def _failed(query: Query, reason: str) -> Row:
    return {"id": query.sample.id, "status": "failed", "caption": None, "error": reason, **_facts(query)}


def _facts(query: Query) -> dict[str, Any]:
    """What scoring needs later, so that it needs no dataset: the row stands for itself."""
    return {"prompt": query.prompt, "reference": query.sample.caption, "modality": query.sample.modality}
