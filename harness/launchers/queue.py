"""The default launcher: a queue on this machine, as many cells at once as it has GPUs, or cores for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess

from harness.contracts import RequestError, Sweep
from harness.launchers import _process


class Queue:
    """Each cell in a fresh process. `jobs` of null: one per GPU, or as many as have `threads` cores each."""

    def __init__(self, name: str, jobs: int | None) -> None:
        self.name, self.jobs = name, jobs
        if jobs is not None and jobs < 1:
            raise RequestError(f"launcher.jobs: expected 1 or more, got {jobs}")

    def prepare(self, modules: Sequence[str]) -> None:
        """Start the process that the cells are forked from."""
        _process.warm(modules)

    def launch(self, sweep: Sweep) -> Iterator[tuple[int, str | None]]:
        """In the order in which they end."""
        width = self.jobs or sweep.width
        # More jobs than devices share them in turn.
        free: deque[str | None] = deque(
            sweep.devices[n % len(sweep.devices)] if sweep.devices else None for n in range(width)
        )
        waiting = deque(enumerate(sweep.tasks))
        running: list[tuple[BaseProcess, int, str | None]] = []
        try:
            while waiting or running:
                while waiting and free:
                    place, task = waiting.popleft()
                    device = free.popleft()
                    running.append((_process.start(sweep.work, task, device), place, device))
                connection.wait([process.sentinel for process, _, _ in running])
                for entry in [entry for entry in running if not entry[0].is_alive()]:
                    running.remove(entry)
                    process, place, device = entry
                    free.append(device)
                    yield place, _process.finish(process)
        finally:
            for process, _, _ in running:
                _process.stop(process)
