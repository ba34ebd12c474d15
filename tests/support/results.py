"""Made-up results folders, and what their tables hold."""

from pathlib import Path

from harness.benchmarks.leaderboard import make_results

PARTS = ["bertscore", "rouge", "similarity", "bleurt"]


def made_up(folder: Path, runs: int = 6, samples: int = 40, seeds: int = 1) -> Path:
    make_results(folder, runs, samples, seeds)
    return folder


def contents(results: Path) -> dict[str, bytes]:
    files = [*results.glob("*.csv"), *results.glob("*.md"), *results.glob("*.tex"), *results.glob("runs/*/samples.csv")]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}
