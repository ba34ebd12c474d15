"""Times the statistics and the rebuild of all tables on made-up scores of a given size.

    python -m harness.benchmarks.leaderboard --out results/benchmarks/leaderboard.csv

statistics: bootstrap, intervals, ranks and the permutation test of all pairs of systems, in memory.
rebuild: `capbench leaderboard` as a whole command over a folder of runs, each run a row of its own (the hardest case):
cold, with nothing but the runs there, and again; the tables of both must be the same bytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from harness import config
from harness.contracts import ScoreProtocol, Split
from harness.machine import provenance
from harness.store import Journal, digest, file_digest, write_json, write_text
from harness.tables import stats
from harness.tables.columns import RUN_COLUMNS

TEXT = "axial coronal chest abdomen shows a small large nodule mass effusion in the left right lung lobe"
WORDS = TEXT.split()
MODALITIES = ("CT", "MRI", "PET", "US", "X-ray", "angiography")

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """How much there is of everything."""

    systems: int
    images: int
    trials: int
    runs: int
    samples: int
    seeds: int


# ---------------------------------------------------------------- statistics


def time_statistics(sizes: Sizes) -> dict[str, Times]:
    """Seconds, by the clock and of all cores, of what a board is made of; nine columns for each system."""
    rng = np.random.default_rng(0)
    skill = rng.normal(0, 0.02, size=(sizes.systems, 1, 1))
    values = np.clip(rng.beta(2, 5, size=(1, sizes.images, 9)) + skill, 0, 1)
    values = values + rng.normal(0, 0.05, size=(sizes.systems, sizes.images, 9))
    start = _clock()
    means = stats.joint(values, sizes.trials, 0)
    stats.interval(means)
    stats.ranks(means[:, :, -1])
    middle = _clock()
    p = stats.permutation(values, sizes.trials, 0)
    for column in np.moveaxis(p[np.triu_indices(sizes.systems, k=1)], -1, 0):
        stats.holm(column)
    return {"bootstrap": middle - start, "permutation": _clock() - middle}


def _clock() -> Times:
    """Seconds so far: by the clock, and of all cores for this process and the commands it started."""
    spent = os.times()
    return np.array([time.perf_counter(), spent.user + spent.system + spent.children_user + spent.children_system])


# ---------------------------------------------------------------- a folder of runs


def make_results(results: Path, sizes: Sizes, dataset: Mapping[str, Any] | None = None) -> None:
    """A results folder as `capbench run` and `capbench score` leave it, the tables not built.

    dataset: the node of one whose test split the runs are about; without it the samples are made up too.
    """
    rng = np.random.default_rng(0)
    protocol: ScoreProtocol = config.build_node(config.choice("protocol", "embedded"), "protocol")
    facts = _made_up(rng, sizes.samples) if dataset is None else _known(dataset)
    references = [str(row["reference"]) for row in facts]
    hard = rng.beta(2, 5, size=len(facts))
    for place in range(sizes.runs):
        variant, seed = divmod(place, sizes.seeds)
        folder = results / "runs" / f"model{variant:04d}-targeted-plain-s{seed}-{digest(place)[:10]}"
        captions = [_text(rng, 12) for _ in references]
        rows = [
            {"id": facts[n]["id"], "status": "ok", "caption": caption, "tokens": 20, "truncated": False}
            | {"prompt": "Describe the picture in one caption.", **facts[n]}
            | {"seconds": 0.01}
            for n, caption in enumerate(captions)
        ]
        Journal(folder / "captions.jsonl").append(rows)
        _write_manifest(folder, variant, seed, references, dataset)
        _write_scores(
            folder, protocol, hard + rng.normal(0.02 * (variant % 7), 0.1, size=(len(protocol.columns), len(facts)))
        )


def _made_up(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    references = [_text(rng, int(rng.integers(5, 30))) for _ in range(count)]
    return [
        {"id": f"image_{n:06d}", "reference": reference, "modality": MODALITIES[int(rng.integers(6))]}
        | {"concepts": WORDS[: int(rng.integers(1, 6))]}
        for n, reference in enumerate(references)
    ]


def _known(dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    split: Split = config.build_node(dataset, "dataset").load("test")
    return [
        {"id": s.id, "reference": s.caption, "modality": s.modality, "concepts": list(s.concepts)}
        for s in split.samples
    ]


def _text(rng: np.random.Generator, words: int) -> str:
    return " ".join(WORDS[place] for place in rng.integers(len(WORDS), size=words))


def _write_manifest(
    folder: Path, variant: int, seed: int, references: Sequence[str], dataset: Mapping[str, Any] | None
) -> None:
    numbers: dict[str, Any] = {name: 0 for name in RUN_COLUMNS if name.startswith(("n_", "params_", "peak"))}
    row = numbers | {"run_id": folder.name[-10:], "fit_id": digest([variant, seed])[:10], "dataset": "made-up"}
    row |= {
        "split": "test",
        "n_requested": len(references),
        "n_ok": len(references),
        "model": f"model{variant:04d}",
        "class": "LVLM",
    }
    row |= {"weights": "embedded", "strategy": "targeted", "prompt": "plain", "modality": "none", "seed": seed}
    row |= {"captions_per_s": 10.0, "finished_at": "2026-01-01T00:00:00+00:00"}
    manifest = {"schema": 1, "kind": "run", "status": "ok", "identity": {"data": digest(references)}, "row": row}
    manifest |= {"variant": digest(variant), "config_hash": "0"}
    manifest["config"] = {"model": {"name": variant}, "seed": seed} | ({"dataset": dict(dataset)} if dataset else {})
    write_json(folder / "manifest.json", manifest | {"code_version": "benchmark"})


def _write_scores(folder: Path, protocol: ScoreProtocol, values: np.ndarray) -> None:
    columns: dict[str, dict[str, Any]] = {}
    for name, column in zip(protocol.columns, np.clip(values, 0, 1), strict=True):
        file = folder / "scores" / f"{name}-{digest(folder.name)[:10]}.csv"
        lines = (f"image_{n:06d},{float(value)!r},\n" for n, value in enumerate(column))
        write_text(file, f"id,{name},reason\n{''.join(lines)}")
        columns[name] = {"file": file.name, "sha256": file_digest(file), "value": name, "signature": f"{name}|v=1"}
        columns[name]["higher_is_better"] = True
    record = {"protocol": asdict(protocol), "columns": columns, "texts": "0"}
    write_json(folder / "scores" / f"{protocol.name}.json", record)


# ---------------------------------------------------------------- the command


def time_rebuild(results: Path) -> dict[str, Times]:
    """The same of the command, cold and repeated. Raises SystemExit when the tables are not the same bytes."""
    cold = _rebuild(results)
    first = _tables(results)
    warm = _rebuild(results)
    if _tables(results) != first:
        raise SystemExit("the tables of the second rebuild differ from those of the first")
    return {"rebuild, cold": cold, "rebuild, repeated": warm}


def _rebuild(results: Path) -> Times:
    command = [sys.executable, "-P", "-m", "harness.cli", "leaderboard", f"results={results}"]
    start = _clock()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _clock() - start


def _tables(results: Path) -> dict[str, str]:
    folders = (results, *(results / "runs").iterdir())
    files = (path for folder in folders for path in folder.iterdir() if path.suffix in (".csv", ".md", ".tex"))
    return {str(path): file_digest(path) for path in files}


def main(argv: Sequence[str] | None = None) -> None:
    """Time both and write one row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", type=int, default=10)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, default=1, help="runs that share a row of the leaderboard")
    parser.add_argument("--results", type=Path, help="keep the folder of runs here; what is there is used again")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(argv)
    sizes = Sizes(*(getattr(chosen, name) for name in Sizes.__dataclass_fields__))
    seconds = time_statistics(sizes)
    with TemporaryDirectory(prefix="leaderboard-") as scratch:
        results = chosen.results or Path(scratch)
        if not (results / "runs").is_dir():
            make_results(results, sizes)
        seconds |= time_rebuild(results)
    facts = {**asdict(sizes), "cores": len(os.sched_getaffinity(0)), "device": provenance.device_name("cpu")}
    table = pd.DataFrame(
        [(name, *both) for name, both in seconds.items()], columns=["figure", "seconds", "cpu_seconds"]
    ).assign(**facts, code=provenance.code_version(), numpy=np.__version__)
    Console(width=200).print(table.to_string(index=False))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(chosen.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
