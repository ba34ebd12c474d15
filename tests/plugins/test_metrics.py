"""The contract of every metric in conf/, what the metrics cannot see, and the protocols."""

import logging
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from harness.contracts import Metric
from tests.support.metric_data import NAMES, REFERENCES, ROOT, SAMPLES, build, mixed_pairs, numbers, pair, protocols

NEUTRAL = {"lengths"}  # describe a caption and judge nothing
PHANTOM = {"facts"}  # have no values where the reference is no phantom caption


@pytest.fixture(params=NAMES)
def metric(request, metrics) -> Metric:
    """One metric after the other; those whose checkpoint is not here are skipped with their own reason."""
    if request.param not in metrics:
        pytest.skip(build(request.param).missing())
    return metrics[request.param]


def main_value(metric: Metric) -> str:
    """The value that the embedded protocol takes of it, or else its first one."""
    columns = next(p for p in protocols() if p.name == "embedded").columns.values()
    return next((column["value"] for column in columns if column["metric"] == metric.name), metric.values[-1])


def test_the_six_embedded_metrics_can_run_here(metrics):
    assert {"similarity", "bertscore", "rouge1", "bleurt", "umls_f1", "alignscore"} <= set(metrics)


@pytest.mark.parametrize("name", NAMES)
def test_building_describing_and_asking_what_is_missing_is_cheap(name):
    metric = build(name)
    assert metric.name == name
    assert metric.values
    assert metric.needs <= {"reference", "image", "corpus"}
    assert metric.missing() is None or "\n" not in metric.missing()


def test_no_metric_imports_a_heavy_library_before_load():
    code = f"""
import sys
from pathlib import Path
from hydra.utils import instantiate
from omegaconf import OmegaConf
for path in Path({str(ROOT / "conf" / "metric")!r}).glob("*.yaml"):
    metric = instantiate(OmegaConf.load(path), _convert_="all")
    metric.missing() or metric.signature()
print(sorted({{"torch", "transformers", "medcat", "nltk"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_signature_is_one_line_with_name_and_version(metric):
    signature = metric.signature()
    assert re.match(rf"{metric.name}\|v=\d+\|", signature)
    assert "\n" not in signature
    assert signature == build(metric.name).signature()


def test_one_finite_float_per_pair_and_value(metric):
    pairs = mixed_pairs()
    scores = metric.score(pairs, REFERENCES)
    assert len(scores) == len(pairs)
    for score in scores:
        assert all(type(value) is float and math.isfinite(value) for value in score.values.values())
        if metric.name in PHANTOM:
            assert list(score.values) == [name for name in metric.values if name in score.values]
            assert bool(score.values) != bool(score.reason)
        else:
            assert (tuple(score.values), score.reason) == (metric.values, "")
    assert any(metric.values[-1] in score.values for score in scores)


def test_reference_beats_an_unrelated_caption(metric):
    if metric.name in NEUTRAL:
        pytest.skip("has no better and worse")
    sign, value = (1 if metric.higher_is_better else -1), main_value(metric)
    own, foreign = SAMPLES[0].caption, REFERENCES[8]  # `pair` shows the picture of the first sample
    same, other = metric.score([pair(own, own), pair(own, foreign)], REFERENCES)
    assert sign * same.values[value] > sign * other.values[value]


def test_order_and_company_of_pairs_do_not_matter(metric):
    pairs = mixed_pairs()
    straight = metric.score(pairs, REFERENCES)
    backwards = metric.score(pairs[::-1], REFERENCES)[::-1]
    alone = [score for one in pairs[-6:] for score in metric.score([one], REFERENCES)]
    np.testing.assert_allclose(numbers(backwards), numbers(straight), atol=2e-6)
    np.testing.assert_allclose(numbers(alone), numbers(straight[-6:]), atol=2e-6)


def test_a_pair_scores_the_same_twice(metric):
    first, second = pair(REFERENCES[-1], REFERENCES[-1]), pair(REFERENCES[-1], REFERENCES[-3])
    one, two, three = metric.score([first, second, first], REFERENCES)
    assert one == three != two


def test_no_pairs_no_scores(metric):
    assert metric.score([], REFERENCES) == []


@pytest.mark.parametrize(
    "text", ["CT\nof the\r\nchest", 'a "quoted", text', "Röntgen 胸部 🩻 5×3 cm", " ", "\u2028", "(", "μ", "\x00"]
)
def test_odd_characters_are_scored(metric, text):
    for score in metric.score([pair(REFERENCES[0], text), pair(text, REFERENCES[0])], REFERENCES):
        assert np.isfinite(list(score.values.values())).all()
        assert score.values or (metric.name in PHANTOM and score.reason)


def test_a_caption_of_1500_words_is_scored(metric):
    long = " ".join((" ".join(REFERENCES)).split() * 5)
    long = " ".join(long.split()[:1500])
    (score,) = metric.score([pair(REFERENCES[0], long)], REFERENCES)
    assert np.isfinite(list(score.values.values())).all()


@pytest.mark.parametrize("name", ["bertscore", "rouge1", "umls_f1"])
@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ("CT of the chest", "", 0.0),
        ("", "", 1.0),
        ("", "CT of the chest", 0.0),
        ("CT", "...", 0.0),
        ("...", "...", 0.0),
    ],
)
def test_rulings_on_empty_texts(metrics, name, reference, candidate, expected):
    (score,) = metrics[name].score([pair(reference, candidate)], REFERENCES)
    assert [score.values[value] for value in ("precision", "recall", "f1")] == [expected] * 3


def test_nothing_is_printed_or_logged(capfd, caplog):
    with caplog.at_level(logging.INFO):
        for name in ("bertscore", "rouge1", "umls_f1", "similarity"):
            metric = build(name)
            metric.load("cpu", {})
            metric.score([*mixed_pairs(), pair("word " * 600, "...")], REFERENCES)
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == []


LEFT = "Chest X-ray shows a left pneumothorax."


@pytest.mark.parametrize(
    ("name", "candidate", "least"),
    [
        ("umls_f1", "Chest X-ray shows a right pneumothorax.", 1.0),
        ("umls_f1", "Chest X-ray shows no left pneumothorax.", 1.0),
        ("bertscore", "Chest X-ray shows a right pneumothorax.", 0.95),
        ("bertscore", "Chest X-ray shows no left pneumothorax.", 0.95),
        ("rouge1", "Chest X-ray shows a right pneumothorax.", 0.8),
    ],
)
def test_blindness_to_side_and_negation_is_as_documented(metrics, name, candidate, least):
    (score,) = metrics[name].score([pair(LEFT, candidate)], [])
    assert score.values["f1"] >= least


@pytest.mark.parametrize("protocol", protocols(), ids=lambda protocol: protocol.name)
def test_protocol_names_metrics_values_options_and_columns_that_exist(protocol):
    known = set(protocol.columns)
    for column in protocol.columns.values():
        assert set(column) == {"metric", "value", "options"}
        metric = build(column["metric"], **column["options"])
        assert column["value"] in metric.values
    for name, parts in protocol.averages.items():
        assert parts
        assert set(parts) <= known, f"{name} is the mean of columns that come later or not at all"
        known.add(name)


def test_embedded_protocol():
    (protocol,) = (one for one in protocols() if one.name == "embedded")
    assert list(protocol.columns) == ["similarity", "bertscore", "rouge", "bleurt", "umls_f1", "alignscore"]
    assert protocol.averages == {
        "relevance": ["similarity", "bertscore", "rouge", "bleurt"],
        "factuality": ["umls_f1", "alignscore"],
        "overall": ["relevance", "factuality"],
    }
    assert "nothing about medicine" in protocol.note
