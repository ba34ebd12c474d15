"""What the comparisons with others share: a captioner of a published size with random weights, pictures, captions,
and how much of what a device can do a piece of work comes to."""

from __future__ import annotations

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Idefics3ImageProcessor

from harness import config
from harness.batches.feature_files import FeatureFiles
from harness.batches.features import Features
from harness.benchmarks._runner import Benchmark, Row, here
from harness.contracts import Query, TowerCached
from harness.machine import provenance
from harness.machine.bfloat16 import emulation
from model_zoo.embedded._random import prepare

QUESTION = "Describe this medical image."
WORDS = (6, 8, 10, 12, 13, 15, 16, 18, 20, 22, 25, 28, 32, 38, 47, 60)
"""Lengths of captions, shortest to longest, about the sixteen quantiles of ImageCLEFmedical Caption 2023."""
EDGES = {"smolvlm": ["model.longest_edge={edge}"], "qwen2_vl": ["model.max_pixels={area}"], "llava_15": []}
"""The overrides that set the size of a picture; LLaVA-1.5 knows one size."""
DTYPES = ("float32", "bfloat16")
ROOM = 50 * 2.0**30  # bytes of features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Benchmark):
    """A row for each side, on the same checkpoint, pictures and captions."""

    key: ClassVar = ("model", "dtype", "device")
    model: Annotated[str, "of whose published sizes", EDGES] = "smolvlm"
    device: Annotated[str, "cpu or cuda"] = "cpu"
    dtype: Annotated[str, "of weights and products", DTYPES] = "float32"
    layers: Annotated[int | None, "of tower and language model, to try it out; default: all"] = None
    edge: Annotated[int, "longest edge of a picture; the hub's file says 2048"] = 1024
    pixels: Annotated[int, "of a side of the drawn pictures"] = 512
    samples: Annotated[int, "pictures"] = 16
    threads: Annotated[int, "of torch"] = 2

    @abstractmethod
    def measure(self, folder: Path) -> Iterator[dict[str, Any]]:
        """The figures of each side, gflops_per_s among them; the first is what the others are compared with."""

    def rows(self) -> Iterator[Row]:
        """With the matrix rate beside each, since it drifts by the hour."""
        names = ("model", "dtype", "layers", "edge", "pixels", "samples", "threads")
        facts = {name: "all" if getattr(self, name) is None else getattr(self, name) for name in names}
        with TemporaryDirectory(prefix="capbench-") as folder:
            for row in self.measure(Path(folder)):
                peak = matmul_rate(getattr(torch, self.dtype), self.device) / 1e9
                yield row | {
                    "share_of_matmul": row["gflops_per_s"] / peak,
                    **facts,
                    "matmul_gflops_per_s": peak,
                    **here(self.device),
                    "versions": provenance.versions("torch", "transformers", "peft", "trl"),
                    "measured_at": provenance.now(),
                }

    def checkpoint(self, folder: Path) -> Path:
        """The published sizes with random weights; written once into `folder`."""
        place = folder / self.model
        if not place.is_dir():
            prepare(self.model, place, self.device, self.layers)
        return place

    def cell(self, checkpoint: Path, *overrides: str) -> config.Cell:
        """A cell of `capbench run` over that checkpoint."""
        torch.set_num_threads(self.threads)
        fixed = [f"model={self.model}", "weights=hub", f"model.hub={checkpoint}", f"model.dtype={self.dtype}"]
        fixed += [f"dataset.size={self.pixels}", f"dataset.train={self.samples}", f"dataset.test={self.samples}"]
        fixed += [value.format(edge=self.edge, area=self.edge**2) for value in EDGES[self.model]]
        return config.cells("run", [*fixed, "train.workers=0", *overrides])[0]


def queries(cell: config.Cell, split: str) -> list[Query]:
    """Drawn pictures, with captions of real lengths in an order that mixes them."""
    samples = config.build(cell, "dataset").load(split).samples
    found = []
    for number, sample in enumerate(samples):
        length = WORDS[number * 7 % len(WORDS)]
        caption = " ".join(islice(cycle(sample.caption.split()), length))
        found.append(Query(dataclasses.replace(sample, caption=caption), QUESTION))
    return found


def stock(captioner: Any) -> Any:
    """The captioner with transformers' own image processor, as others use it; most have no other."""
    if captioner.name != "smolvlm":
        return captioner
    quick = captioner.processor.image_processor
    captioner.processor.image_processor = Idefics3ImageProcessor.from_dict(quick.to_dict())
    return captioner


def features(captioner: TowerCached, folder: Path) -> Features:
    """What the tower sees, kept in a folder that all sides share."""
    return Features(captioner, FeatureFiles(folder / "features", ROOM), {})


def matmul_rate(dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations a second of the best of some large matrix products."""
    size = 8192 if device.startswith("cuda") else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    with emulation(dtype, torch.device(device)):
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
