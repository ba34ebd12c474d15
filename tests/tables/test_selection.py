"""What `capbench leaderboard` shows with filters: part of the table, its ranks, and whole files all the same."""

import pandas as pd
import pytest

from harness.cli import main
from harness.tables.columns import ROW_COLUMNS
from tests.support.results import contents, made_up


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = made_up(tmp_path_factory.mktemp("view"), runs=5)
    assert main(["leaderboard", f"results={folder}", "trials=100", "permutations=200"]) == 0
    return folder


def shown(results, tmp_path, *words: str) -> pd.DataFrame:
    out = tmp_path / "shown.csv"
    before = contents(results)
    assert main(["leaderboard", f"results={results}", "trials=100", "permutations=200", *words, f"out={out}"]) == 0
    assert contents(results) == before, "the files are whole"
    return pd.read_csv(out)


def test_rows_by_name_and_glob_keep_their_ranks(results, tmp_path, capsys):
    whole = pd.read_csv(results / "leaderboard.csv")
    part = shown(results, tmp_path, "model=model0001,*[34]", "strategy=targeted", "prompt=pl?in", "modality=none")
    expected = whole[whole["model"].isin(["model0001", "model0003", "model0004"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected)
    assert "those of the whole table" in capsys.readouterr().out


def test_sorted_the_best_comes_first(results, tmp_path):
    assert shown(results, tmp_path, "sort=rouge")["rouge"].is_monotonic_decreasing
    assert shown(results, tmp_path, "sort=rank_low")["rank_low"].is_monotonic_increasing
    assert shown(results, tmp_path, "sort=model")["model"].is_monotonic_increasing


def test_a_group_has_its_best_row(results, tmp_path):
    part = shown(results, tmp_path, "group=strategy")
    assert list(part["rank"]) == [1]
    assert len(shown(results, tmp_path, "group=model")) == 5


def test_a_strategy_stands_for_its_variants(results):
    from harness.tables.boards import Board, BoardKey
    from harness.tables.selection import View, seen

    names = ["targeted[lora.rank=4,lora.alpha=8]", "targeted[lora.rank=8,lora.alpha=8]", "none", "full"]
    table = pd.DataFrame({name: names if name == "strategy" else "x" for name in ROW_COLUMNS} | {"rank": [1, 2, 3, 4]})
    board = Board(BoardKey("d", "s", "w", "p", "0"), table, {}, {}, "")
    for wanted, ranks in {
        "targeted": [1, 2],
        f"{names[1]},none": [2, 3],
        "*rank=4*": [1],
        "t*,full": [1, 2, 4],
    }.items():
        assert list(seen(board, View(strategy=wanted)).table["rank"]) == ranks


@pytest.mark.parametrize("suffix", [".md", ".tex"])
def test_what_is_shown_goes_to_a_document(results, tmp_path, suffix):
    out = tmp_path / f"shown{suffix}"
    words = ["model=model0002", f"out={out}", "trials=100", "permutations=200"]
    assert main(["leaderboard", f"results={results}", *words]) == 0
    assert out.read_text().count("model000") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=modle0001"], "did you mean 'model0001'"),
        (["model=model0001", "group=promt"], "did you mean 'prompt'"),
        (["sort=rogue"], "did you mean 'rouge'"),
        (["strategy=[x"], "no row"),
        (["out=table.txt"], ".csv, .md, .tex"),
        (["trials=0"], "1 or more"),
    ],
)
def test_a_wrong_request_is_one_line(results, words, expected, capsys):
    assert main(["leaderboard", f"results={results}", "permutations=200", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_part_is_never_written_over_a_whole_table(results, capsys):
    assert main(["leaderboard", f"results={results}", f"out={results / 'leaderboard.csv'}"]) == 2
    assert "whole" in capsys.readouterr().err
