"""Seconds and memory of commands that compute nothing, each in processes of its own.

    python -m harness.benchmarks.startup --out results/benchmarks/startup.csv

The median of some starts after one that is not counted (it may have to compile what it imports), and the largest
resident set.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated

from harness.benchmarks._runner import Benchmark, Row, here

COMMANDS = ("--help", "--version", "run --help", "list", "list models", "list metrics")


def measure(command: str, repeats: int) -> Row:
    """Start it so often. Raises SystemExit when it fails."""
    starts = [_start(command) for _ in range(repeats + 1)][1:]
    seconds = [one for one, _ in starts]
    return {
        "command": f"capbench {command}",
        "median_s": round(statistics.median(seconds), 4),
        "slowest_s": round(max(seconds), 4),
        "peak_mb": round(max(peak for _, peak in starts), 1),
        "repeats": repeats,
        **here(),
    }


def _start(command: str) -> tuple[float, float]:
    """(seconds, peak resident megabytes)."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-P", "-m", "harness.cli", *command.split()], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"capbench {command}: exit code {process.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return seconds, usage.ru_maxrss * scale / 1e6


@dataclass(frozen=True, kw_only=True)
class Startup(Benchmark):
    """A row for each command."""

    repeats: Annotated[int, "starts of each command"] = 5

    def rows(self) -> list[Row]:
        """The median and the slowest of its starts, and the largest resident set."""
        return [measure(command, self.repeats) for command in COMMANDS]


main = Startup.main

if __name__ == "__main__":
    main()
