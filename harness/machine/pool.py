"""A pool of processes: results in order, what is under way bounded, workers that end with their parent."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from harness.contracts import CapBenchError, RequestError

AHEAD = 2  # tasks under way for each worker

Task = TypeVar("Task")
Result = TypeVar("Result")


def count(workers: int | None) -> int:
    """The asked number of processes, one for each core where none was asked for. Raises RequestError."""
    if workers is not None and workers < 0:
        raise RequestError(f"workers={workers}: expected 0 or more")
    return (os.cpu_count() or 1) if workers is None else workers


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """The result of each task; in this very process for 0 workers. Raises CapBenchError when a worker dies."""
    if workers == 0:
        yield from map(work, tasks)
        return
    waiting = iter(tasks)
    # spawn: a fork of a process with threads of Arrow may hang
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_attend) as pool:
        under_way: deque[Future[Result]] = deque()
        try:
            while True:
                for task in islice(waiting, workers * AHEAD - len(under_way)):
                    under_way.append(pool.submit(work, task))
                if not under_way:
                    return
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise CapBenchError(
                "a worker process died, most likely for want of memory; what was done is kept, "
                "repeat the command with workers=1"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _attend() -> None:
    """A worker leaves an interrupt to its parent, and ends when the parent is killed, which tells it nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_parent()


def end_with_the_parent() -> None:
    """Watch in a thread until the process that started this one is gone, and end then, whatever is under way."""
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
