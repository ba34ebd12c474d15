"""The protocols' averages against published tables: the board of 2026 and the study itself."""

import pandas as pd
import pytest

from harness.contracts import RequestError, ScoreProtocol
from harness.contracts.metric import FACTS
from harness.tables.columns import LEADERBOARD_COLUMNS, SAMPLE_COLUMNS
from harness.tables.values import add_averages
from tests.support.commands import ROOT
from tests.support.metric_data import protocols

PUBLISHED = ROOT / "harness" / "published"
NAMED = {protocol.name: protocol for protocol in protocols()}
AVERAGES = ["relevance", "factuality", "overall"]
OFFICIAL = ["score", "score_secondary", "bert", "rouge", "similarity", "bleurt", "medcat", "align"]


def recomputed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The averages of a protocol over published means."""
    protocol = NAMED[name]
    return add_averages(table[list(protocol.columns)], protocol.averages)[list(protocol.averages)]


def test_the_six_named_protocols_are_there():
    assert set(NAMED) >= {
        "paper", "imageclef2025-page", "imageclef2025-code", "imageclef2026-code", "imageclef2023", "embedded",
    }  # fmt: skip


def test_the_board_of_2026_is_reproduced():
    """Eight rows of the official board, printed with four decimals."""
    board = pd.read_csv(PUBLISHED / "imageclef2026_leaderboard.csv")
    assert len(board) == 8
    difference = (recomputed(board, "imageclef2026-code") - board[AVERAGES]).abs()
    assert difference.max().max() < 1e-4


def test_the_study_is_reproduced_but_for_three_cells_of_its_tables():
    """Printed with three decimals. SmolVLM's relevance leaves BLEURT out; two cells of the ablation fit no mean."""
    wrong = set()
    for file, keys in (("leaderboard", ["model"]), ("modality_ablation", ["model", "configuration"])):
        table = pd.read_csv(PUBLISHED / f"{file}.csv")
        printed = table[AVERAGES]
        # means of the printed inputs, and for "overall" the mean of the printed averages
        ours = recomputed(table, "paper")
        ours["overall"] = printed[["relevance", "factuality"]].mean(axis=1)
        for place, name in zip(*((ours - printed).abs() > 1.05e-3).to_numpy().nonzero(), strict=True):
            wrong.add((*table.loc[place, keys], AVERAGES[name]))
    assert wrong == {
        ("smolvlm", "relevance"),
        ("smolvlm", "base", "relevance"),
        ("smolvlm", "modality", "relevance"),
        ("smolvlm", "modality", "factuality"),
        ("qwen25_vl", "modality", "relevance"),
    }


@pytest.mark.parametrize("name", ["imageclef2025-page", "imageclef2025-code", "imageclef2026-code"])
def test_the_official_form_has_the_organisers_names(name):
    assert list(NAMED[name].official) == OFFICIAL


def test_the_documented_differences_between_the_protocols():
    value = {name: protocol.columns["bertscore"]["value"] for name, protocol in NAMED.items()}
    assert [name for name, used in value.items() if used == "recall"] == ["imageclef2025-page", "paper"]
    assert "bleurt" not in NAMED["imageclef2025-code"].averages["relevance"]
    assert "bleurt" in NAMED["imageclef2026-code"].averages["relevance"]
    primary = {name: protocol.primary for name, protocol in NAMED.items()}
    assert primary["imageclef2025-code"] == "relevance"
    assert primary["imageclef2023"] == "bertscore"
    assert NAMED["imageclef2023"].columns["bertscore"]["options"]["idf"] == "none"
    assert NAMED["paper"].columns["umls_f1"]["options"]["types"] == "medcon66"


@pytest.mark.parametrize(
    ("columns", "average"), [(["rouge"], "rouge"), (["n"], "mean"), (["rouge"], "model"), (["a_ci_low"], "b")]
)
def test_a_name_that_a_table_has_already_is_refused(columns, average):
    spec = {"metric": "rouge1", "value": "f1"}
    with pytest.raises(RequestError, match="expected another name"):
        ScoreProtocol("p", 1, dict.fromkeys(columns, spec), {average: columns}, average)


def test_the_names_of_facts_are_those_of_the_tables():
    assert {*LEADERBOARD_COLUMNS, *SAMPLE_COLUMNS} == FACTS
