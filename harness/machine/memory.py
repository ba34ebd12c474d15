"""Memory that has run out: recognised and freed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Of the CUDA driver, torch's CPU allocator on Linux and on Windows, cuBLAS: all of them plain RuntimeErrors."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory has run out, of the device or of the machine."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def unless_short(work: Callable[[], T]) -> T | None:
    """What some work returns; None where memory has run out for it, which is free again then."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
    release()
    return None


def release() -> None:
    """Give back what nothing refers to any more. Call it outside of `except`: a traceback keeps its frames alive."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
