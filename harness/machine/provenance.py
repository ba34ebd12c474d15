"""Provenance of a number: command, code, packages, machine, time and memory."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "accelerate", "bert-score", "bitsandbytes", "bleurt-pytorch", "hydra-core", "medcat", "numpy", "pandas", "peft",
    "pillow", "pydicom", "rouge-score", "safetensors", "scipy", "tokenizers", "torch", "transformers", "vllm",
)  # fmt: skip


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def code_version() -> str:
    """Version of the package and, in a git checkout, its commit; '+dirty' when files differ from it."""
    version = f"{_version('capbench')}"
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    dirty = "+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{version}+g{commit}{dirty}" if commit else version


@cache
def environment() -> dict[str, Any]:
    """Python, platform, CPU count and the versions of all packages that can change a number."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def versions(*packages: str) -> str:
    """The versions of some packages, in one cell of a table."""
    return " ".join(f"{name}={_version(name)}" for name in packages)


def command() -> str:
    """The command line as it was typed."""
    return " ".join(["capbench", *sys.argv[1:]])


class Meter:
    """Wall-clock seconds and peak memory of a piece of work.

    On CUDA the peak of the device's allocations, elsewhere the peak resident set of the process, in bytes. Linux can
    reset that peak, so that a later cell is not charged for an earlier one; other systems report the process's maximum.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.start = time.perf_counter()
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_peak()

    def seconds(self) -> float:
        """Seconds since the meter was made."""
        return time.perf_counter() - self.start

    def peak_bytes(self) -> int:
        """Peak memory since the meter was made."""
        if self.device.startswith("cuda"):
            import torch

            return int(torch.cuda.max_memory_allocated(self.device))
        return _peak_resident()


def device_name(device: str) -> str:
    """The device in words for tables."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def _reset_peak() -> None:
    control = Path("/proc/self/clear_refs")
    if control.exists():
        try:
            control.write_text("5")  # resets VmHWM, see proc(5)
        except PermissionError:
            return  # a locked-down container: the process's own maximum is reported


def _peak_resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(root: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
