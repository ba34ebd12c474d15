"""ray: this machine or a ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.contracts import RequestError, Sweep


@dataclass(eq=False)
class Ray:
    """Each cell in a worker that is used once. `address` of null starts ray here, "auto" joins a running cluster."""

    name: str
    jobs: int | None
    address: str | None
    cpus_per_job: float
    gpus_per_job: float | None

    def prepare(self, modules: Sequence[str]) -> None:
        """Nothing: its processes start elsewhere."""

    def launch(self, sweep: Sweep) -> Iterator[tuple[int, str | None]]:
        """In the order in which they end."""
        try:
            import ray
        except ImportError as error:
            raise RequestError("launcher=ray: needs the package ray: pip install 'capbench[ray]'") from error
        gpus = self.gpus_per_job if self.gpus_per_job is not None else float(bool(sweep.devices))
        width = self.jobs or sweep.width
        here = {"num_cpus": width * self.cpus_per_job} if self.address is None else {}
        ray.init(address=self.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR", **here)
        try:
            once = ray.remote(max_calls=1, max_retries=0, num_cpus=self.cpus_per_job, num_gpus=gpus)(sweep.work)
            waiting = list(enumerate(sweep.tasks))[::-1]
            running: dict[Any, int] = {}
            while waiting or running:
                while waiting and len(running) < width:
                    place, task = waiting.pop()
                    running[once.remote(dict(task))] = place
                done, _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done[0]), _how(ray, done[0])
        finally:
            ray.shutdown()


def _how(ray: Any, reference: Any) -> str | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"ray: {' '.join(str(error).split())[:300]}"
    return None
