"""SLURM through submitit: one job per cell, in an array."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.contracts import RequestError, Sweep

POLL = 2.0  # seconds
ASK = 60.0  # seconds between questions to sacct, which alone knows of a job that was killed


class Slurm:
    """An array of jobs; the command waits for them. Repeating it takes up what is unfinished.

    A job that reaches its time limit, or is preempted, is put back into the queue and goes on from its last batch or
    checkpoint. `parameters`: further options of sbatch by their long names, such as {account: lab, qos: high}.
    """

    def __init__(
        self,
        name: str,
        jobs: int,
        partition: str | None,
        minutes: int,
        gpus_per_job: int,
        cpus_per_job: int,
        memory_gb: int | None,
        requeues: int,
        parameters: dict[str, Any],
    ) -> None:
        self.name, self.jobs, self.requeues = name, jobs, requeues
        self.options = {
            "timeout_min": minutes,
            "cpus_per_task": cpus_per_job,
            "slurm_array_parallelism": jobs,
            "slurm_additional_parameters": dict(parameters),
            **({"gpus_per_node": gpus_per_job} if gpus_per_job else {}),
            **({"mem_gb": memory_gb} if memory_gb else {}),
            **({"slurm_partition": partition} if partition else {}),
        }

    def prepare(self, modules: Sequence[str]) -> None:
        """Nothing: its processes start elsewhere."""

    def launch(self, sweep: Sweep) -> Iterator[tuple[int, str | None]]:
        """In the order in which they end."""
        try:
            import submitit
        except ImportError as error:
            raise RequestError("launcher=slurm: needs the package submitit: pip install 'capbench[slurm]'") from error
        try:
            executor = submitit.AutoExecutor(
                folder=sweep.folder / "%j", cluster="slurm", slurm_max_num_timeout=self.requeues
            )
        except RuntimeError as error:
            raise RequestError(f"launcher=slurm: {error}; run it where sbatch is") from error
        executor.update_parameters(name="capbench", **self.options)
        jobs = dict(enumerate(executor.map_array(Resumable(sweep.work), list(sweep.tasks))))
        asked = time.monotonic()
        try:
            while jobs:
                ask = time.monotonic() - asked > ASK
                for place in [place for place, job in jobs.items() if job.done(force_check=ask)]:
                    yield place, _how(jobs.pop(place))
                asked = time.monotonic() if ask else asked
                time.sleep(POLL if jobs else 0)
        finally:
            for job in jobs.values():
                job.cancel()


class Resumable:
    """A cell that submitit may put back into the queue: everything it needs is on the disk."""

    def __init__(self, work: Callable[[Mapping[str, Any]], None]) -> None:
        self.work = work

    def __call__(self, task: Mapping[str, Any]) -> None:
        """Run the cell."""
        self.work(task)

    def checkpoint(self, task: Mapping[str, Any]) -> Any:
        """What is submitted anew when the time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


def _how(job: Any) -> str | None:
    error = job.exception()
    if error is None:
        return None
    return f"SLURM job {job.job_id} ({job.state}): {' '.join(str(error).split())[-300:]}"
