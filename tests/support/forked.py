"""Processes forked from a server that has imported what a command needs: it starts at once, not after five seconds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.launcher_work import warm

POLL = 0.002  # seconds


class Forked:
    """A process that runs `work(*arguments)` in a folder and an environment of its own; what it returns is its code."""

    def __init__(
        self, work: Callable[..., int], *arguments: Any, env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        warm()
        handle, name = tempfile.mkstemp(prefix="capbench-tests-")
        os.close(handle)
        self.out, self.err = Path(name), Path(f"{name}.err")
        self.err.touch()
        values = (dict(env), str(cwd or Path.cwd()), str(self.out), str(self.err))
        self.process = multiprocessing.get_context("forkserver").Process(target=_enter, args=(work, arguments, *values))
        self.process.start()

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.exitcode

    def kill_when(self, condition: Callable[[], bool], patience: float = 120) -> None:
        """SIGKILL without warning as soon as the condition holds."""
        deadline = time.monotonic() + patience
        while not condition():
            assert self.poll() is None, f"it ended before it could be killed: {self.err.read_text()}"
            assert time.monotonic() < deadline
            time.sleep(POLL)
        self.process.kill()
        self.wait()

    def wait(self, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Its end, with what it said."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(self.err.read_text())
        said = [file.read_text() if file.exists() else "" for file in (self.out, self.err)]
        self.out.unlink(missing_ok=True)
        self.err.unlink(missing_ok=True)
        return subprocess.CompletedProcess([], self.process.exitcode, *said)


def _enter(
    work: Callable[..., int], arguments: tuple[Any, ...], environment: dict[str, str], folder: str, *files: str
) -> None:
    gc.freeze()  # what the server has imported: collecting it would copy it
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    added = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry not in sys.path]
    sys.path[:0] = added
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.exit(work(*arguments))
