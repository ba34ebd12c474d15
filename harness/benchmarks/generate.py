"""Captions per second: one picture at a time, as others ask a model, against batches and kept features.

    python -m harness.benchmarks.generate --out results/benchmarks/generate.csv

A published size (SmolVLM-500M's) with random weights, float32, on the CPU. "One at a time" is processor,
`model.generate` and decode for each picture, with transformers' own image processor. Captions hardly ever stop, so
that each has all tokens. Starting vLLM, where it is installed, and compiling are not counted; `setup_s` says what they
take. `gflops_per_s` counts what a side has to compute: no tower where the features are kept.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import eq
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from harness import config
from harness.benchmarks._real import Comparison, features, operations, queries, stock
from harness.contracts import Decoding, Engine, Example, Query
from harness.inference import vllm
from harness.inference.generate import generate
from harness.store import Journal
from harness.training.fit import examples


@dataclass(frozen=True)
class Side:
    """A way to caption: batches or one at a time, features of the pictures kept or not, and values of `Decoding`."""

    batches: bool = True
    keep: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Task:
    """A loaded captioner and what it is asked."""

    captioner: Any
    asked: Sequence[Query]
    decoding: Decoding
    folder: Path
    device: str
    engine: Engine | None = None

    def captions(self, side: Side) -> list[str]:
        """By `capbench run`'s batches, or by a call of the model for each picture."""
        if not side.batches:
            stock(self.captioner)
            self.captioner.model.eval()
            return [self.captioner.generate(examples([query]), self.decoding)[0].caption for query in self.asked]
        kept = features(self.captioner, self.folder) if side.keep else None
        with TemporaryDirectory(dir=self.folder) as place:
            journal = Journal(Path(place) / "captions.jsonl")
            generate(self.captioner, self.asked, self.decoding, journal, None, kept, self.engine)
            return [row.caption or "" for row in journal.latest()]


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
        task.captions(side)  # compiled for the sizes of these batches
    yield


@dataclass(frozen=True, kw_only=True)
class Generate(Comparison):
    """A row for each side; each reads the model anew."""

    batch: Annotated[int, "pictures at once"] = 16
    tokens: Annotated[int, "of a caption"] = 64
    sides: Annotated[Sequence[str], "in this order", SIDES] = (*SIDES,)

    def measure(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Captions per second, and whether they are those of the first side."""
        sizes = (f"generate.max_new_tokens={self.tokens}", f"generate.batch_size={self.batch}")
        cell = self.cell(self.checkpoint(folder), *sizes)
        first: tuple[float, list[str]] | None = None
        per_caption: dict[bool, float] = {}
        for name in self.sides:
            side = SIDES[name]
            if side.values.get("engine") == "vllm" and importlib.util.find_spec("vllm") is None:
                continue
            decoding = replace(config.build(cell, "generate"), **side.values)
            task = Task(config.build(cell, "model"), queries(cell, "test"), decoding, folder, self.device)
            start = time.perf_counter()
            with _ready(task, side):
                setup, start = time.perf_counter() - start, time.perf_counter()
                captions = task.captions(side)
                seconds = time.perf_counter() - start
            rate = len(captions) / seconds
            first, per_caption = first or (rate, captions), per_caption or work(task)
            yield {
                "side": name, "captions_per_s": rate, "seconds": seconds,
                "same_captions": sum(map(eq, captions, first[1])), "captions": len(captions),
                "batch_size": self.batch if side.batches else 1, "new_tokens": self.tokens, "setup_s": setup,
                "speedup": rate / first[0], "gflops_per_s": per_caption["kept" in name] * rate / 1e9,
            }  # fmt: skip


main = Generate.main

if __name__ == "__main__":
    main()
