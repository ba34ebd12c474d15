"""Times the statistics and the rebuild of all tables on made-up scores of a given size.

    python -m harness.benchmarks.leaderboard --out results/benchmarks/leaderboard.csv

statistics: bootstrap, intervals, ranks and the permutation test of all pairs of systems, in memory.
rebuild: `capbench leaderboard` as a whole command over a folder of runs, each run a row of its own (the hardest case):
cold, with nothing but the runs there, and again; the tables of both must be the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from harness import config
from harness.benchmarks._runner import Benchmark, Row, capbench, here
from harness.contracts import Dataset, Generated, Query, Sample, ScoreProtocol
from harness.store import Journal, JournalRow, digest, file_digest, write_json, write_text
from harness.tables import stats
from harness.tables.columns import RUN_COLUMNS

TEXT = "axial coronal chest abdomen shows a small large nodule mass effusion in the left right lung lobe"
WORDS = TEXT.split()
MODALITIES = ("CT", "MRI", "PET", "US", "X-ray", "angiography")

Times = NDArray[np.float64]


# ---------------------------------------------------------------- statistics


def time_statistics(systems: int, images: int, trials: int) -> dict[str, Times]:
    """Seconds, by the clock and of all cores, of what a board is made of; nine columns for each system."""
    rng = np.random.default_rng(0)
    skill = rng.normal(0, 0.02, size=(systems, 1, 1))
    values = np.clip(rng.beta(2, 5, size=(1, images, 9)) + skill, 0, 1)
    values = values + rng.normal(0, 0.05, size=(systems, images, 9))
    start = _clock()
    means = stats.joint(values, trials, 0)
    stats.interval(means)
    stats.ranks(means[:, :, -1])
    middle = _clock()
    p = stats.permutation(values, trials, 0)
    for column in np.moveaxis(p[np.triu_indices(systems, k=1)], -1, 0):
        stats.holm(column)
    return {"bootstrap": middle - start, "permutation": _clock() - middle}


def _clock() -> Times:
    """Seconds so far: by the clock, and of all cores for this process and the commands it started."""
    spent = os.times()
    return np.array([time.perf_counter(), spent.user + spent.system + spent.children_user + spent.children_system])


# ---------------------------------------------------------------- a folder of runs


def make_results(
    results: Path, runs: int, samples: int, seeds: int = 1, dataset: Mapping[str, Any] | None = None
) -> None:
    """A results folder as `capbench run` and `capbench score` leave it, the tables not built.

    seeds: runs that differ in nothing else.
    dataset: the node of one whose test split the runs are about; without it the samples are made up too.
    """
    rng = np.random.default_rng(0)
    protocol: ScoreProtocol = config.build_node(config.choice("protocol", "embedded"), "protocol")
    known: Dataset | None = config.build_node(dataset, "dataset") if dataset else None
    facts = known.load("test").samples if known else _made_up(rng, samples)
    references = [sample.caption for sample in facts]
    queries = [Query(sample, "Describe the picture in one caption.") for sample in facts]
    hard = rng.beta(2, 5, size=len(facts))
    for place in range(runs):
        variant, seed = divmod(place, seeds)
        folder = results / "runs" / f"model{variant:04d}-targeted-plain-s{seed}-{digest(place)[:10]}"
        rows = [JournalRow.ok(query, Generated(_text(rng, 12), 20, truncated=False)).taking(0.01) for query in queries]
        Journal(folder / "captions.jsonl").append(rows)
        _write_manifest(folder, variant, seed, references, dataset)
        _write_scores(
            folder, protocol, hard + rng.normal(0.02 * (variant % 7), 0.1, size=(len(protocol.columns), len(facts)))
        )


def _made_up(rng: np.random.Generator, count: int) -> list[Sample]:
    references = [_text(rng, int(rng.integers(5, 30))) for _ in range(count)]
    return [
        Sample(f"image_{n:06d}", (), text, "test", MODALITIES[int(rng.integers(6))], (*WORDS[: rng.integers(1, 6)],))
        for n, text in enumerate(references)
    ]


def _text(rng: np.random.Generator, words: int) -> str:
    return " ".join(WORDS[place] for place in rng.integers(len(WORDS), size=words))


def _write_manifest(
    folder: Path, variant: int, seed: int, references: Sequence[str], dataset: Mapping[str, Any] | None
) -> None:
    row = {name: 0 for name in RUN_COLUMNS if name.startswith(("n_", "params_", "peak"))} | {
        "run_id": folder.name[-10:],
        "fit_id": digest([variant, seed])[:10],
        "dataset": "made-up",
        "split": "test",
        "n_requested": len(references),
        "n_ok": len(references),
        "model": f"model{variant:04d}",
        "class": "LVLM",
        "weights": "embedded",
        "strategy": "targeted",
        "prompt": "plain",
        "modality": "none",
        "seed": seed,
        "captions_per_s": 10.0,
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    config = {"model": {"name": variant}, "seed": seed} | ({"dataset": dict(dataset)} if dataset else {})
    manifest = {"schema": 1, "kind": "run", "status": "ok", "identity": {"data": digest(references)}, "row": row}
    manifest |= {"variant": digest(variant), "config_hash": "0", "config": config, "code_version": "benchmark"}
    write_json(folder / "manifest.json", manifest)


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
    start = _clock()
    capbench("leaderboard", f"results={results}")
    return _clock() - start


def _tables(results: Path) -> dict[str, str]:
    folders = (results, *(results / "runs").iterdir())
    files = (path for folder in folders for path in folder.iterdir() if path.suffix in (".csv", ".md", ".tex"))
    return {str(path): file_digest(path) for path in files}


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Benchmark):
    """A row for each figure of the statistics and of the command."""

    systems: Annotated[int, "of the statistics"] = 10
    images: Annotated[int, "of each system"] = 20_000
    trials: Annotated[int, "of bootstrap and permutation"] = 10_000
    runs: Annotated[int, "of the folder"] = 1_000
    samples: Annotated[int, "of each run"] = 1_000
    seeds: Annotated[int, "runs that share a row of the leaderboard"] = 1
    results: Annotated[Path | None, "keep the folder of runs here; what is there is used again"] = None

    def rows(self) -> Iterator[Row]:
        """Seconds by the clock and of all cores."""
        seconds = time_statistics(self.systems, self.images, self.trials)
        with TemporaryDirectory(prefix="leaderboard-") as scratch:
            results = self.results or Path(scratch)
            if not (results / "runs").is_dir():
                make_results(results, self.runs, self.samples, self.seeds)
            seconds |= time_rebuild(results)
        sizes = {name: getattr(self, name) for name in ("systems", "images", "trials", "runs", "samples", "seeds")}
        for figure, (wall, cores) in seconds.items():
            yield (
                {"figure": figure, "seconds": wall, "cpu_seconds": cores} | sizes | here() | {"numpy": np.__version__}
            )


main = Leaderboard.main

if __name__ == "__main__":
    main()
