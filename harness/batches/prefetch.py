"""Prefetching: a thread reads and decodes the pictures of the next batch while the model works on this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from harness.contracts import Query

T = TypeVar("T")


class Ahead(Generic[T]):
    """`make` of each query, begun by `expect` and fetched by `take`. Decoders leave the interpreter lock.

    One thread: decoding keeps ahead of every captioner with it, and the model's own threads keep their cores.
    """

    def __init__(self, make: Callable[[Query], T]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._begun: dict[str, Future[T]] = {}

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def expect(self, queries: Sequence[Query]) -> None:
        """These are wanted soon, in this order; what was expected and is not among them is dropped."""
        wanted = {query.sample.id: query for query in queries}
        for name in self._begun.keys() - wanted.keys():
            self._begun.pop(name).cancel()
        for name, query in wanted.items():
            if name not in self._begun:
                self._begun[name] = self._pool.submit(self._make, query)

    def take(self, query: Query) -> T:
        """What `make` returns or raises; made now where it was not expected."""
        begun = self._begun.pop(query.sample.id, None)
        return begun.result() if begun else self._make(query)
