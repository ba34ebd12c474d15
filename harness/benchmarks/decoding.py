"""Times the way from picture files to SmolVLM's pixel values: transformers' processor in a DataLoader against ours.

    python -m harness.benchmarks.decoding --out results/benchmarks/decoding.csv

Each side has two workers and gives float32 tensors to the main process. Pictures are drawn JPEGs of 1 to 4 megapixels,
half of them grey; `difference` is that of the values from the stock side's, in 1/255 of the range.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader
from transformers import Idefics3ImageProcessor

from harness import cli, config
from harness.benchmarks._runner import Benchmark, Row, here
from harness.contracts import ImageSource
from harness.store import csv_text, write_text
from model_zoo.nets.idefics3_pixels import QuickImageProcessor

BATCH = 8
WORKERS = 2
TILE = 512
RESULT = Iterator[torch.Tensor]


# ---------------------------------------------------------------- pictures


def draw(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """JPEGs of 1 to 4 megapixels, every other one grey, and a table beside them."""
    rng, paths = random.Random(seed), []
    for number in range(count):
        pixels, ratio = rng.uniform(1e6, 4e6), rng.uniform(0.7, 1.4)
        size = (int((pixels * ratio) ** 0.5), int((pixels / ratio) ** 0.5))
        fine = Image.effect_noise(size, 25).filter(ImageFilter.GaussianBlur(1.2))
        coarse = Image.effect_noise((24, 24), 120).resize(size, Image.Resampling.BICUBIC)
        grey = Image.blend(fine, coarse, 0.7)
        image = grey if number % 2 else Image.merge("RGB", (grey, coarse, grey))
        paths.append(folder / f"{number:05d}.jpg")
        image.save(paths[-1], quality=90)
    lines = [(path.name, "A picture.", "test") for path in paths]
    write_text(folder / "table.csv", csv_text(("image", "caption", "split"), lines))
    return paths


# ---------------------------------------------------------------- sides


def stock(sources: Sequence[Path | ImageSource], processor: Any) -> RESULT:
    """The usual way: a plain DataLoader; pictures differ in their number of tiles, so that a batch is a list."""
    work = partial(_processed, processor)
    for batch in DataLoader(sources, BATCH, num_workers=WORKERS, collate_fn=work):  # type: ignore[arg-type]
        yield from batch


def _processed(processor: Any, sources: Sequence[Any]) -> list[torch.Tensor]:
    """Pillow, then the processor, one picture at a time."""
    images = (Image.open(one).convert("RGB") if isinstance(one, Path) else one.load() for one in sources)
    return [_values(processor, image) for image in images]


def _values(processor: Any, image: Image.Image) -> torch.Tensor:
    found = processor([[image]], input_data_format="channels_last", return_tensors="pt")
    values: torch.Tensor = found["pixel_values"][0]
    return values


def hub_style(paths: Sequence[Path], processor: Any) -> RESULT:
    """The same through the `datasets` package."""
    package: Any = import_module("datasets")  # optional

    def transform(rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        return {"pixel_values": [_values(processor, image.convert("RGB")) for image in rows["image"]]}

    table = package.Dataset.from_dict({"image": [str(path) for path in paths]}).cast_column("image", package.Image())
    loader = DataLoader(table.with_transform(transform), batch_size=BATCH, num_workers=WORKERS, collate_fn=list)
    for batch in loader:
        yield from (row["pixel_values"] for row in batch)


def ours(sources: Sequence[ImageSource], processor: QuickImageProcessor) -> RESULT:
    """Two threads: decoding and resizing leave the interpreter lock, and nothing has to be sent."""
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(lambda source: _values(processor, source.load()), sources)


# ---------------------------------------------------------------- measuring


def sides(
    paths: Sequence[Path], files: Sequence[ImageSource], shards: Sequence[ImageSource], edge: int, tile: int
) -> dict[str, Callable[[], RESULT]]:
    """Name -> what makes all pixel values."""
    options: dict[str, Any] = {"size": {"longest_edge": edge}, "max_image_size": {"longest_edge": tile}}
    options |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    usual, quick = Idefics3ImageProcessor(**options), QuickImageProcessor(**options)
    found: dict[str, Callable[[], RESULT]] = {
        "stock": partial(stock, paths, usual),
        "ours": partial(ours, files, quick),
        "stock, shards": partial(stock, shards, usual),
        "ours, shards": partial(ours, shards, quick),
    }
    if find_spec("datasets"):
        found["datasets package"] = partial(hub_style, paths, usual)
    return found


def measure(found: dict[str, Callable[[], RESULT]], count: int, repeats: int) -> list[dict[str, Any]]:
    """Images per second, the best of some turns in which all sides take part, and how far values differ."""
    best = dict.fromkeys(found, float("inf"))
    for _ in range(repeats):
        for name, run in found.items():
            start = time.perf_counter()
            assert sum(1 for _ in run()) == count
            best[name] = min(best[name], time.perf_counter() - start)
    rows = []
    for name, run in found.items():
        mean, largest = difference(found["stock"](), run())
        rows.append({
            "side": name, "images_per_s": count / best[name], "speedup": best["stock"] / best[name],
            "mean_difference": mean, "largest_difference": largest,
        })  # fmt: skip
    return rows


def difference(left: RESULT, right: RESULT) -> tuple[float, float]:
    """Mean and largest difference of the values, in 1/255 of their range; nan where frames differ in number."""
    means, largest = [], 0.0
    for a, b in zip(left, right, strict=True):
        if a.shape != b.shape:
            return float("nan"), float("nan")
        apart = (a - b).abs() * 127.5
        means.append(float(apart.mean()))
        largest = max(largest, float(apart.max()))
    return float(np.mean(means)), largest


def read(dataset: str, **values: Any) -> list[ImageSource]:
    """The pictures of a dataset's test split, as a run reads them."""
    node = config.choice("dataset", dataset) | values
    return [sample.images[0] for sample in config.build_node(node, "dataset").load("test").samples]


def prepare(table: Path, size: int) -> str:
    """The folder in which `capbench data prepare` stores them."""
    out = table.parent / f"shards-{size}"
    words = ["table", f"dataset.path={table}", f"out={out}", f"size={size}", "workers=2", "splits=test"]
    if cli.main(["data", "prepare", *words]):
        raise SystemExit("the pictures could not be prepared")
    return str(out)


@dataclass(frozen=True, kw_only=True)
class Decoding(Benchmark):
    """A row for each side and edge."""

    pictures: Annotated[int, "that are drawn"] = 96
    repeats: Annotated[int, "turns, of which the best counts"] = 3
    edges: Annotated[Sequence[int], "longest edges; 2048 is the hub's"] = (512, 2048)

    def rows(self) -> Iterator[Row]:
        """Pictures a second, and how far values differ."""
        torch.set_num_threads(1)
        with TemporaryDirectory(prefix="decoding-") as scratch:
            paths, table = draw(Path(scratch), self.pictures), Path(scratch) / "table.csv"
            for edge in self.edges:
                part = paths if edge <= TILE else paths[: max(BATCH, len(paths) // 4)]  # 13 tiles each take their time
                files = read("table", path=str(table), check="listed", cache=None)[: len(part)]
                shards = read("prepared", root=prepare(table, edge))[: len(part)]
                for row in measure(sides(part, files, shards, edge, TILE), len(part), self.repeats):
                    yield {"longest_edge": edge, **row, "pictures": self.pictures, "workers": WORKERS, **here()}


main = Decoding.main

if __name__ == "__main__":
    main()
