"""The captions of a control, batch by batch onto the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.contracts import Control, ControlCaption, Generated, Query, Sample
from harness.machine.terminal import bar
from harness.store import Journal, JournalRow
from harness.store.cache import Cache

AT_ONCE = 64  # samples: nothing of a batch depends on the others in it


def caption_by_control(
    control: Control, train: Sequence[Sample], test: Sequence[Sample], journal: Journal, device: str, kept: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Caption every sample without an ok row, as `generate` does: failed rows stay, and are tried again later.

    kept: folder of what was computed from the same pictures. Returns what the control has learnt, with the number of
    test pictures that it knows from training where it looks for them, and what the learning cost.
    """
    done = {row.id for row in journal.rows() if row.status == "ok"}
    todo = [sample for sample in test if sample.id not in done]
    cache, start = Cache(kept), time.perf_counter()
    learnt = dict(control.learn(train, device, cache.features))
    costs = {"seconds": time.perf_counter() - start, "samples": len(train)}
    with bar(f"captions {control.name}", len(test), len(done)) as advance:
        for place in range(0, len(todo), AT_ONCE):
            batch = todo[place : place + AT_ONCE]
            journal.append(_rows(control, batch))
            advance(len(batch))
    cache.close()
    known = [row.duplicate for row in journal.latest() if row.duplicate is not None]
    return learnt | ({"duplicates": sum(known)} if known else {}), costs


def _rows(control: Control, batch: Sequence[Sample]) -> Iterator[JournalRow]:
    """Journal rows like a captioner's, which is asked nothing."""
    start = time.perf_counter()
    answers = control.caption(batch)
    seconds = (time.perf_counter() - start) / len(batch)
    for sample, said in zip(batch, answers, strict=True):
        yield _row(Query(sample, ""), said).taking(seconds)


def _row(query: Query, said: ControlCaption) -> JournalRow:
    if said.caption is None:
        return JournalRow.failed(query, said.reason)
    return JournalRow.ok(query, Generated(said.caption, tokens=0, truncated=False), said.facts)
