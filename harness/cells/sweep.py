"""The cells of a request: one in this process, or each in a process of its own, started by a launcher."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness import config
from harness.cells.parts import Once, Settings, build_parts
from harness.cells.worker import Ended, attempt, died, ended_file, log, read_end, task, work
from harness.contracts import Launcher, RequestError, Sweep
from harness.machine import ranks
from harness.machine.devices import pick_device
from harness.machine.terminal import bar, console, errors
from harness.store import digest


def prepare(cells: Sequence[config.Cell], *, sweep: bool) -> Launcher | None:
    """Build everything once before anything runs: a wrong value costs no time. Returns the launcher of a sweep."""
    if sweep and ranks.world() > 1:
        raise RequestError("torchrun runs one cell; for a sweep leave torchrun out and say launcher=torchrun")
    console.quiet = errors.quiet = not ranks.first()
    launcher: Launcher = config.build(cells[0], "launcher")
    if sweep:
        launcher.prepare([work.__module__, *config.modules(cells)])
    for one in cells:
        build_parts(one, {})
    return launcher if sweep else None


def run_cells(
    cells: Sequence[config.Cell], launcher: Launcher | None, datasets: dict[str, Once], results: Path
) -> list[Ended]:
    """Bring every cell to its end; how each ended, in their order. datasets: filled by a cell in this process."""
    return _sweep(cells, launcher, results) if launcher else [_alone(cells[0], datasets)]


def summary(cells: Sequence[config.Cell], ended: Sequence[Ended]) -> int:
    """Print what failed; 1 when anything did."""
    bad = [(one, end) for one, end in zip(cells, ended, strict=True) if end.status not in ("ok", "refused")]
    for one, end in bad:
        errors.print(f"capbench: {one.label}: {end}")
    return 1 if bad else 0


def _alone(one: config.Cell, datasets: dict[str, Once]) -> Ended:
    """A single cell has the command's process, its progress bars and its exit code for a wrong request."""
    ended = attempt(one, datasets, raises=True)
    if ended.status == "failed":
        console.quiet = errors.quiet = not ranks.speaker()  # of several processes one says what happened
    _say(1, 1, one, ended)
    return ended


def _sweep(cells: Sequence[config.Cell], launcher: Launcher, results: Path) -> list[Ended]:
    """Every cell in a process of its own."""
    settings: Settings = config.settings(cells[0], Settings)
    order = spread(cells)
    cells = [cells[place] for place in order]
    files = [ended_file(one) for one in cells]
    before = [_content(file) for file in files]
    devices, width = _places(settings)
    start, ended = time.perf_counter(), dict[int, Ended]()
    request = Sweep(work, [task(one) for one in cells], width, devices, results / "logs" / launcher.name)
    with bar("cells", len(cells)) as advance:
        for place, how in launcher.launch(request):
            if _content(files[place]) == before[place]:  # nothing was written: another sweep's word is as good
                how = how or "its process left without a word"
                ended[place] = died(cells[place], how, time.perf_counter() - start)
            else:
                ended[place] = read_end(files[place])
            _say(len(ended), len(cells), cells[place], ended[place])
            advance(1)
    return [ended[order.index(place)] for place in range(len(cells))]


def spread(cells: Sequence[config.Cell]) -> list[int]:
    """Places of the cells, those that share a fit apart: side by side, the second would only wait for the first."""
    before: Counter[str] = Counter()
    turns = []
    for one in cells:
        fit = digest([one.config[name] for name in ("dataset", "model", "lora", "train", "seed")])
        turns.append(before[fit])
        before[fit] += 1
    return sorted(range(len(cells)), key=lambda place: (turns[place], place))


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _places(settings: Settings) -> tuple[list[str], int]:
    """The CUDA devices for a sweep's cells, and how many cells fit the machine at once."""
    import torch

    if pick_device(settings.device, settings.threads) == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
        return devices, len(devices)
    if settings.device.startswith("cuda"):
        return [], 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [], max(1, cores // (settings.threads or cores))


def _say(number: int, count: int, one: config.Cell, ended: Ended) -> None:
    console.print(f"[{number}/{count}] {one.label}: {ended}, {ended.seconds:.1f} s")
    if ended.status == "failed":
        errors.print(f"the whole error: {log(one)}")
