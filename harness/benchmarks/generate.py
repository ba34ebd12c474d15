"""Captions per second: one picture at a time, as others ask a model, against batches and kept features.

    python -m harness.benchmarks.generate --out results/benchmarks/generate.csv

A published size (SmolVLM-500M's) with random weights, float32, on the CPU. "One at a time" is processor,
`model.generate` and decode for each picture, with transformers' own image processor. Captions hardly ever stop, so
that each has all tokens. Starting vLLM, where it is installed, and compiling are not counted; `setup_s` says what they
take. `gflops_per_s` counts what a side has to compute: no tower where the features are kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import config
from harness.batches.feature_files import FeatureFiles
from harness.batches.features import Features
from harness.benchmarks._peak import operations
from harness.benchmarks._real import cell_of, checkpoint, options, queries, report, stock
from harness.contracts import Decoding, Engine, Example, Query
from harness.inference import vllm
from harness.inference.generate import generate
from harness.store import Journal
from harness.training.fit import examples

ROOM = 50 * 2.0**30


@dataclass
class Task:
    """A loaded captioner and what it is asked."""

    captioner: Any
    asked: Sequence[Query]
    decoding: Decoding
    folder: Path
    device: str
    engine: Engine | None = None

    def one_at_a_time(self) -> list[str]:
        """A call of the model for each picture."""
        stock(self.captioner)
        self.captioner.model.eval()
        return [self.captioner.generate(examples([query]), self.decoding)[0].caption for query in self.asked]

    def batches(self, *, keep: bool) -> list[str]:
        """`capbench run`'s way."""
        features = Features(self.captioner, FeatureFiles(self.folder / "features", ROOM), {}) if keep else None
        with TemporaryDirectory(dir=self.folder) as place:
            journal = Journal(Path(place) / "captions.jsonl")
            generate(self.captioner, self.asked, self.decoding, journal, None, features, self.engine)
            return [row.caption or "" for row in journal.latest()]


@dataclass(frozen=True)
class Side:
    """A way to caption: batches or one at a time, features of the pictures kept or not, and values of `Decoding`."""

    batches: bool = True
    keep: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    def run(self, task: Task) -> list[str]:
        """All captions."""
        return task.batches(keep=self.keep) if self.batches else task.one_at_a_time()


SIDES = {
    "one at a time": Side(batches=False),
    "batches": Side(),
    "batches, features made": Side(keep=True),
    "batches, features kept": Side(keep=True),
    "batches, features kept, static keys": Side(keep=True, values={"kv_cache": "static"}),
    "batches, features kept, compiled": Side(keep=True, values={"kv_cache": "compiled"}),
    "vLLM, features kept": Side(keep=True, values={"engine": "vllm"}),
}
"""Those with kept features come after the one that makes them."""


def measure(chosen: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each side; each reads the model anew."""
    place = checkpoint(folder, chosen)
    rows: list[dict[str, Any]] = []
    first: list[str] = []
    per_caption: dict[bool, float] = {}
    for name in chosen.sides:
        side = SIDES[name]
        if side.values.get("engine") == "vllm" and importlib.util.find_spec("vllm") is None:
            continue
        cell = cell_of(place, chosen, f"generate.max_new_tokens={chosen.tokens}", f"generate.batch_size={chosen.batch}")
        captioner = config.build(cell, "model")
        decoding = replace(config.build(cell, "generate"), **side.values)
        task = Task(captioner, queries(cell, "test"), decoding, folder, chosen.device)
        start = time.perf_counter()
        with _ready(task, side):
            setup, start = time.perf_counter() - start, time.perf_counter()
            captions = side.run(task)
            seconds = time.perf_counter() - start
        first = first or captions
        rows.append({
            "side": name, "captions_per_s": len(captions) / seconds, "seconds": seconds,
            "same_captions": sum(a == b for a, b in zip(captions, first, strict=True)), "captions": len(captions),
            "batch_size": chosen.batch if side.batches else 1, "new_tokens": chosen.tokens, "setup_s": setup,
        })  # fmt: skip
        rows[-1]["speedup"] = rows[-1]["captions_per_s"] / rows[0]["captions_per_s"]
        if not per_caption:
            per_caption = work(task)
        rows[-1]["gflops_per_s"] = per_caption["kept" in name] * rows[-1]["captions_per_s"] / 1e9
    return rows


def work(task: Task) -> dict[bool, float]:
    """Operations of a caption, by whether its features are kept."""
    (told,) = examples(task.asked[:1])
    seen = Example((), told.prompt, seen=task.captioner.encode_images(task.captioner.preprocess(told)))
    one = partial(task.captioner.generate, decoding=task.decoding)
    return {False: operations(partial(one, [told])), True: operations(partial(one, [seen]))}


@contextmanager
def _ready(task: Task, side: Side) -> Iterator[None]:
    """The model is read, and what is done at first use is done: small for most, minutes where the step is compiled."""
    task.captioner.load(task.device)
    if task.decoding.engine == "vllm":
        probes = vllm.probes(task.asked[:1])
        with vllm.started(task.captioner, task.decoding, task.device, probes, lambda: None) as made:
            task.engine = made[1]
            yield
        return
    task.captioner.generate(examples(task.asked[:1]), replace(task.decoding, max_new_tokens=1))
    if task.decoding.kv_cache == "compiled":
        side.run(task)  # compiled for the sizes of these batches
    yield


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of a caption")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    chosen = parser.parse_args(argv)
    with TemporaryDirectory(prefix="capbench-") as folder:
        report(measure(chosen, Path(folder)), chosen)


if __name__ == "__main__":
    main()
