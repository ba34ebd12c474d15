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

from harness import config
from harness.benchmarks._peak import matmul_rate
from harness.contracts import Query
from harness.machine import provenance
from harness.tables.csv_files import write_csv

QUESTION = "Describe this medical image."
WORDS = (6, 8, 10, 12, 13, 15, 16, 18, 20, 22, 25, 28, 32, 38, 47, 60)
"""Lengths of captions, shortest to longest, about the sixteen quantiles of ImageCLEFmedical Caption 2023."""
PACKAGES = ("torch", "transformers", "peft", "trl")
EDGES = {"smolvlm": ["model.longest_edge={edge}"], "qwen2_vl": ["model.max_pixels={area}"], "llava_15": []}
"""The overrides that set the size of a picture; LLaVA-1.5 knows one size."""
KEY = ["model", "dtype", "device"]


def options(description: str | None) -> argparse.ArgumentParser:
    """The command line that all share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(EDGES), default="smolvlm", help="of whose published sizes")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--layers", type=int, help="of tower and language model, to try it out; default: all")
    parser.add_argument("--edge", type=int, default=1024, help="longest edge of a picture; the hub's file says 2048")
    parser.add_argument("--pixels", type=int, default=512, help="of a side of the drawn pictures")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="csv file; rows of other models, devices and dtypes in it stay")
    return parser


def checkpoint(folder: Path, chosen: argparse.Namespace) -> Path:
    """The published sizes with random weights; written once into `folder`."""
    place = folder / str(chosen.model)
    if not place.is_dir():
        import_module("model_zoo.embedded.benchmark").prepare(chosen.model, place, chosen.device, chosen.layers)
    return place


def cell_of(place: Path, chosen: argparse.Namespace, *overrides: str) -> config.Cell:
    """A cell of `capbench run` over that checkpoint."""
    torch.set_num_threads(chosen.threads)
    fixed = [f"model={chosen.model}", "weights=hub", f"model.hub={place}", f"model.dtype={chosen.dtype}"]
    fixed += [f"dataset.size={chosen.pixels}", f"dataset.train={chosen.samples}", f"dataset.test={chosen.samples}"]
    fixed += [value.format(edge=chosen.edge, area=chosen.edge**2) for value in EDGES[chosen.model]]
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def report(rows: Sequence[dict[str, Any]], chosen: argparse.Namespace) -> None:
    """Print the figures and, where asked, write them with what they depend on."""
    found = provenance.environment()["packages"] | {"trl": _version("trl")}
    facts = {
        name: getattr(chosen, name) for name in ("model", "dtype", "layers", "edge", "pixels", "samples", "threads")
    }
    peak = matmul_rate(getattr(torch, chosen.dtype), chosen.device)
    table = pd.DataFrame(rows).assign(
        **{name: "all" if value is None else value for name, value in facts.items()},
        matmul_gflops_per_s=peak / 1e9,
        cores=os.cpu_count(),
        device=provenance.device_name(chosen.device),
        versions=" ".join(f"{name}={found[name]}" for name in PACKAGES),
        code=provenance.code_version(),
        measured_at=provenance.now(),
    )
    if "gflops_per_s" in table:
        table.insert(len(rows[0]), "share_of_matmul", table["gflops_per_s"] * 1e9 / peak)
    Console(width=200).print(table.iloc[:, : len(rows[0]) + 1].to_string(index=False), markup=False)
    if chosen.out:
        write_csv(_joined(table, chosen.out), chosen.out)


def _joined(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """With the rows of the file that are of something else."""
    before = pd.read_csv(path) if path.is_file() else table.iloc[:0]
    if not set(KEY) <= set(before.columns):
        return table
    same = before[KEY].apply(tuple, axis=1).isin(table[KEY].apply(tuple, axis=1))
    return pd.concat([before[~same], table], ignore_index=True)
