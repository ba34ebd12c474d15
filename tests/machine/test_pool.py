"""The pool of worker processes: order, bounds, and its end with the parent."""

import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from harness.contracts import CapBenchError
from harness.machine import pool
from tests.support.commands import clean


def test_a_dead_worker_is_said():
    with pytest.raises(CapBenchError, match="repeat the command with workers=1") as caught:
        list(pool.in_order(os._exit, [1], 1))
    assert isinstance(caught.value.__cause__, BrokenProcessPool)


def test_the_pool_keeps_order_and_bounds_what_waits():
    taken = []

    def tasks():
        for number in range(40):
            taken.append(number)
            yield number

    results = pool.in_order(abs, tasks(), 2)
    assert next(results) == 0
    assert len(taken) <= 2 * pool.AHEAD + 1
    assert list(results) == list(range(1, 40))


@pytest.mark.skipif(not Path("/proc/self").is_symlink(), reason="asks Linux for the worker's number")
def test_workers_end_with_a_killed_parent():
    script = (
        "import os, time; from harness.machine import pool\n"
        "if __name__ == '__main__':\n"
        "    results = pool.in_order(os.readlink, ['/proc/self'], 1)\n"
        "    print(next(results), flush=True); time.sleep(60)"
    )
    running = subprocess.Popen([sys.executable, "-c", script], env=clean(), stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    worker = Path("/proc") / running.stdout.readline().strip() / "stat"
    assert worker.exists()
    running.kill()
    running.wait()
    until = time.monotonic() + 20
    while state(worker) not in ("Z", "gone") and time.monotonic() < until:
        time.sleep(0.05)
    assert state(worker) in ("Z", "gone")


def state(stat: Path) -> str:
    """R, S, ... Z for a dead one that nobody has waited for."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
