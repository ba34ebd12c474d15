"""Processes, one for each task, forked from a server that has imported what all tasks need."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.machine import pool

PATIENCE = 5.0  # seconds between asking a process to end and ending it

_one_at_a_time = threading.Lock()
"""Starting a process asks all others whether they have ended: two threads that ask at once get half an answer each."""


def warm(modules: Sequence[str]) -> None:
    """Start the server, which imports the modules while the caller does something else.

    With an NVIDIA driver they stay out: some libraries ask for the device when they are imported, and a CUDA context
    does not survive a fork. Seconds of imports are nothing beside real checkpoints.
    """
    if _forks():
        from multiprocessing import forkserver

        quiet = f"{__package__}._quiet"
        multiprocessing.get_context("forkserver").set_forkserver_preload([] if _driver() else [quiet, *modules])
        forkserver.ensure_running()


def start(work: Callable[[Mapping[str, Any]], None], task: Mapping[str, Any], device: str | None) -> BaseProcess:
    """Begin a task in the environment of this moment; `device`: the one CUDA device it sees."""
    environment = dict(os.environ) | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
    make = (multiprocessing.get_context("forkserver") if _forks() else multiprocessing.get_context("spawn")).Process
    process: BaseProcess = make(target=_enter, args=(work, task, environment, str(Path.cwd())))
    with _one_at_a_time:
        process.start()
    return process


def finish(process: BaseProcess) -> str | None:
    """Wait for the end of a process; how it died, None where it came to its end."""
    connection.wait([process.sentinel])
    with _one_at_a_time:
        process.join()
    return how_it_died(process.exitcode)


def stop(process: BaseProcess) -> None:
    """Ask a process to end, and make it."""
    if process.is_alive():
        process.terminate()
        process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def how_it_died(exit_code: int | None) -> str | None:
    """None for a process that came to its end."""
    if exit_code in (0, None):
        return None
    assert exit_code is not None
    if exit_code > 0:
        return f"its process left with exit code {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else "unknown"
    hint = "; most often the system, when memory runs out" if name == "SIGKILL" else ""
    return f"its process was ended by signal {-exit_code} ({name}){hint}"


def _enter(
    work: Callable[[Mapping[str, Any]], None], task: Mapping[str, Any], environment: Mapping[str, str], folder: str
) -> None:
    gc.freeze()  # what the server has imported: walking through it would take longer than a small cell, and copy it
    os.environ.clear()  # the server has those of the moment it was started
    os.environ.update(environment)
    os.chdir(folder)
    pool.end_with_the_parent()  # a worker that a killed sweep left behind would hold up the next command
    work(task)


def _forks() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


def _driver() -> bool:
    return Path("/proc/driver/nvidia").exists() or Path("/dev/kfd").exists()
