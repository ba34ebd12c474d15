"""Seconds and memory of commands that compute nothing, each in processes of its own.

    python -m harness.benchmarks.startup --out results/benchmarks/startup.csv

The median of some starts after one that is not counted (it may have to compile what it imports), and the largest
resident set.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from harness.machine import provenance

COMMANDS = ("--help", "--version", "run --help", "list", "list models", "list metrics")


@dataclass(frozen=True)
class Row:
    """One command."""

    command: str
    median_s: float
    slowest_s: float
    peak_mb: float
    repeats: int
    cores: int
    device: str
    code: str


def measure(command: str, repeats: int) -> Row:
    """Start it so often. Raises SystemExit when it fails."""
    starts = [_start(command) for _ in range(repeats + 1)][1:]
    seconds = [one for one, _ in starts]
    return Row(
        command=f"capbench {command}",
        median_s=round(statistics.median(seconds), 4),
        slowest_s=round(max(seconds), 4),
        peak_mb=round(max(peak for _, peak in starts), 1),
        repeats=repeats,
        cores=os.cpu_count() or 0,
        device=provenance.device_name("cpu"),
        code=provenance.code_version(),
    )


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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all commands and print, or write, one row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(argv)
    rows = [asdict(measure(command, chosen.repeats)) for command in COMMANDS]
    for row in rows:
        Console(width=160).print(f"{row['command']:24} {row['median_s']:.3f} s  {row['peak_mb']:.0f} MB", markup=False)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        with chosen.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
