"""Makes the metrics' embedded checkpoints: python -m harness.metrics.embedded.build [NAME ...] [--out DIR].

Ten to fifteen minutes each on one core. They are real checkpoint folders of a tiny size, trained on pairs of phantom
captions, and are read by the same code as the published ones. Reproducible: fixed seeds, one thread.
Each `twin_<name>.py` beside this file makes one.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

HERE = Path(__file__).parent
NAMES = sorted(file.stem.removeprefix("twin_") for file in HERE.glob("twin_*.py"))


def build(name: str, out: Path, steps: int | None, console: Console) -> None:
    """Write and train one checkpoint."""
    make: Callable[[Path, int | None], float] = import_module(f"harness.metrics.embedded.twin_{name}").build
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.perf_counter()
    loss = make(folder, steps)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    console.print(f"{name}: {size / 1e6:.1f} MB, {seconds:.0f} s, last loss {loss:.3f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; all without")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the checkpoints' folders")
    parser.add_argument("--steps", type=int, help="another budget, for a trial")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"expected some of {', '.join(NAMES)}, got {unknown[0]}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in arguments.names or NAMES:
        build(name, arguments.out, arguments.steps, Console())


if __name__ == "__main__":
    main()
