"""bfloat16 on CPUs: one without such instructions computes it in software, hundreds of times slower than float32."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from harness.progress import errors

if TYPE_CHECKING:
    import torch

SLOW = 4.0  # times the seconds of float32, from which on it is said
SIZE = 192  # of the matrices that are multiplied to find out: a tenth of a second where it is slow


def warn_if_slow(what: str, dtype: torch.dtype, device: str) -> None:
    """Say once in a process that float32 is the faster choice for `what` on this CPU."""
    if str(dtype) == "torch.bfloat16" and device.startswith("cpu") and slowdown() > SLOW:
        _say(f"{what}: this CPU computes bfloat16 {slowdown():.0f} times slower than float32: choose dtype=float32")


@cache
def slowdown() -> float:
    """Seconds of a product of matrices in bfloat16 on this CPU, as a multiple of those in float32."""
    import torch

    return _seconds(torch.bfloat16) / _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
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
    errors.print(text, markup=False)
