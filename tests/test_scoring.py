"""The scoring stage with metrics that count: each distinct pair once, and only what is missing."""

import pandas as pd
import pytest

from harness.contracts import Score, ScoreProtocol
from harness.scoring import Column, Scorable, score
from harness.tables import Run, scores_table

PROTOCOL = ScoreProtocol("p", 1, {"words": {"metric": "words", "value": "count"}}, {"overall": ["words"]})


class Words:
    """Counts words, and how often it was asked."""

    name, values, needs, higher_is_better = "words", ("count",), frozenset({"reference"}), True

    def __init__(self, version: int = 1, missing: str | None = None, fails_on: str = "") -> None:
        self.version, self.reason, self.fails_on = version, missing, fails_on
        self.seen: list[tuple[str, str]] = []
        self.references: list[list[str]] = []

    def missing(self):
        return self.reason

    def signature(self):
        return f"words|v={self.version}"

    def load(self, device, features):
        self.device = device

    def score(self, pairs, references):
        self.seen += [(p.reference, p.candidate) for p in pairs]
        self.references.append(list(references))
        return [self._score(pair.candidate) for pair in pairs]

    def _score(self, text):
        return Score({}, "cannot be counted") if text == self.fails_on else Score({"count": len(text.split())})


def rows(*captions: str | None) -> list[dict]:
    return [
        {
            "id": str(index),
            "status": "failed" if caption is None else "ok",
            "reference": f"reference {index}",
            "caption": caption,
            "error": "went wrong",
            "modality": "CT",
        }
        for index, caption in enumerate(captions)
    ]


def run_score(folder, metric, *runs):
    scorables = [Scorable(folder / str(index), given) for index, given in enumerate(runs)]
    return score(scorables, [Column("words", metric, "count")], PROTOCOL, "cpu")


def stored(folder, index, given):
    class Given(Run):
        rows = given

    return Given(folder / str(index), {"status": "ok", "row": {"run_id": str(index)}})


def test_the_same_pair_in_two_runs_is_scored_once(tmp_path):
    metric = Words()
    run_score(tmp_path, metric, rows("a b", "c"), rows("a b", "d e f"))
    assert sorted(metric.seen) == [("reference 0", "a b"), ("reference 1", "c"), ("reference 1", "d e f")]
    assert metric.references == [["reference 0", "reference 1"]]


def test_what_is_scored_is_not_scored_again(tmp_path):
    run_score(tmp_path, Words(), rows("a b"))
    again = Words()
    run_score(tmp_path, again, rows("a b"), rows("c"))
    assert again.seen == [("reference 0", "c")]


def test_another_signature_or_caption_is_scored_again(tmp_path):
    run_score(tmp_path, Words(), rows("a b"))
    for metric, given in ((Words(version=2), rows("a b")), (Words(), rows("a c"))):
        run_score(tmp_path, metric, given)
        assert len(metric.seen) == 1


def test_a_metric_that_is_missing_leaves_its_column_and_averages_blank(tmp_path):
    given = rows("a b")
    blank = run_score(tmp_path, Words(missing="no checkpoint; get it with X"), given)
    assert blank == {"words": "no checkpoint; get it with X"}
    table = scores_table([stored(tmp_path, 0, given)], trials=10).set_index("metric")
    assert table["value"].isna().all()
    assert table.loc["words", "signature"] == "no checkpoint; get it with X"


def test_failed_samples_have_a_reason_and_no_value(tmp_path):
    given = rows("a b", None, "odd", "c")
    run_score(tmp_path, Words(fails_on="odd"), given)
    table = pd.read_csv(next((tmp_path / "0" / "scores").glob("words-*.csv")))
    assert list(table["count"].isna()) == [False, True, True, False]
    assert list(table["reason"].fillna("")) == ["", "went wrong", "cannot be counted", ""]
    summary = scores_table([stored(tmp_path, 0, given)], trials=10).set_index("metric")
    assert summary.loc["overall", "value"] == pytest.approx(1.5)
    assert (summary.loc["words", "n"], summary.loc["words", "n_failed"]) == (2, 2)
