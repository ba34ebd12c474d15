"""Made-up results folders, and what their tables hold."""

from pathlib import Path

from harness.benchmarks.leaderboard import make_results

EMBEDDED_COLUMNS = (  # of leaderboard.csv under the protocol `embedded`, as promised
    "rank", "model", "class", "strategy", "prompt", "modality", "seeds", "params_trained_pct",
    "similarity", "bertscore", "rouge", "bleurt", "umls_f1", "alignscore", "relevance", "relevance_ci_low",
    "relevance_ci_high", "factuality", "factuality_ci_low", "factuality_ci_high", "overall", "overall_ci_low",
    "overall_ci_high", "rank_low", "rank_high", "n", "captions_per_s", "peak_memory_bytes", "control",
)  # fmt: skip
PARTS = ["bertscore", "rouge", "similarity", "bleurt"]


def made_up(folder: Path, runs: int = 6, samples: int = 40, seeds: int = 1) -> Path:
    make_results(folder, runs, samples, seeds)
    return folder


def contents(results: Path) -> dict[str, bytes]:
    files = [*results.glob("*.csv"), *results.glob("*.md"), *results.glob("*.tex"), *results.glob("runs/*/samples.csv")]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}
