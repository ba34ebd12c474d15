"""What the tests of the metrics share: real and phantom captions, built metrics.

tests/data/roco_v1_ccby.csv holds twelve figure captions of ROCO v1 (Pelka et al. 2018,
doi 10.1007/978-3-030-01364-6_20), CC BY, unchanged; `pmcid` names the article whose authors wrote it. Their `concepts`
were read by hand from the captions.
"""

import csv
import random
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf

from harness.contracts import Metric, Pair, Score, ScoreProtocol
from harness.datasets.phantom import Phantom

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "conf" / "metric").glob("*.yaml"))
with (ROOT / "tests" / "data" / "roco_v1_ccby.csv").open(encoding="utf-8", newline="") as file:
    REAL = list(csv.DictReader(file))
PHANTOM = Phantom("phantom", train=600, valid=60, test=150, size=128, seed=2025, style="radiology", limit=None)
SAMPLES = PHANTOM.load("test").samples
REFERENCES = [row["caption"] for row in REAL] + [sample.caption for sample in SAMPLES[:38]]


def build(name: str, **options) -> Metric:
    """The metric of conf/metric/<name>.yaml, as the entry points build it."""
    config = OmegaConf.merge(OmegaConf.load(ROOT / "conf" / "metric" / f"{name}.yaml"), options)
    return instantiate(config, _convert_="all")


def protocols() -> list[ScoreProtocol]:
    files = sorted((ROOT / "conf" / "protocol").glob("*.yaml"))
    return [instantiate(OmegaConf.load(path), _convert_="all") for path in files]


def pair(reference: str, candidate: str) -> Pair:
    return Pair(reference, candidate, image=SAMPLES[0].images[0])


def mixed_pairs(count: int = 20) -> list[Pair]:
    """References against themselves, against others and against nothing, of very different lengths."""
    rng = random.Random(0)
    candidates = [*rng.sample(REFERENCES, 12), *REFERENCES[:4], "", "CT", " ".join(REFERENCES[:8]), "..."]
    return [pair(reference, candidate) for reference, candidate in zip(REFERENCES, candidates, strict=False)][:count]


def numbers(scores: list[Score]) -> np.ndarray:
    """[scores, values]; NaN where a score lacks a value that another one has."""
    names = list(dict.fromkeys(name for score in scores for name in score.values))
    return np.array([[score.values.get(name, np.nan) for name in names] for score in scores])
