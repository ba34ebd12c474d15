"""The command in a process of its own, and the small settings that tests give it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli import main
from tests.support.forked import Forked

ROOT = Path(__file__).parents[2]
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


LIGHT = ["--config-dir", str(ROOT / "tests" / "conf"), "protocol=light"]
"""A protocol of one metric without a network, for tests that care for everything else."""


def capbench(arguments: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return started(arguments, cwd, **environment).wait()


def started(arguments: Sequence[str], cwd: Path, **environment: str) -> Forked:
    """The command under way in a process of its own, to be killed or waited for."""
    return Forked(main, list(arguments), cwd=cwd, env=clean(**environment))


def command(arguments: Sequence[str]) -> list[str]:
    """What a shell is told: Python and all it imports start anew, which takes seconds."""
    return [sys.executable, "-P", "-m", "harness.cli", *arguments]  # -P: like the script, without the folder it runs in


def clean(**extra: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), extra.pop("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **extra}


def only(results: Path, pattern: str) -> Path:
    """The one path that a pattern finds."""
    (found,) = sorted(results.glob(pattern))
    return found
