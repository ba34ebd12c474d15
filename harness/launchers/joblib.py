"""joblib: a bounded queue on this machine, or the cluster of a backend that joblib knows, such as dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.contracts import RequestError, Sweep
from harness.launchers import _process


class Joblib:
    """`jobs` cells at once, each in a fresh process of its own: joblib's workers are reused, and state would leak.

    backend "threading": the workers only wait for those processes. Another one starts them where its workers are.
    """

    def __init__(self, name: str, jobs: int | None, backend: str) -> None:
        self.name, self.jobs, self.backend = name, jobs, backend

    def prepare(self, modules: Sequence[str]) -> None:
        """Start the process that the cells are forked from."""
        _process.warm(modules)

    def launch(self, sweep: Sweep) -> Iterator[tuple[int, str | None]]:
        """In the order in which they end."""
        try:
            from joblib import Parallel, delayed
        except ImportError as error:
            raise RequestError("launcher=joblib: needs the package joblib: pip install joblib") from error
        pool = Parallel(self.jobs or sweep.width, backend=self.backend, return_as="generator_unordered")
        devices = [sweep.devices[n % len(sweep.devices)] if sweep.devices else None for n in range(len(sweep.tasks))]
        ended: Iterator[tuple[int, str | None]] = pool(
            delayed(alone)(sweep.work, place, task, device)
            for place, (task, device) in enumerate(zip(sweep.tasks, devices, strict=True))
        )
        yield from ended


def alone(
    work: Callable[[Mapping[str, Any]], None], place: int, task: Mapping[str, Any], device: str | None
) -> tuple[int, str | None]:
    """Run a task in a process of its own and wait for it."""
    return place, _process.finish(_process.start(work, task, device))
