"""ROUGE-1 and UMLS F1 on 300 pairs against the plain loops that they stand for: exactly equal."""

import pytest

from harness.metrics._text import preprocess
from tests.support.metric_data import REFERENCES, SAMPLES, pair

TEXTS = [*REFERENCES, *(sample.caption for sample in SAMPLES[38:])]
PAIRS = [pair(reference, TEXTS[(n * 11 + 5) % len(TEXTS)]) for n, reference in enumerate(TEXTS * 2)]


def test_there_are_enough_pairs():
    assert len(PAIRS) >= 300
    assert sum(one.reference == one.candidate for one in PAIRS) < 10


def test_rouge1_equals_the_library_pair_by_pair(metrics):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1"], use_stemmer=False)
    for one, ours in zip(PAIRS, metrics["rouge1"].score(PAIRS, []), strict=True):
        theirs = scorer.score(*(preprocess(text, "imageclef") for text in (one.reference, one.candidate)))["rouge1"]
        assert ours.values == {"precision": theirs.precision, "recall": theirs.recall, "f1": theirs.fmeasure}


def test_umls_f1_equals_a_plain_loop_over_medcat(metrics):
    """Of overlapping names MedCAT keeps the longest, as it promises; see harness/metrics/_medcat.py."""
    cat = metrics["umls_f1"]._cat

    def concepts(text: str) -> set[str]:
        found = list(cat.get_entities(text)["entities"].values())
        spans = [(e["start"], e["end"]) for e in found]
        inside = [
            any(f != s and f[0] <= s[0] and s[1] <= f[1] for f in spans) for s in spans
        ]  # names never overlap otherwise
        return {e["cui"] for e, nested in zip(found, inside, strict=True) if not nested}

    for one, ours in zip(PAIRS, metrics["umls_f1"].score(PAIRS, []), strict=True):
        left, right = concepts(one.reference), concepts(one.candidate)
        f1 = 2 * len(left & right) / (len(left) + len(right)) if left or right else 0.0
        assert ours.values["f1"] == pytest.approx(f1, abs=1e-15), (one.reference, one.candidate)
