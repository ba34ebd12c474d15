"""torchrun: one cell at a time, each over several processes that share its fit and its captions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from harness.contracts import RequestError, Sweep
from harness.launchers import _process


class Torchrun:
    """Data-parallel fits and sharded generation. `processes` of null: one per GPU."""

    def __init__(self, name: str, processes: int | None) -> None:
        self.name, self.processes = name, processes

    def prepare(self, modules: Sequence[str]) -> None:
        """Nothing: its processes start elsewhere."""

    def launch(self, sweep: Sweep) -> Iterator[tuple[int, str | None]]:
        """One after the other."""
        count = self.processes or len(sweep.devices)
        if count < 1:
            raise RequestError("launcher.processes: no GPU to take the number from; set launcher.processes=2 or more")
        runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        for place, task in enumerate(sweep.tasks):
            file = sweep.folder / f"{task['id']}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(task), encoding="utf-8")
            with file.with_suffix(".log").open("ab") as log:
                process = subprocess.Popen([*runner, "-m", sweep.work.__module__, str(file)], stdout=log, stderr=log)
                try:
                    code = process.wait()
                finally:
                    process.terminate()
            file.unlink()
            yield place, _process.how_it_died(code)
