"""Shared fixtures: one small sweep serves every test that only looks at its results."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from harness.contracts import Metric
from tests.support.commands import SMALL


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


@pytest.fixture(scope="session")
def metrics() -> dict[str, Metric]:
    """Every metric that can run here, loaded once."""
    from tests.support.metric_data import NAMES, build

    built = {name: build(name) for name in NAMES}
    ready = {name: metric for name, metric in built.items() if metric.missing() is None}
    for metric in ready.values():
        metric.load("cpu", {})
    return ready
