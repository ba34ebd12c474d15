"""How fast a device multiplies matrices, and how much of it a piece of work comes to."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.machine.bfloat16 import bfloat16_fallback


def matmul_rate(dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations a second of the best of some large matrix products."""
    size = 8192 if device.startswith("cuda") else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    with bfloat16_fallback(dtype, torch.device(device)):
        for _ in range(4):
            _wait(device)
            start = time.perf_counter()
            left @ right
            _wait(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations of the matrix products, convolutions and attention in a piece of work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
