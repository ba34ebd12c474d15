"""Captions of one split, batch by batch onto the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from harness.batches.features import Features
from harness.batches.lengths import longest_first
from harness.batches.limit import Limit
from harness.batches.prefetch import Ahead
from harness.contracts import Captioner, Decoding, Engine, Example, ImageError, Query
from harness.machine import memory, ranks
from harness.machine.terminal import bar
from harness.store import Journal, JournalRow


def generate(
    captioner: Captioner,
    queries: Sequence[Query],
    decoding: Decoding,
    journal: Journal,
    limit: Limit | None = None,
    features: Features | None = None,
    engine: Engine | None = None,
) -> None:
    """Caption every query without an ok row. A picture that cannot be read becomes a failed row with its reason.

    Failed rows are tried again by the next attempt; the last row of an id counts.
    A row's `seconds` is its share of its batch on its process, so that the cost of a pass is known however often it was
    interrupted and however many processes share it.
    A batch that does not fit into memory is cut in halves, and so are all later ones. Raises DoesNotFit.

    Batches are of rows alike, the longest first. Of several processes each takes one batch of a round; process 0 writes
    the rows of each round, and puts them into the order of the queries when all are there.
    engine: what makes the captions, the captioner itself where none is given.
    """
    limit = limit or Limit()
    todo = _unfinished(captioner, queries, journal)
    size = ranks.once(lambda: limit.of(decoding.batch_size))
    captioner.model.eval()
    read = partial(_read, features=features)
    caption = partial(_caption, engine or captioner.generate, decoding, features)
    with bar(f"captions {captioner.name}", len(queries), len(queries) - len(todo)) as advance, Ahead(read) as ahead:
        while todo:
            batches = [todo[start * size : (start + 1) * size] for start in range(2 * ranks.world())]
            mine, next_mine = batches[ranks.rank() :: ranks.world()]
            ahead.expect([*mine, *next_mine])
            batches = batches[: ranks.world()]
            parts = ranks.gather(memory.unless_short(partial(caption, mine, ahead)))
            rows = [row for part in parts for row in part or ()]
            if rows and ranks.first():
                journal.append(rows)
            failed = [batch for batch, part in zip(batches, parts, strict=True) if part is None]
            todo = [query for batch in failed for query in batch] + todo[size * ranks.world() :]
            advance(len(rows))
            size = _smaller(size, failed, limit)
    if ranks.first():
        journal.put_in_order([query.sample.id for query in queries])


def _unfinished(captioner: Captioner, queries: Sequence[Query], journal: Journal) -> list[Query]:
    """The queries without an ok row, the longest first; process 0 reads the journal and the lengths."""
    done = ranks.once(lambda: {row.id for row in journal.rows() if row.status == "ok"})
    todo = {query.sample.id: query for query in queries if query.sample.id not in done}
    order = ranks.once(lambda: [query.sample.id for query in longest_first(captioner, list(todo.values()))])
    return [todo[id_] for id_ in order]


def _smaller(size: int, failed: Sequence[Sequence[Query]], limit: Limit) -> int:
    """The size of the next batches, the same on every process: smaller when some did not fit."""
    if not failed:
        return size
    smallest = min(failed, key=len)
    smaller = limit.lower(len(smallest), f"caption of {smallest[0].sample.id}")
    if ranks.first():
        limit.keep()
    return smaller


def _caption(
    engine: Engine, decoding: Decoding, features: Features | None, batch: Sequence[Query], ahead: Ahead[Example]
) -> list[JournalRow]:
    """One journal row per query, in the order of the batch."""
    start = time.perf_counter()
    rows: dict[str, JournalRow] = {}
    readable: list[tuple[Query, Example]] = []
    for query in batch:
        try:
            example = ahead.take(query)
            readable.append((query, features.encode(query, example) if features and example.seen is None else example))
        except ImageError as error:
            rows[query.sample.id] = JournalRow.failed(query, str(error))
    if readable:
        outputs = engine([example for _, example in readable], decoding)
        for (query, _), output in zip(readable, outputs, strict=True):
            rows[query.sample.id] = JournalRow.ok(query, output)
    seconds = time.perf_counter() - start
    return [rows[query.sample.id].taking(seconds / len(batch)) for query in batch]


def _read(query: Query, features: Features | None) -> Example:
    """What the captioner gets: what it has made of the pictures before, or else the pictures."""
    known = features.known(query) if features else None
    if known is not None:
        return Example((), query.prompt, seen=known)
    return Example(tuple(image.load() for image in query.sample.images), query.prompt)
