"""How often is a classifier right, and does it know? Confusion, calibration by temperature, reliability, intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import norm

Array = NDArray[np.float64]
Places = NDArray[np.int64]

HOTTEST = 20.0  # bound of the temperature on both sides: beyond, confidences are 1 or even


def temperature(logits: Array, truth: Places) -> float:
    """The one number that logits [n, k] are divided by so that their softmax fits the truth [n] (Guo et al. 2017).

    The targets are smoothed by 1 / (n + 2), as Platt 1999 does: a classifier without an error on few samples would
    otherwise be told to be certain. Raises nothing; 1 without samples.
    """
    n, k = logits.shape
    if n == 0:
        return 1.0
    targets = np.full((n, k), 1 / (n + 2) / max(k - 1, 1))
    targets[np.arange(n), truth] = 1 - 1 / (n + 2)

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum() / n)

    bound = np.log(HOTTEST)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def confidences(logits: Array, temperature: float) -> tuple[Array, Places]:
    """The share of the most likely class [n], and which one it is [n]."""
    shares = softmax(logits / temperature, axis=1)
    return shares.max(axis=1), shares.argmax(axis=1)


def reliability(confidence: Array, right: NDArray[np.bool_], bins: int) -> pd.DataFrame:
    """calibration.csv: per bin of equal width the mean confidence and the share of right answers, blank without any."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        sure = np.bincount(place, weights=confidence, minlength=bins) / n
        hits = np.bincount(place, weights=right, minlength=bins) / n
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "confidence": sure, "accuracy": hits, "n": n})


def expected_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a reliability table: the mean gap between confidence and accuracy over samples."""
    gaps = (table["confidence"] - table["accuracy"]).abs() * table["n"]
    return float(gaps.sum() / table["n"].sum())


def confusion(truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """confusion.csv: how often each class was taken for each; classes that the classifier never saw come last."""
    rows = [*classes, *sorted(set(truth) - set(classes))]
    pairs = Counter(zip(truth, predicted, strict=True))
    cells = [(one, other, pairs[one, other]) for one in rows for other in classes]
    return pd.DataFrame(cells, columns=["truth", "predicted", "n"])


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share (Wilson 1927); it stays inside 0 and 1 and has a width where all were right."""
    z = float(norm.ppf((1 + level) / 2))
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * float(np.sqrt(right * (n - right) / n + z * z / 4))
    return max(middle - half, 0.0), min(middle + half, 1.0)
