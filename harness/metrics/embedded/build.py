"""Makes the tiny checkpoints of the metrics: python -m harness.metrics.embedded.build [NAME ...] [--out DIR].

Each module beside this file that has `CHECKPOINTS` (name -> function) makes some. Fixed seeds and one thread: the
same bytes on the same machine.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

Maker = Callable[[Path, int | None], str]
"""Writes a checkpoint into an empty folder, in so many steps (None: its own budget), and says what it can do."""

HERE = Path(__file__).parent


def makers() -> dict[str, Maker]:
    """Every checkpoint that can be made, by name."""
    names = sorted(file.stem for file in HERE.glob("*.py") if file.stem not in ("__init__", "build"))
    modules = [import_module(f"{__package__}.{name}") for name in names]
    return {name: make for module in modules for name, make in getattr(module, "CHECKPOINTS", {}).items()}


def command(
    description: str | None, known: Sequence[str], out: Path, make: Callable[[str, Path, int | None], str]
) -> None:
    """The command line that makes checkpoints, each in an empty folder; also that of the captioners' twins."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(known)}; all without")
    parser.add_argument("--out", type=Path, default=out, help="folder of the checkpoints' folders")
    parser.add_argument("--steps", type=int, help="another budget, for a trial")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"expected some of {', '.join(known)}, got {unknown[0]}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    console = Console()
    for name in arguments.names or known:
        start, folder = time.perf_counter(), arguments.out / name
        with TemporaryDirectory() as scratch:  # what is there may be read meanwhile, and stays if this fails
            made = Path(scratch) / name
            made.mkdir()
            report = make(name, made, arguments.steps)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(made, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        console.print(f"{name}: {size / 1e6:.2f} MB, {time.perf_counter() - start:.0f} s; {report}", markup=False)


if __name__ == "__main__":
    command(__doc__, list(makers()), HERE, lambda name, folder, steps: makers()[name](folder, steps))
