"""Times the six metrics against the calling pattern of the official evaluators, on the same weights and captions.

    python -m harness.benchmarks.metrics --captions FILE.csv --out results/benchmarks/metrics.csv

Ten systems are made from the captions; the official pattern has no state between calls, so that networks are timed on
a random part of the pairs and scaled to all of them. The values of that part must agree. Reading checkpoints is counted
on neither side. Each side has a process of its own, so that the memory is ours.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from rich.console import Console

from harness import config
from harness.benchmarks import _checkpoints, _official
from harness.benchmarks._peak import matmul_rate, operations
from harness.contracts import ImageSource, Metric, Pair, ScoreProtocol
from harness.machine import provenance
from harness.scoring.caption_files import read_captions
from harness.scoring.score import Column, Plan, Scorable, score

SIX = ("similarity", "bertscore", "rouge1", "bleurt", "umls_f1", "alignscore")
NETWORKS = ("similarity", "bertscore", "bleurt", "alignscore")
HEADLINE = {
    "similarity": "cosine",  # `similarity` is cut off at 0
    "bertscore": "f1",
    "rouge1": "f1",
    "umls_f1": "f1",
    "bleurt": "score",
    "alignscore": "score",
}
AGREE = 2e-4  # of float32 values, relative to 1


@dataclass(frozen=True)
class Task:
    """Captions of several systems for the same pictures and references."""

    references: Sequence[str]
    systems: Sequence[Sequence[str]]
    images: Mapping[str, ImageSource]

    def rows(self, system: int) -> list[dict[str, Any]]:
        """As the scoring stage reads them."""
        texts = zip(self.references, self.systems[system], strict=True)
        return [
            {"id": str(place), "status": "ok", "reference": reference, "caption": caption}
            for place, (reference, caption) in enumerate(texts)
        ]

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
        """Ours, not loaded."""
        return metrics(self.folders, self.layer, self.dtype)[name]


def metrics(folders: Mapping[str, Path], layer: int, dtype: str) -> dict[str, Metric]:
    """The six, on the random checkpoints; MedCAT and ROUGE as they are."""
    options: dict[str, dict[str, Any]] = {name: {"dtype": dtype} for name in NETWORKS}
    options["similarity"] |= {"checkpoint": str(folders["similarity"])}
    options["bertscore"] |= {"checkpoint": str(folders["bertscore"]), "layer": layer, "idf": "references"}
    options["bleurt"] |= {"checkpoint": str(folders["bleurt"])}
    file = folders["alignscore"] / "AlignScore-base.ckpt"
    options["alignscore"] |= {"checkpoint": str(file), "tokenizer": str(folders["alignscore"])}
    return {
        name: config.build_node(config.choice("metric", name) | options.get(name, {}), f"metric.{name}") for name in SIX
    }


def officials(setting: Setting) -> dict[str, Callable[[], Any]]:
    """Makers of the official calls, so that their models are loaded when their turn comes."""
    folders, device = setting.folders, setting.device
    return {
        "similarity": partial(_official.similarity, folders["similarity"], device),
        "bertscore": partial(_official.bertscore, folders["bertscore"], setting.task.references, setting.layer, device),
        "rouge1": _official.rouge,
        "bleurt": partial(_official.bleurt, folders["bleurt"], device),
        "umls_f1": _official.umls_f1,
        "alignscore": partial(_official.alignscore, folders["alignscore"], device),
    }


def time_ours(metric: Metric, task: Task, results: Path, device: str) -> tuple[float, list[float]]:
    """Seconds of the scoring stage over all systems, files and cache included, and the systems' means."""
    reading, kind, load = [0.0], type(metric), type(metric).load

    def timed(self: Metric, device: str, features: MutableMapping[str, bytes]) -> None:
        start = time.perf_counter()
        load(self, device, features)
        reading[0] += time.perf_counter() - start

    value = HEADLINE[metric.name]
    protocol = ScoreProtocol("benchmark", 1, {metric.name: {}}, {}, metric.name)
    runs = [Scorable(results / f"{n}", task.rows(n), lambda: task.images) for n in range(len(task.systems))]
    start = time.perf_counter()
    with patch.object(kind, "load", timed):
        ended = score(runs, [Plan(protocol, [Column(metric.name, metric, value)])], device, results)
    seconds = time.perf_counter() - start - reading[0]
    if ended.blank:
        raise SystemExit(f"{metric.name}: {ended.blank[metric.name]}")
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
    run = officials(setting)[name]()
    pairs = [task.pair(*place) for place in places]
    run(pairs[:8])  # what is done once is not counted
    taken = []
    for _ in range(repeats(name)):
        start = time.perf_counter()
        values = run(pairs)
        taken.append(time.perf_counter() - start)
    seconds = min(taken)
    return {"official_s": seconds * len(task.systems) * len(task.references) / len(pairs), "values": values}


def row(name: str, setting: Setting, part: int, pools: Sequence[ProcessPoolExecutor], results: Path) -> dict[str, Any]:
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
        "device": provenance.device_name(setting.device),
        "code": provenance.code_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--captions", type=Path, required=True, help="csv, tsv or jsonl with an id and a caption column"
    )
    parser.add_argument("--out", type=Path, help="csv file, written after each metric; other rows stay")
    parser.add_argument("--systems", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument(
        "--part", type=int, default=100, help="pairs on which the official pattern is timed for networks"
    )
    parser.add_argument("--metrics", nargs="+", choices=SIX, default=list(SIX))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu", help="of both sides: cpu (default), cuda")
    parser.add_argument("--tiny", action="store_true", help="networks of two layers, to try the benchmark out")
    chosen = parser.parse_args()
    texts = [text for text in read_captions(chosen.captions, "captions").values() if text.strip()]
    console, rows = Console(width=200), list[dict[str, Any]]()
    with TemporaryDirectory(prefix="metrics-") as scratch:
        task = make_task(texts, chosen.systems, chosen.samples, Path(scratch) / "pictures")
        folders = _checkpoints.write(Path(scratch) / "checkpoints", texts, tiny=chosen.tiny)
        setting = Setting(task, folders, 2 if chosen.tiny else 12, chosen.dtype, chosen.device)
        server = get_context("forkserver")  # not forked from here: the memory of a side is its own
        with ProcessPoolExecutor(1, server) as ours, ProcessPoolExecutor(1, server) as theirs:
            for name in chosen.metrics:
                measured = row(name, setting, chosen.part, (ours, theirs), Path(scratch) / name)
                rows.append(measured | circumstances(setting))
                console.print(rows[-1])
                if chosen.out:
                    _write(pd.DataFrame(rows), chosen.out)
    table = pd.DataFrame(rows)
    totals = table[["ours_s", "official_s"]].sum()
    console.print(table.to_string(index=False))
    ours, theirs = totals["ours_s"], totals["official_s"]
    console.print(f"all: {theirs:.0f} s against {ours:.0f} s, {theirs / ours:.1f}x")
    wrong = table[(table["largest_difference"] > AGREE) & (chosen.dtype == "float32")]
    if len(wrong):
        raise SystemExit(f"the values differ: {', '.join(wrong['metric'])}")


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.is_file():
        before, key = pd.read_csv(path), ["metric", "dtype", "device", "samples"]
        again = before[key].apply(tuple, axis=1).isin(table[key].apply(tuple, axis=1))
        table = pd.concat([before[~again], table], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
