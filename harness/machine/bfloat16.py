"""bfloat16 on processors without instructions for it, where torch's own products take hundreds of times as long as
float32's: they are computed in float32 and rounded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from harness.machine.terminal import errors

if TYPE_CHECKING:
    import torch
    from torch import nn

SLOW = 4.0  # times the seconds of float32, from which on products are computed in float32 and rounded
SIZE = 192  # of the matrices that are multiplied to find out: a tenth of a second where it is slow


@contextmanager
def emulation(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Emulation of bfloat16 on a CPU that lacks the instructions; nothing elsewhere. It takes about as long as float32.

    Values are those of the instructions up to the order of sums. That no time is gained is said once in a process.
    """
    if str(dtype) != "torch.bfloat16" or device.type != "cpu" or slowdown() <= SLOW:
        yield
        return
    from harness.machine.rounding import RoundedProducts

    _say(
        "bfloat16: this CPU has no instructions for it, so that products are computed in float32 and rounded; "
        "dtype=float32 takes no longer"
    )
    with RoundedProducts():
        yield


def emulation_for(model: nn.Module) -> AbstractContextManager[None]:
    """Emulation for a model, where any of its weights are bfloat16; all are on one device."""
    import torch

    weights = list(model.parameters())
    some = any(weight.dtype == torch.bfloat16 for weight in weights)
    return emulation(torch.bfloat16 if some else torch.float32, weights[0].device)


@contextmanager
def inference(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """No gradients, and emulation where bfloat16 needs it."""
    import torch

    with torch.inference_mode(), emulation(dtype, device):
        yield


@cache
def slowdown() -> float:
    """Seconds of torch's own product of bfloat16 matrices on this CPU, as a multiple of those in float32."""
    import torch

    return product_seconds(torch.bfloat16) / product_seconds(torch.float32)


def product_seconds(dtype: torch.dtype) -> float:
    """Seconds of the quicker of two products of square matrices."""
    import torch

    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    matrix[:8] @ matrix  # what is set up at first use
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return best


@cache
def _say(text: str) -> None:
    errors.print(text)
