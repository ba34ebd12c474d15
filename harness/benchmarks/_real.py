"""What the comparisons with others share: a captioner of a published size with random weights, pictures, captions."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from importlib import import_module, metadata
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from transformers import Idefics3ImageProcessor

from harness import config, provenance
from harness.contracts import Query
from harness.tables import write_csv

QUESTION = "Describe this medical image."
WORDS = (6, 8, 10, 12, 13, 15, 16, 18, 20, 22, 25, 28, 32, 38, 47, 60)
"""Lengths of captions, shortest to longest, about the sixteen quantiles of ImageCLEFmedical Caption 2023."""
PACKAGES = ("torch", "transformers", "peft", "trl")


def options(description: str | None) -> argparse.ArgumentParser:
    """The command line that all share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="of tower and language model, to try it out; default: all")
    parser.add_argument("--edge", type=int, default=1024, help="longest edge of a picture; the hub's file says 2048")
    parser.add_argument("--pixels", type=int, default=512, help="of a side of the drawn pictures")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="csv file of the figures")
    return parser


def checkpoint(folder: Path, layers: int | None) -> Path:
    """SmolVLM-500M's sizes with random weights; written once into `folder`."""
    place = folder / "smolvlm"
    if not place.is_dir():
        import_module("model_zoo.embedded.benchmark").prepare("smolvlm", place, "cpu", layers)
    return place


def cell_of(place: Path, chosen: argparse.Namespace, *overrides: str) -> config.Cell:
    """A cell of `capbench run` over that checkpoint, in float32, on the CPU."""
    torch.set_num_threads(chosen.threads)
    fixed = [
        "model=smolvlm",
        "weights=hub",
        f"model.hub={place}",
        "model.dtype=float32",
        f"dataset.size={chosen.pixels}",
    ]
    fixed += [f"model.longest_edge={chosen.edge}", f"dataset.train={chosen.samples}", f"dataset.test={chosen.samples}"]
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
    """The captioner with transformers' own image processor, as others use it."""
    quick = captioner.processor.image_processor
    captioner.processor.image_processor = Idefics3ImageProcessor.from_dict(quick.to_dict())
    return captioner


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def report(rows: Sequence[dict[str, Any]], chosen: argparse.Namespace) -> None:
    """Print the figures and, where asked, write them with what they depend on."""
    found = provenance.environment()["packages"] | {"trl": _version("trl")}
    facts = {name: getattr(chosen, name) for name in ("layers", "edge", "pixels", "samples", "threads")}
    table = pd.DataFrame(rows).assign(
        **{name: "all" if value is None else value for name, value in facts.items()},
        cores=os.cpu_count(),
        device=provenance.device_name("cpu"),
        versions=" ".join(f"{name}={found[name]}" for name in PACKAGES),
        code=provenance.code_version(),
        measured_at=provenance.now(),
    )
    Console(width=200).print(table.iloc[:, : len(rows[0])].to_string(index=False), markup=False)
    if chosen.out:
        write_csv(table, chosen.out)
