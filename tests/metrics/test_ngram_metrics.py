"""BLEU, ROUGE-L, METEOR and CIDEr-D: against other implementations, by hand, and what must always hold."""

import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer

from harness.contracts import Pair
from harness.metrics._words import words
from harness.metrics.bleu import corpus
from tests.support.metric_data import REFERENCES, build, numbers, pair

NAMES = ["bleu", "rouge_l", "meteor", "cider"]
HEADLINE = {"bleu": "bleu4", "rouge_l": "f", "meteor": "meteor", "cider": "cider"}


def pairs_of_all_kinds(count: int = 300) -> list[Pair]:
    """Captions against others and against parts of themselves and others, mixed."""
    rng = random.Random(1)
    made = []
    for _ in range(count):
        reference, other = rng.choices(REFERENCES, k=2)
        left, right = reference.split(), other.split()
        made.append(pair(reference, " ".join(left[: rng.randint(4, len(left))] + right[: rng.randint(0, 5)])))
    return made


def loaded(name: str, **options):
    metric = build(name, **options)
    metric.load("cpu", {})
    return metric


def value(metric, reference: str, candidate: str, references=REFERENCES) -> float:
    (score,) = metric.score([pair(reference, candidate)], references)
    return score.values[metric.values[-1]]


# ---------------------------------------------------------------- what holds for all of them


@pytest.mark.parametrize("name", NAMES)
def test_rulings_on_empty_texts(metrics, name):
    best = 10.0 if name == "cider" else 1.0
    found = [value(metrics[name], *texts) for texts in (("", ""), ("CT of the chest", ""), ("", "CT of the chest"))]
    assert found == [best, 0.0, 0.0]


@pytest.mark.parametrize("name", NAMES)
def test_texts_of_which_no_word_is_left_score_nothing(metrics, name):
    assert [value(metrics[name], *texts) for texts in (("CT", "..."), ("...", "CT"))] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_itself_scores_highest(metrics, name):
    for reference in REFERENCES:
        scores = metrics[name].score([pair(reference, other) for other in REFERENCES], REFERENCES)
        found = [score.values[HEADLINE[name]] for score in scores]
        assert found[REFERENCES.index(reference)] == max(found)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_words_counts(metrics, name):
    reference = "axial ct of the abdomen shows a large cyst in the left kidney"
    shuffled = "kidney left the in cyst large a shows abdomen the of ct axial"
    assert 0 <= value(metrics[name], reference, shuffled) < 0.7 * value(metrics[name], reference, reference)


def test_unigrams_do_not_see_the_order_of_words(metrics):
    text = REFERENCES[0].split()
    scores = metrics["bleu"].score([pair(REFERENCES[0], " ".join(text)), pair(REFERENCES[0], " ".join(text[::-1]))], [])
    assert scores[0].values["bleu1"] == scores[1].values["bleu1"] == pytest.approx(1)
    assert scores[1].values["bleu2"] < 0.5


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(reference=st.text("ab c.", min_size=1, max_size=30), candidate=st.text("ab c.", min_size=1, max_size=30))
def test_values_stay_in_their_range(metrics, name, reference, candidate):
    top = 10.0 if name == "cider" else 1.0
    assert 0 <= value(metrics[name], reference, candidate, [reference, "a b c", "c b"]) <= top + 1e-9


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "imageclef", "treebank"),
    [
        ("T2-weighted MRI: 3.5 cm cyst.", "tnumberweighted mri numbernumber cm cyst", "t2-weighted mri 3.5 cm cyst"),
        ("A cyst (arrow). The kidney's.", "a cyst arrow the kidneys", "a cyst arrow the kidney 's"),
        ('Says "mass", then more - or not!', "says mass then more or not", "says mass then more or not"),
        ("...", "", ""),
    ],
)
def test_words(text, imageclef, treebank):
    assert words(text, "imageclef") == tuple(imageclef.split())
    assert words(text, "treebank") == tuple(treebank.split())


@pytest.mark.parametrize("name", ["bleu", "meteor", "cider"])
def test_the_tokenizer_changes_value_and_signature(name):
    plain, treebank = (loaded(name, tokenizer=tokenizer) for tokenizer in ("imageclef", "treebank"))
    assert plain.signature() != treebank.signature()
    texts = ("a T2 image of one kidney", "a T1 image of one kidney")  # both "tnumber" after the preprocessing
    assert value(treebank, *texts) < value(plain, *texts)


# ---------------------------------------------------------------- BLEU


def test_bleu_equals_nltk_per_sentence_and_over_the_corpus(metrics):
    pairs = pairs_of_all_kinds()
    scores = metrics["bleu"].score(pairs, [])
    cut = [[words(text, "imageclef") for text in (one.reference, one.candidate)] for one in pairs]
    compared = 0
    for score, (reference, candidate) in zip(scores, cut, strict=True):
        for order in (1, 2, 3, 4):
            if score.values[f"matches{order}"]:  # NLTK treats an order without a match in its own way
                expected = sentence_bleu([reference], candidate, weights=[1 / order] * order)
                assert score.values[f"bleu{order}"] == pytest.approx(expected, rel=1e-6)
                compared += 1
    assert compared > 1000
    references, candidates = [[one[0]] for one in cut], [one[1] for one in cut]
    expected = [corpus_bleu(references, candidates, weights=[1 / order] * order) for order in (1, 2, 3, 4)]
    assert list(corpus(scores).values()) == pytest.approx(expected, rel=1e-6)


def test_bleu_by_hand(metrics):
    # 5 words against 7; common: 4 words, 2 bigrams, 1 trigram, no 4-gram
    (score,) = metrics["bleu"].score([pair("ct of the chest shows a nodule", "ct of the nodule seen")], [])
    penalty = math.exp(1 - 7 / 5)
    expected = [5, 7, 4, 2, 1, 0, 4 / 5, (4 / 5 * 2 / 4) ** (1 / 2), (4 / 5 * 2 / 4 * 1 / 3) ** (1 / 3)]
    assert list(score.values.values())[:6] == expected[:6]
    assert list(score.values.values())[6:9] == pytest.approx([rate * penalty for rate in expected[6:]])
    assert score.values["bleu4"] == pytest.approx((4 / 5 * 2 / 4 * 1 / 3 * 1e-15 / 2) ** (1 / 4) * penalty)


def test_bleu_of_repeated_words_is_clipped(metrics):
    (score,) = metrics["bleu"].score([pair("the cat is on the mat", "the the the the the the the")], [])
    assert score.values["bleu1"] == pytest.approx(2 / 7)  # Papineni et al. 2002, example 2


# ---------------------------------------------------------------- ROUGE-L


def longest_common(left: list[str], right: list[str]) -> int:
    if not left or not right:
        return 0
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for at, other in enumerate(right, start=1):
            diagonal, row[at] = row[at], diagonal + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]


@pytest.mark.parametrize("beta", [1.0, 1.2])
def test_rouge_l_equals_a_count_of_its_own(beta):
    pairs = pairs_of_all_kinds()
    expected = []
    for one in pairs:
        sides = [re.findall("[a-z0-9]+", " ".join(words(t, "imageclef"))) for t in (one.candidate, one.reference)]
        precision, recall = (longest_common(*sides) / len(side) for side in sides)
        f = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
        expected.append([precision, recall, f])
    np.testing.assert_allclose(numbers(loaded("rouge_l", beta=beta).score(pairs, [])), expected, atol=1e-12)


def test_rouge_l_with_beta_1_is_the_librarys_f_measure():
    metric, scorer = loaded("rouge_l", preprocess="none"), RougeScorer(["rougeL"])
    for one in pairs_of_all_kinds(100):
        assert (
            value(metric, one.reference, one.candidate) == scorer.score(one.reference, one.candidate)["rougeL"].fmeasure
        )


def test_rouge_l_by_hand():
    # "police killed the gunman" against "police kill the gunman" and "the gunman kill police" (Lin 2004, section 3.1)
    metric = loaded("rouge_l")
    reference = "police killed the gunman"
    assert [value(metric, reference, c) for c in ("police kill the gunman", "the gunman kill police")] == [3 / 4, 2 / 4]


# ---------------------------------------------------------------- METEOR


@pytest.mark.parametrize(
    ("reference", "candidate", "precision", "recall", "chunks", "matches"),
    [
        ("ct of the chest shows a nodule", "chest ct shows nodules", 4 / 4, 4 / 7, 4, 4),  # nodules: by its stem
        ("ct of the chest", "ct of the chest", 1, 1, 1, 4),
        ("ct of the chest", "ct of a big chest", 3 / 5, 3 / 4, 2, 3),
        ("a mass in the liver", "a tumor in the liver", 4 / 5, 4 / 5, 2, 4),  # no synonyms
    ],
)
def test_meteor_by_hand(metrics, reference, candidate, precision, recall, chunks, matches):
    fmean = precision * recall / (0.9 * precision + 0.1 * recall)
    expected = fmean * (1 - 0.5 * (chunks / matches) ** 3)
    assert value(metrics["meteor"], reference, candidate) == pytest.approx(expected, rel=1e-12)


def test_meteor_options_change_value_and_signature(metrics):
    other = loaded("meteor", gamma=0.0, alpha=0.5)
    assert value(other, "ct of the chest", "chest ct") == pytest.approx(2 * 1 * 0.5 / 1.5)  # the plain f-measure
    assert other.signature() != metrics["meteor"].signature()
    assert "synonyms=no" in other.signature()


# ---------------------------------------------------------------- CIDEr-D


def cider_d(references: list[list[str]], candidates: list[list[str]]) -> list[float]:
    """From the paper's equations, with dense vectors over all n-grams."""

    def count(text: list[str], gram: tuple[str, ...]) -> int:
        return sum(tuple(text[at : at + len(gram)]) == gram for at in range(len(text)))

    totals = np.zeros(len(references))
    for n in (1, 2, 3, 4):
        grams = sorted({tuple(t[at : at + n]) for t in [*references, *candidates] for at in range(len(t) - n + 1)})
        if not grams:
            continue
        left, right = (np.array([[count(t, g) for g in grams] for t in side]) for side in (candidates, references))
        weight = np.log(len(references) / np.maximum(1, (right > 0).sum(axis=0)))
        left, right = left * weight, right * weight
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        products = (np.minimum(left, right) * right).sum(axis=1)
        totals += np.divide(products, norms, out=np.zeros(len(norms)), where=norms > 0)
    # lengths in bigrams, as the authors' code has them
    apart = np.array([max(0, len(c) - 1) - max(0, len(r) - 1) for c, r in zip(candidates, references, strict=True)])
    return list(10 * totals / 4 * np.exp(-(apart**2) / (2 * 6.0**2)))


def test_cider_equals_the_papers_equations(metrics):
    pairs = pairs_of_all_kinds(60)
    references = [one.reference for one in pairs]
    found = [score.values["cider"] for score in metrics["cider"].score(pairs, references)]
    cut = [[list(words(text, "imageclef")) for text in (one.reference, one.candidate)] for one in pairs]
    expected = cider_d([one[0] for one in cut], [one[1] for one in cut])
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.ptp(found) > 5


def test_cider_by_hand(metrics):
    references = ["ct chest", "mri brain"]
    # every n-gram of "ct chest" is in one of two references: weight log 2; orders 1 and 2 match, 3 and 4 do not exist
    assert value(metrics["cider"], "ct chest", "ct chest", references) == pytest.approx(10 * 2 / 4)
    # order 1: cosine of (1, 1, 0) and (1, 0, 1); no common bigram; equally long
    assert value(metrics["cider"], "ct chest", "ct abdomen", references) == pytest.approx(10 * 0.5 / 4)


def test_cider_depends_on_the_corpus(metrics):
    texts = ("ct of the chest with a nodule", "ct of the chest with a mass")
    rare = value(metrics["cider"], *texts, [texts[0], "mri of the brain", "ultrasound of a liver"])
    common = value(metrics["cider"], *texts, [texts[0], "ct of the chest with a cyst", "mri of the brain"])
    alone = value(metrics["cider"], *texts, [texts[0]])
    assert rare > common > alone == 0


# ---------------------------------------------------------------- lengths


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ("ct of the chest", "ct  chest", [15, 9, 4, 2, 0.5]),
        ("ct", "", [2, 0, 1, 0, 0]),
        ("", "ct", [0, 2, 0, 1]),  # no reference, no ratio
        (" ", "", [1, 0, 0, 0]),
    ],
)
def test_lengths(metrics, reference, candidate, expected):
    (score,) = metrics["lengths"].score([pair(reference, candidate)], [])
    assert list(score.values.values()) == expected
    assert list(score.values) == list(metrics["lengths"].values[: len(expected)])
