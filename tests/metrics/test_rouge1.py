"""ROUGE-1 and the preprocessing of ImageCLEF, against counts by hand."""

import collections
import random
import re

import numpy as np
import pytest

from harness.metrics._text import preprocess
from harness.metrics.rouge1 import Rouge1
from tests.support.metric_data import REFERENCES, numbers, pair


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # computed with the official evaluator's three steps
        (
            "Axial T2-weighted MRI showing a 3.5 × 2 cm mass (arrow).",
            "axial tnumberweighted mri showing a numbernumber × number cm mass arrow",
        ),
        (
            "CT scan: 10/12 cases, 5–6 mm nodules; L4/L5",
            "ct scan numbernumber cases number–number mm nodules lnumberlnumber",
        ),
        ("...", ""),
        ("  ", "  "),
    ],
)
def test_imageclef_preprocessing(text, expected):
    assert preprocess(text, "imageclef") == expected
    assert preprocess(text, "none") == text


def rouge1_by_hand(reference: str, candidate: str) -> list[float]:
    left, right = (
        collections.Counter(re.findall(r"[a-z0-9]+", preprocess(text, "imageclef"))) for text in (reference, candidate)
    )
    common = (left & right).total()
    precision, recall = (common / side.total() if side else 0.0 for side in (right, left))
    return [precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0]


def test_rouge1_equals_a_count_by_hand(metrics):
    pairs = [pair(*random.Random(seed).choices(REFERENCES, k=2)) for seed in range(100)]
    expected = [rouge1_by_hand(one.reference, one.candidate) for one in pairs]
    np.testing.assert_allclose(numbers(metrics["rouge1"].score(pairs, [])), expected, atol=1e-12)


def test_rouge1_options_change_value_and_signature():
    plain, stemmed, raw = (
        Rouge1("rouge1", use_stemmer=stemmer, preprocess=how)
        for stemmer, how in ((False, "imageclef"), (True, "imageclef"), (False, "none"))
    )
    assert len({metric.signature() for metric in (plain, stemmed, raw)}) == 3
    values = []
    for metric in (plain, stemmed, raw):
        metric.load("cpu", {})
        (score,) = metric.score([pair("T2-weighted nodules", "T1-weighted nodule")], [])
        values.append(score.values["f1"])
    # "tnumberweighted nodules": 1 of 2 words; stemmed: both; raw "t2 weighted nodules": 1 of 3
    assert values == pytest.approx([1 / 2, 1, 1 / 3])
