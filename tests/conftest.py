"""Shared fixtures: one small sweep serves every test that only looks at its results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from harness.contracts import Metric

ROOT = Path(__file__).parent.parent
SMALL = [
    "dataset.train=32",
    "dataset.valid=4",
    "dataset.test=8",
    "train.max_steps=6",
    "train.batch_size=8",
    "train.save_every=2",
    "train.log_every=1",
    "generate.max_new_tokens=24",
    "generate.batch_size=3",
    "threads=1",
]


LIGHT = ["--config-dir", str(Path(__file__).parent / "conf"), "protocol=light"]
"""A protocol of one metric without a network, for tests that care for everything else."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, then those with most tests: else one worker has a long file left at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    count = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -count[item.path], item.path))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two OpenMP jobs on two cores are far slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def wide():
    """Where tests run side by side, rich takes 80 columns for a terminal's width and breaks cells into lines."""
    from harness.machine.terminal import WIDE, console

    console.width = WIDE


def capbench(arguments: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run(
        command(arguments), cwd=cwd, env=clean(**environment), capture_output=True, text=True, check=False
    )


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", "harness.cli", *arguments]  # -P: like the script, without the folder it runs in


def clean(**extra: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), extra.pop("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **extra}


@pytest.fixture(scope="session")
def sweep(tmp_path_factory, worker_id) -> Path:
    """Results of a small sweep: every model, zero-shot and fine-tuned. Made once for all workers of the tests.

    To be looked at only: a command works on `results`, else it changes files that another worker is copying.
    """
    from harness.cli import main

    base = tmp_path_factory.getbasetemp()
    results = (base if worker_id == "master" else base.parent) / "sweep"
    with FileLock(f"{results}.lock"):
        if not (results / "leaderboard.csv").exists():
            assert main(["run", "experiment=demo", "control=none", f"results={results}", *SMALL]) == 0
    return results


@pytest.fixture
def results(sweep, tmp_path) -> Path:
    """The same results, for commands and changes."""
    shutil.copytree(sweep, tmp_path / "results")
    return tmp_path / "results"


def only(results: Path, pattern: str) -> Path:
    """The one path that a pattern finds."""
    (found,) = sorted(results.glob(pattern))
    return found


@pytest.fixture(scope="session")
def metrics() -> dict[str, Metric]:
    """Every metric that can run here, loaded once."""
    from metric_data import NAMES, build

    built = {name: build(name) for name in NAMES}
    ready = {name: metric for name, metric in built.items() if metric.missing() is None}
    for metric in ready.values():
        metric.load("cpu", {})
    return ready
