"""One cell in a process of its own, or in each of several under torchrun, with a fault where one is wanted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from harness import config
from harness.cells import cell
from harness.cells.parts import Parts, build_parts
from harness.machine import ranks
from tests.support.commands import clean
from tests.support.forked import Forked
from tests.support.launcher_work import warm

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # by the agent
SMALL = [
    "dataset.train=20",
    "dataset.test=10",
    "train.batch_size=8",
    "train.max_steps=6",
    "train.save_every=2",
    "train.log_every=1",
    "train.learning_rate=1e-3",
    "generate.max_new_tokens=12",
    "generate.batch_size=2",
]


def parts(overrides: Sequence[str], results: Path) -> Parts:
    """What `capbench run` builds for one cell."""
    options = [*SMALL, "device=cpu", "threads=null", *overrides, f"results={results}"]
    return build_parts(config.cells("run", options)[0], {})


def limit_rows(captioner: Any, rows: int) -> None:
    """Pretend that memory holds so many rows at once, in generation and in training."""
    generate, load = captioner.generate, captioner.load

    def generate_some(examples: Sequence[Any], decoding: Any) -> Any:
        full(len(examples))
        return generate(examples, decoding)

    def load_limited(device: str) -> None:
        load(device)
        captioner.model.register_forward_pre_hook(
            lambda model, _, values: full(len(values["input_ids"])) if model.training else None, with_kwargs=True
        )

    def full(count: int) -> None:
        if count > rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {count} rows.")

    captioner.generate, captioner.load = generate_some, load_limited


def break_at(captioner: Any, method: str, call: int, how: str) -> None:
    """Let the n-th call of a method (from 1) kill the process, or raise an error."""
    original, calls = getattr(captioner, method), iter(range(1, 10**6))

    def breaking(*arguments: Any) -> Any:
        if next(calls) == call:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the disk fell off")
        return original(*arguments)

    setattr(captioner, method, breaking)


def start(
    overrides: Sequence[str], results: Path, fault: Mapping[str, Any] | None = None, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run a cell and wait for its end."""
    order = {"overrides": list(overrides), "results": str(results), "fault": dict(fault or {})}
    return together(order, processes) if processes > 1 else Forked(main, order, env=clean()).wait(180)


def together(order: Mapping[str, Any], processes: int) -> subprocess.CompletedProcess[str]:
    """Run a cell under the agent that torchrun starts, in this process; those of the cell are forked as ever."""
    warm()
    handlers, environment = {one: signal.getsignal(one) for one in HANDLED}, dict(os.environ)
    with TemporaryDirectory(prefix="ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="cell", rdzv_backend="c10d",
            rdzv_endpoint="localhost:0", max_restarts=0, start_method="forkserver",
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.ALL),
        )  # fmt: skip
        try:
            elastic_launch(config, one_of_several)(order)
            code = 0
        except ChildFailedError:
            code = 1
        finally:
            os.environ.clear()
            os.environ.update(environment)
            for one, handler in handlers.items():
                signal.signal(one, handler)
        said = [
            "".join(file.read_text() for file in sorted(Path(folder).rglob(f"std{name}.log")))
            for name in ("out", "err")
        ]
    return subprocess.CompletedProcess([], code, *said)


def one_of_several(order: Mapping[str, Any]) -> None:
    if code := main(order):
        sys.exit(code)


def main(order: Mapping[str, Any]) -> int:
    torch.set_num_threads(1)
    fault = order["fault"]
    built = parts(order["overrides"], Path(order["results"]))
    if ranks.rank() == fault.get("rank", 0):
        if "rows" in fault:
            limit_rows(built.captioner, fault["rows"])
        if "call" in fault:
            victim = built.control if fault.get("of") == "control" else built.captioner
            break_at(victim, fault["method"], fault["call"], fault["how"])
    try:
        outcome = cell.run(built)
    except cell.Recorded as error:
        if ranks.speaker():
            sys.stderr.write(f"FAILED {error}\n")
        return 1
    if ranks.first():
        sys.stdout.write(f"{outcome.status}\n")
    ranks.stop()
    return 0


def weights(results: Path) -> dict[str, torch.Tensor]:
    (path,) = results.glob("fits/*/adapter/*.safetensors")
    return load_file(path)


def losses(results: Path) -> pd.DataFrame:
    (path,) = results.glob("fits/*/losses.csv")
    return pd.read_csv(path)
