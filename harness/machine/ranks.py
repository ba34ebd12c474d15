"""Ranks: the processes that torchrun starts on one cell; who writes, how they agree, how one's failure ends them all.

Process 0 alone writes files, takes locks and reads journals; all of them see the same folders. Outside torchrun every
function does what a single process needs and imports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

from harness.contracts import RequestError

PATIENCE = timedelta(minutes=30)  # for the slowest process, one that waits for a lock included: then all of them end
FAILURE = "capbench/failure"

T = TypeVar("T")


def world() -> int:
    """How many processes work on this cell."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def place(device: str) -> str:
    """The device of this process: of several on one machine each has a GPU of its own. Raises RequestError."""
    if world() == 1 or not device.startswith("cuda"):
        return device
    import torch

    local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device != "cuda":
        raise RequestError(
            f"device={device}: expected auto, cpu or cuda with {world()} processes, each takes its own GPU"
        )
    if local >= found:
        raise RequestError(f"device=cuda: {found} GPUs for {local + 1} processes or more; use --nproc-per-node {found}")
    return f"cuda:{local}"


def start(device: str) -> None:
    """Join the other processes: gloo between CPUs, nccl between GPUs. Nothing when it is done or there is one."""
    if world() == 1:
        return
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    else:  # accelerate would name it cpu:0, which torch cannot restore a checkpoint to
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    # gloo on GPUs too: it carries what the processes say to each other, and notices at once when one is gone
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)


def stop() -> None:
    """Leave the other processes, once the work has ended well."""
    if world() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


def gather(value: T) -> list[T]:
    """The values of all processes in their order, on every process; each waits for all others."""
    if world() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def once(work: Callable[[], T]) -> T:
    """Work that process 0 does alone; its result on every process."""
    if world() == 1:
        return work()
    from torch import distributed

    answer: list[Any] = [work() if first() else None]
    distributed.broadcast_object_list(answer)
    result: T = answer[0]
    return result


@contextmanager
def held(context: AbstractContextManager[Any]) -> Iterator[None]:
    """A context, such as a lock, that process 0 enters for all; the others wait until it is held."""
    with context if first() else nullcontext():
        once(lambda: None)
        yield


# ---------------------------------------------------------------- failures


def fail(message: str) -> str:
    """Say why this process ends; returns why the first of them did, which the others only feel as a lost connection."""
    number, _, reason = _failure(f"{rank()} {message}").partition(" ")
    return message if number in ("", str(rank())) else f"process {number}: {reason}"


def speaker() -> bool:
    """Whether this process reports: the one that failed first, process 0 as long as none has."""
    number = _failure("").partition(" ")[0]
    return number == str(rank()) if number else first()


def _failure(told: str) -> str:
    """What the first process that failed has said, or is saying now; torchrun's store outlives each process."""
    if world() == 1:
        return told
    from torch import distributed

    if not distributed.is_initialized():
        return told
    store = distributed.distributed_c10d._get_default_store()
    try:
        said: bytes = store.compare_set(FAILURE, "", told)
    except distributed.DistError:  # without torchrun's agent the store ends with process 0
        return told
    return said.decode()
