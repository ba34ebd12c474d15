"""The scoring stage with metrics that count: each distinct pair once, and only what is missing."""

import pandas as pd
import pytest

from harness.contracts import ImageError, Ratio, RequestError, Score, ScoreProtocol
from harness.scoring.caption_files import CaptionFiles
from harness.scoring.protocol import columns as columns_of
from harness.scoring.score import Column, Scheme, score
from harness.store import JournalRow, read_json
from harness.tables.scores import scores_table

PROTOCOL = ScoreProtocol("p", 1, {"words": {"metric": "words", "value": "count"}}, {"overall": ["words"]}, "overall")


class Words:
    """Counts words, and how often it was asked."""

    name, values, needs, higher_is_better = "words", ("count",), frozenset({"reference", "corpus"}), True

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


def rows(*captions: str | None) -> list[JournalRow]:
    return [JournalRow.of_texts(str(n), f"reference {n}", text, "went wrong") for n, text in enumerate(captions)]


def run_score(folder, metric, *runs):
    given = [stored(folder, index, rows) for index, rows in enumerate(runs)]
    return score(given, [Scheme(PROTOCOL, [Column("words", metric, "count")])], "cpu", folder)


def stored(folder, index, given):
    return CaptionFiles(folder / str(index), {"status": "ok", "row": {"run_id": str(index)}}, given=tuple(given))


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
    ended = run_score(tmp_path, Words(missing="no checkpoint; get it with X"), given)
    assert ended.unfilled == {"words": "no checkpoint; get it with X"}
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


def test_a_second_scoring_of_other_folders_comes_from_the_cache(tmp_path):
    given = rows("a b", "c")
    run_score(tmp_path, Words(), given)
    for file in (tmp_path / "0" / "scores").iterdir():
        file.unlink()
    again = Words()
    run_score(tmp_path, again, given, rows("a b", "c"))
    assert again.seen == []
    table = pd.read_csv(next((tmp_path / "1" / "scores").glob("words-*.csv")))
    assert list(table["count"]) == [2, 1]


def test_failures_are_not_kept_in_the_cache(tmp_path):
    given = rows("odd")
    run_score(tmp_path, Words(fails_on="odd"), given)
    next((tmp_path / "0" / "scores").glob("words-*.csv")).unlink()
    again = Words()
    run_score(tmp_path, again, given)
    assert again.seen == [("reference 0", "odd")]


def test_an_interrupted_scoring_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.scoring.score.CHUNK", 2)

    class Interrupted(Words):
        def score(self, pairs, references):
            if len(self.seen) >= 4:
                raise KeyboardInterrupt
            return super().score(pairs, references)

    given = rows("a", "b", "c", "d", "e", "f")
    with pytest.raises(KeyboardInterrupt):
        run_score(tmp_path, Interrupted(), given)
    again = Words()
    run_score(tmp_path, again, given)
    assert len(again.seen) == 2


def test_a_failing_metric_stops_no_other(tmp_path):
    class Broken(Words):
        name = "broken"

        def load(self, device, features):
            raise RuntimeError("no memory\nat all")

    good = Words()
    scheme = Scheme(
        ScoreProtocol("p", 1, {"broken": {}, "words": {}}, {"overall": ["words"]}, "overall"),
        [Column("broken", Broken(version=7), "count"), Column("words", good, "count")],
    )
    given = rows("a b")
    ended = score([stored(tmp_path, 0, given)], [scheme], "cpu", tmp_path)
    assert ended.failed == {"broken": "failed: RuntimeError: no memory"}
    assert good.seen == [("reference 0", "a b")]
    assert "at all" in (tmp_path / "logs" / "score-broken.log").read_text()
    table = scores_table([stored(tmp_path, 0, given)], trials=10).set_index("metric")
    assert table.loc["overall", "value"] == 2
    assert table.loc["broken", "signature"] == "failed: RuntimeError: no memory"


def test_two_protocols_share_a_metric(tmp_path):
    metric, twin = Words(), Words()
    schemes = [
        Scheme(
            ScoreProtocol(name, 1, {"words": {}}, {"overall": ["words"]}, "overall"), [Column("words", used, "count")]
        )
        for name, used in (("one", metric), ("two", twin))
    ]
    given = rows("a b")
    score([stored(tmp_path, 0, given)], schemes, "cpu", tmp_path)
    assert metric.seen + twin.seen == [("reference 0", "a b")]
    assert set(stored(tmp_path, 0, given).protocols) == {"one", "two"}


class Sees(Words):
    """Looks at the picture."""

    name, needs = "sees", frozenset({"image"})

    def _score(self, text):
        return Score({"count": 1.0})


class Picture:
    def __init__(self, content: str | None) -> None:
        self.content = content

    def digest(self):
        if self.content is None:
            raise ImageError("torn")
        return self.content


def test_pictures_are_part_of_what_is_compared(tmp_path):
    given = rows("same", "same", "same", "same")
    given = [JournalRow.of_texts(row.id, "r", row.caption) for row in given]
    pictures = {"0": Picture("x"), "1": Picture("x"), "2": Picture("y")}
    pictures["3"] = Picture(None)
    metric = Sees()
    scheme = Scheme(PROTOCOL, [Column("words", metric, "count")])
    score([stored(tmp_path, 0, given)], [scheme], "cpu", tmp_path, lambda _: pictures)
    assert len(metric.seen) == 2
    table = pd.read_csv(next((tmp_path / "0" / "scores").glob("sees-*.csv")))
    assert list(table["count"].isna()) == [False, False, False, True]
    assert table["reason"].tolist()[3] == "the picture cannot be read: torn"


def test_a_metric_that_sees_leaves_its_column_blank_where_there_are_no_pictures(tmp_path):
    scheme = Scheme(PROTOCOL, [Column("words", Sees(), "count")])
    ended = score([stored(tmp_path, 0, rows("a"))], [scheme], "cpu", tmp_path)
    assert "add images=FOLDER" in ended.unfilled["words"]


def test_a_run_without_the_picture_of_a_row_says_so(tmp_path):
    scheme = Scheme(PROTOCOL, [Column("words", Sees(), "count")])
    score([stored(tmp_path, 0, rows("a"))], [scheme], "cpu", tmp_path, lambda _: {})
    table = pd.read_csv(next((tmp_path / "0" / "scores").glob("sees-*.csv")))
    assert table["reason"].tolist() == ["no picture of this id"]


def test_empty_and_cut_captions_are_counted(tmp_path):
    class Cuts(Words):
        values = ("truncated", "count")

        def _score(self, text):
            return Score({"truncated": float(len(text) > 3), "count": 1.0})

    given = rows("", "long text", "a")
    run_score(tmp_path, Cuts(), given)
    row = scores_table([stored(tmp_path, 0, given)], trials=10).set_index("metric").loc["words"]
    assert (row["n"], row["n_empty"], row["n_truncated"]) == (3, 1, 1)


def test_a_protocol_names_only_what_it_has():
    with pytest.raises(RequestError, match="protocol p: expected one of overall, words, got 'bleu'"):
        ScoreProtocol("p", 1, {"words": {}}, {"overall": ["bleu"]}, "overall")


# ---------------------------------------------------------------- direction and sums


class Error(Words):
    name, higher_is_better = "error", False


class Found(Words):
    """Words of the caption that the reference has: counts, of which a set of samples has an F1."""

    name, values = "found", ("tp", "fp", "fn", "f1")
    combine = {"f1": [Ratio({"tp": 2}, {"tp": 2, "fp": 1, "fn": 1})]}  # noqa: RUF012

    def signature(self):
        return "found|v=1"

    def score(self, pairs, references):
        sets = [(set(pair.reference.split()), set(pair.candidate.split())) for pair in pairs]
        return [Score({"tp": len(a & b), "fp": len(b - a), "fn": len(a - b)}) for a, b in sets]


def test_an_average_over_columns_of_two_directions_is_refused():
    averages = {"good": ["words"], "bad": ["error"], "both": ["good", "bad"]}
    protocol = ScoreProtocol("p", 1, {"words": {}, "error": {}}, averages, "words")
    expected = r"protocol p: averages.both: expected columns of one direction, got good, .*, and bad, where less is"
    with pytest.raises(RequestError, match=expected):
        Scheme(protocol, [Column("words", Words(), "count"), Column("error", Error(), "count")])
    Scheme(protocol, [Column("words", Words(), "count"), Column("error", Words(), "count")])


def test_the_record_of_a_combined_column_says_its_formula_and_no_other_does(tmp_path):
    protocol = ScoreProtocol("p", 1, {"words": {}, "f1": {}}, {"overall": ["f1", "words"]}, "overall")
    scheme = Scheme(protocol, [Column("words", Words(), "count"), Column("f1", Found(), "f1")])
    run = stored(tmp_path, 0, rows("reference words", "reference 1", "a"))
    score([run], [scheme], "cpu", tmp_path)
    columns = read_json(run.folder / "scores" / "p.json")["columns"]
    assert set(columns["words"]) == {"file", "sha256", "value", "signature", "higher_is_better"}
    assert columns["f1"]["combine"] == [{"over": {"tp": 2}, "under": {"tp": 2, "fp": 1, "fn": 1}}]
    table = scores_table([run], trials=50).set_index("metric")
    f1 = 2 * 3 / (2 * 3 + 2 + 3)  # over all words: 3 are right, 2 too many, 3 missing
    assert table.loc["f1", "value"] == pytest.approx(f1)
    assert table.loc["overall", "value"] == pytest.approx((f1 + 5 / 3) / 2)
    assert table.loc["f1", "n"] == 3, "a sample without an F1 of its own counts all the same"


def test_a_formula_that_needs_what_its_metric_does_not_have_is_refused(monkeypatch):
    class Broken(Found):
        values = ("tp", "f1")

    monkeypatch.setattr("harness.scoring.protocol.config.build_node", lambda node, where: Broken())
    with pytest.raises(RequestError, match=r"metric rouge1: combine.f1 needs f[pn]; it has tp, f1"):
        columns_of(ScoreProtocol("p", 1, {"f1": {"metric": "rouge1", "value": "f1"}}, {}, "f1"), [], None)


def test_a_value_that_a_metric_does_not_name_is_said(tmp_path):
    class Misspelt(Words):
        def score(self, pairs, references):
            return [Score({"cuont": 1.0}) for _ in pairs]

    run = CaptionFiles(tmp_path, {"status": "ok", "row": {}}, given=(JournalRow.of_texts("a", "one", "two"),))
    ended = score([run], [Scheme(PROTOCOL, [Column("words", Misspelt(), "count")])], "cpu", tmp_path)
    assert "scores have cuont; `values` has" in ended.failed["words"]
