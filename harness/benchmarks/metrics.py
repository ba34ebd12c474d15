"""Times the six metrics against the calling pattern of the official evaluators, on the same weights and captions.

    python -m harness.benchmarks.metrics --captions FILE.csv --out results/benchmarks/metrics.csv

Ten systems are made from the captions; the official pattern has no state between calls, so that networks are timed on
a random part of the pairs and scaled to all of them. The values of that part must agree. Reading checkpoints is counted
on neither side. Each side has a process of its own, so that the memory is ours.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar
from unittest.mock import patch

import pandas as pd
import torch

from harness import config
from harness.benchmarks import _checkpoints, _official
from harness.benchmarks._real import DTYPES, matmul_rate, operations
from harness.benchmarks._runner import Benchmark, Row, here
from harness.contracts import ImageSource, Metric, Pair, ScoreProtocol
from harness.machine.terminal import console
from harness.scoring.caption_files import CaptionFiles, read_captions
from harness.scoring.score import Column, Scheme, score
from harness.store import JournalRow

NETWORKS = ("similarity", "bertscore", "bleurt", "alignscore")
HEADLINE = {
    "similarity": "cosine",  # `similarity` is cut off at 0
    "bertscore": "f1",
    "rouge1": "f1",
    "bleurt": "score",
    "umls_f1": "f1",
    "alignscore": "score",
}
SIX = tuple(HEADLINE)
AGREE = 2e-4  # of float32 values, relative to 1


@dataclass(frozen=True)
class Task:
    """Captions of several systems for the same pictures and references."""

    references: Sequence[str]
    systems: Sequence[Sequence[str]]
    images: Mapping[str, ImageSource]

    def rows(self, system: int) -> list[JournalRow]:
        """As the scoring stage reads them."""
        texts = zip(self.references, self.systems[system], strict=True)
        return [JournalRow.of_texts(str(place), *both) for place, both in enumerate(texts)]

    def pair(self, system: int, place: int) -> Pair:
        """As a metric sees it."""
        return Pair(self.references[place], self.systems[system][place], self.images[str(place)])


def make_task(captions: Sequence[str], systems: int, samples: int, folder: Path) -> Task:
    """The higher a system's number, the more words it drops and the more captions of other pictures it gives.

    The pictures are drawn, and lie as files in `folder`.
    """
    references = list(captions[:samples])
    made = []
    for system in range(systems):
        rng = random.Random(system)
        made.append([_candidate(text, references, rng, 0.1 + 0.08 * system) for text in references])
    return Task(references, made, _pictures(len(references), folder))


def _pictures(count: int, folder: Path) -> dict[str, ImageSource]:
    drawn = config.build(config.cells("run", [f"dataset.test={count}", "dataset.size=224"])[0], "dataset")
    folder.mkdir()
    names = [f"{place}.png" for place in range(count)]
    for name, sample in zip(names, drawn.load("test").samples, strict=True):
        sample.images[0].load().save(folder / name)
    table = pd.DataFrame({"id": range(count), "image": names, "caption": "-", "split": "test"})
    table.to_csv(folder / "table.csv", index=False)
    wanted = ["dataset=table", f"dataset.path={folder / 'table.csv'}", f"dataset.cache={folder / 'cache'}"]
    read = config.build(config.cells("run", wanted)[0], "dataset").load("test").samples
    return {sample.id: sample.images[0] for sample in read}


def _candidate(text: str, others: Sequence[str], rng: random.Random, noise: float) -> str:
    source = rng.choice(others) if rng.random() < noise else text
    words = [word for word in source.split() if rng.random() > noise / 2]
    return " ".join(words) or source


@dataclass(frozen=True)
class Setting:
    """What both processes are given."""

    task: Task
    folders: Mapping[str, Path]
    layer: int
    dtype: str
    device: str

    def metric(self, name: str) -> Metric:
        """Ours, on the random checkpoints; MedCAT and ROUGE as they are. Not loaded."""
        options: dict[str, Any] = {}
        if name in NETWORKS:
            options = {"checkpoint": str(self.folders[name]), "dtype": self.dtype}
        if name == "bertscore":
            options |= {"layer": self.layer, "idf": "references"}
        if name == "alignscore":
            file = self.folders[name] / "AlignScore-base.ckpt"
            options |= {"checkpoint": str(file), "tokenizer": str(self.folders[name])}
        metric: Metric = config.build_node(config.choice("metric", name) | options, f"metric.{name}")
        return metric

    def official(self, name: str) -> _official.Calls:
        """The official calls, their model loaded."""
        make: Callable[..., _official.Calls] = getattr(_official, name)
        if name not in NETWORKS:
            return make()
        more = (self.task.references, self.layer) if name == "bertscore" else ()
        return make(self.folders[name], *more, self.device)


def time_ours(metric: Metric, task: Task, results: Path, device: str) -> tuple[float, list[float]]:
    """Seconds of the scoring stage over all systems, files and cache included, and the systems' means."""
    reading, kind, load = [0.0], type(metric), type(metric).load

    def timed(self: Metric, device: str, features: MutableMapping[str, bytes]) -> None:
        start = time.perf_counter()
        load(self, device, features)
        reading[0] += time.perf_counter() - start

    value = HEADLINE[metric.name]
    protocol = ScoreProtocol("benchmark", 1, {metric.name: {}}, {}, metric.name)
    systems = range(len(task.systems))
    runs = [CaptionFiles(results / f"{n}", {"status": "ok"}, given=tuple(task.rows(n))) for n in systems]
    start = time.perf_counter()
    with patch.object(kind, "load", timed):
        scheme = Scheme(protocol, [Column(metric.name, metric, value)])
        ended = score(runs, [scheme], device, results, lambda _: task.images)
    seconds = time.perf_counter() - start - reading[0]
    if ended.unfilled:
        raise SystemExit(f"{metric.name}: {ended.unfilled[metric.name]}")
    files = [next((run.folder / "scores").glob(f"{metric.name}-*.csv")) for run in runs]
    return seconds, [float(pd.read_csv(file)[value].mean()) for file in files]


def repeats(name: str) -> int:
    """The best of five counts where a second decides."""
    return 1 if name in NETWORKS else 5


def measure_ours(name: str, setting: Setting, places: Sequence[tuple[int, int]], results: Path) -> dict[str, Any]:
    """Our side of a row; `values`: those of the pairs at some places."""
    task, metric = setting.task, setting.metric(name)
    first = [
        time_ours(setting.metric(name), task, results / str(turn), setting.device) for turn in range(repeats(name))
    ]
    seconds, means = min(first)
    again, _ = time_ours(metric, task, results / "0", setting.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pairs = [task.pair(*place) for place in places]
    metric.load(setting.device, {})  # without what the cache keeps
    start = time.perf_counter()
    found = metric.score(pairs, task.references)
    part = time.perf_counter() - start
    metric.load(setting.device, {})
    flops = operations(partial(metric.score, pairs, task.references)) if name in NETWORKS else 0.0
    return {
        "ours_s": seconds,
        "again_s": again,
        "gflops_per_s": flops / part / 1e9,
        "peak_gib": peak,
        "ranking": " ".join(str(place) for place in sorted(range(len(means)), key=lambda place: -means[place])),
        "values": [made.values[HEADLINE[name]] for made in found],
    }


def measure_official(name: str, setting: Setting, places: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The other side: its seconds are scaled from the given places to all pairs."""
    task = setting.task
    run = setting.official(name)
    pairs = [task.pair(*place) for place in places]
    run(pairs[:8])  # what is done once is not counted
    taken = []
    for _ in range(repeats(name)):
        start = time.perf_counter()
        values = run(pairs)
        taken.append(time.perf_counter() - start)
    seconds = min(taken)
    return {"official_s": seconds * len(task.systems) * len(task.references) / len(pairs), "values": values}


def measure(
    name: str, setting: Setting, part: int, pools: Sequence[ProcessPoolExecutor], results: Path
) -> dict[str, Any]:
    """One row of the table. One side after the other: each has all cores."""
    task = setting.task
    places = [(system, place) for system in range(len(task.systems)) for place in range(len(task.references))]
    if name in NETWORKS:
        places = random.Random(0).choices(places, k=part)
    ours = pools[0].submit(measure_ours, name, setting, places, results).result()
    theirs = pools[1].submit(measure_official, name, setting, places).result()
    gap = max(abs(a - b) for a, b in zip(ours.pop("values"), theirs.pop("values"), strict=True))
    speedup = theirs["official_s"] / ours["ours_s"]
    return {"metric": name, **theirs, **ours, "speedup": speedup, "largest_difference": gap}


def circumstances(setting: Setting) -> dict[str, Any]:
    """What a row was measured on; the matrix rate is taken beside each row, since it drifts by the hour."""
    return {
        "dtype": setting.dtype,
        "systems": len(setting.task.systems),
        "samples": len(setting.task.references),
        "threads": torch.get_num_threads(),
        "matmul_gflops_per_s": matmul_rate(getattr(torch, setting.dtype), setting.device) / 1e9,
        **here(setting.device),
        "torch": torch.__version__,
    }


@dataclass(frozen=True, kw_only=True)
class Metrics(Benchmark):
    """A row for each metric."""

    key: ClassVar = ("metric", "dtype", "device", "samples")
    captions: Annotated[Path, "csv, tsv or jsonl with an id and a caption column"]
    systems: Annotated[int, "made from the captions"] = 10
    samples: Annotated[int, "pairs of each system"] = 1000
    part: Annotated[int, "pairs on which the official pattern is timed for networks"] = 100
    metrics: Annotated[Sequence[str], "in this order", SIX] = SIX
    dtype: Annotated[str, "of networks", DTYPES] = "float32"
    device: Annotated[str, "of both sides: cpu or cuda"] = "cpu"
    tiny: Annotated[bool, "networks of two layers, to try the benchmark out"] = False

    def rows(self) -> Iterator[Row]:
        """Seconds of both sides and the largest difference of their values."""
        texts = [text for text in read_captions(self.captions, "captions").values() if text.strip()]
        with TemporaryDirectory(prefix="metrics-") as scratch:
            task = make_task(texts, self.systems, self.samples, Path(scratch) / "pictures")
            folders = _checkpoints.write(Path(scratch) / "checkpoints", texts, tiny=self.tiny)
            setting = Setting(task, folders, 2 if self.tiny else 12, self.dtype, self.device)
            server = get_context("forkserver")  # not forked from here: the memory of a side is its own
            with ProcessPoolExecutor(1, server) as ours, ProcessPoolExecutor(1, server) as theirs:
                for name in self.metrics:
                    measured = measure(name, setting, self.part, (ours, theirs), Path(scratch) / name)
                    yield measured | circumstances(setting)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Raises SystemExit where the values differ."""
    table = Metrics.main(argv)
    ours, theirs = table["ours_s"].sum(), table["official_s"].sum()
    console.print(f"all: {theirs:.0f} s against {ours:.0f} s, {theirs / ours:.1f}x")
    wrong = table[(table["largest_difference"] > AGREE) & (table["dtype"] == "float32")]
    if len(wrong):
        raise SystemExit(f"the values differ: {', '.join(wrong['metric'])}")


if __name__ == "__main__":
    main()
