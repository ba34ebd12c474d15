"""Devices: what device=NAME stands for on this machine."""

from __future__ import annotations

from harness.contracts import RequestError
from harness.machine import ranks


def pick_device(device: str, threads: int | None) -> str:
    """Resolve device=auto and set torch's CPU threads. Raises RequestError on a device that is not there."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        return ranks.place("cuda" if torch.cuda.is_available() else "cpu")
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise RequestError(f"device={device}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"device={device}: torch sees no CUDA device; use device=cpu")
    return ranks.place(device)
