"""Captions per second: one picture at a time, as others ask a model, against batches and kept features.

    python -m harness.benchmarks.generate --out results/benchmarks/generate.csv

SmolVLM-500M's sizes with random weights, float32, on the CPU. "One at a time" is processor, `model.generate` and decode
for each picture, with transformers' own image processor. Captions hardly ever stop, so that each has all tokens.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import config
from harness.benchmarks._real import cell_of, checkpoint, options, queries, report, stock
from harness.contracts import Decoding, Query
from harness.feature_files import FeatureFiles
from harness.features import Features
from harness.fit import examples
from harness.generate import generate
from harness.store import Journal

ROOM = 50 * 2.0**30


def one_at_a_time(captioner: Any, asked: Sequence[Query], decoding: Decoding, folder: Path) -> list[str]:
    """A call of the model for each picture."""
    del folder
    stock(captioner)
    captioner.model.eval()
    return [captioner.generate(examples([query]), decoding)[0].caption for query in asked]


def ours(captioner: Any, asked: Sequence[Query], decoding: Decoding, folder: Path, name: str, keep: bool) -> list[str]:
    """`capbench run`'s way."""
    features = Features(captioner, FeatureFiles(folder / "features", ROOM), {}) if keep else None
    journal = Journal(folder / f"{name}.jsonl")
    generate(captioner, asked, decoding, journal, None, features)
    return [row["caption"] for row in journal.latest()]


def sides() -> dict[str, Callable[[Any, Sequence[Query], Decoding, Path], list[str]]]:
    """Name -> what makes all captions; "features kept" comes after "features made" has filled the cache."""
    return {
        "one at a time": one_at_a_time,
        "batches": partial(ours, name="plain", keep=False),
        "batches, features made": partial(ours, name="made", keep=True),
        "batches, features kept": partial(ours, name="kept", keep=True),
    }


def measure(chosen: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each side; each reads the model anew."""
    place = checkpoint(folder, chosen.layers)
    rows: list[dict[str, Any]] = []
    first: list[str] = []
    for name, run in sides().items():
        cell = cell_of(place, chosen, f"generate.max_new_tokens={chosen.tokens}", f"generate.batch_size={chosen.batch}")
        captioner, decoding = config.build(cell, "model"), config.build(cell, "generate")
        captioner.load("cpu")
        asked = queries(cell, "test")
        captioner.generate(examples(asked[:1]), Decoding(1, 1.0, 1))  # what is set up at first use
        start = time.perf_counter()
        captions = run(captioner, asked, decoding, folder)
        seconds = time.perf_counter() - start
        first = first or captions
        rows.append({
            "side": name, "captions_per_s": len(captions) / seconds, "seconds": seconds,
            "same_captions": sum(a == b for a, b in zip(captions, first, strict=True)), "captions": len(captions),
            "batch_size": 1 if name == "one at a time" else chosen.batch, "new_tokens": chosen.tokens,
        })  # fmt: skip
        rows[-1]["speedup"] = rows[-1]["captions_per_s"] / rows[0]["captions_per_s"]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of a caption")
    chosen = parser.parse_args(argv)
    with TemporaryDirectory(prefix="capbench-") as folder:
        report(measure(chosen, Path(folder)), chosen)


if __name__ == "__main__":
    main()
