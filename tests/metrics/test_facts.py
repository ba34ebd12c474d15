"""Facts of phantom captions: read from the wording, compared with the factors that the captions were made from."""

import pytest

from harness.datasets.phantom import Phantom
from harness.datasets.phantom.lexicon import FINDING, MODALITY, REGION
from harness.datasets.phantom.plan import PLAN
from harness.metrics.facts import READER
from harness.store import digest, read_json
from tests.support.metric_data import REAL, SAMPLES, pair

REFERENCE = "Axial chest CT showing a 33 mm nodule in the left lung."


def values(metrics, reference: str, candidate: str) -> dict[str, float]:
    (score,) = metrics["facts"].score([pair(reference, candidate)], [])
    return dict(score.values)


@pytest.mark.parametrize(
    ("candidate", "wrong"),
    [
        (REFERENCE, set()),
        ("Nodule (red arrow) in the left lung on CT of the thorax", set()),
        ("Axial chest CT showing a 33 mm nodule in the right lung.", {"side"}),
        ("Axial chest CT showing a 33 mm nodule.", {"side"}),
        ("Chest X-ray showing a nodule in the left lung", {"modality"}),
        ("Chest CT without abnormality", {"finding", "side"}),
        ("", {"modality", "region", "finding", "side"}),
    ],
)
def test_each_fact_is_judged_alone(metrics, candidate, wrong):
    found = values(metrics, REFERENCE, candidate)
    assert list(found) == list(metrics["facts"].values)
    assert {name for name, value in found.items() if not value} == wrong | ({"all"} if wrong else set())


def test_a_fact_that_the_reference_does_not_state_has_no_value(metrics):
    found = values(metrics, "Normal chest X-ray.", "Chest X-ray with a left effusion")
    assert found == {"modality": 1, "region": 1, "finding": 0, "all": 0}


def test_other_wordings_of_the_same_factors_are_right(metrics):
    """The same pictures described in plain words state what the radiology captions state."""
    lay = (
        Phantom("phantom", train=1, valid=1, test=150, size=64, seed=2025, style="lay", limit=None).load("test").samples
    )
    radiology = Phantom("phantom", train=1, valid=1, test=150, size=64, seed=2025, style="radiology", limit=None)
    pairs = [pair(a.caption, b.caption) for a, b in zip(lay, radiology.load("test").samples, strict=True)]
    assert {score.values["all"] for score in metrics["facts"].score(pairs, [])} == {1.0}


def test_values_agree_with_the_factors(metrics):
    """Captions of other pictures are right exactly where their factors are."""
    for one, other in zip(SAMPLES, SAMPLES[7:], strict=False):
        found = values(metrics, one.caption, other.caption)
        for name in ("modality", "region", "finding"):
            assert found[name] == (one.factors[name] == other.factors[name])


def test_a_reference_from_elsewhere_has_no_values_and_a_reason(metrics):
    scores = metrics["facts"].score([pair(text, REFERENCE) for text in ("", "...", REAL[0]["caption"])], [])
    assert [dict(score.values) for score in scores] == [{}, {}, {}]
    assert all("no phantom caption" in score.reason for score in scores)


def test_a_value_that_is_not_there_is_an_empty_cell_and_the_headline_counts_all(metrics, tmp_path):
    """Through `capbench score`: samples without a side are in the column `facts`."""
    from harness.cli import main

    references = {"a": REFERENCE, "b": "Normal chest X-ray."}
    for name, texts in (("references", references), ("captions", {**references, "a": "Chest CT, right nodule"})):
        rows = "".join(f'{key},"{text}"\n' for key, text in texts.items())
        (tmp_path / f"{name}.csv").write_text(f"ID,Caption\n{rows}")
    files = [f"captions={tmp_path / 'captions.csv'}", f"references={tmp_path / 'references.csv'}"]
    assert main(["score", *files, "metrics=[facts]", f"results={tmp_path / 'scored'}"]) == 0
    record = read_json(tmp_path / "scored" / "scores" / "embedded.json")["columns"]["facts"]
    lines = (tmp_path / "scored" / "scores" / record["file"]).read_text().splitlines()
    assert lines == ["id,modality,region,finding,side,all,reason", "a,1.0,1.0,1.0,0.0,0.0,", "b,1.0,1.0,1.0,,1.0,"]
    (row,) = [line for line in (tmp_path / "scored" / "scores.csv").read_text().splitlines() if ",facts," in line]
    assert ",0.5," in row


def test_the_mark_of_the_reader_stands_for_these_words():
    """Kept scores would be taken for those of other words: whoever changes a word changes READER, then this pair."""
    words = digest([MODALITY, REGION, FINDING, {key: list(map(str, plan)) for key, plan in PLAN.items()}])
    assert (READER, words[:12]) == ("7652b46618d8", "a0aad987e2fc")
