"""Protocols of any names: an average `quality` that ranks, and a column where less is better, wherever they show."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.cli import main
from harness.contracts import ScoreProtocol
from harness.store.runs import find_runs
from harness.tables import significance
from harness.tables.columns import LEADERBOARD_COLUMNS
from harness.tables.rebuild import rebuild
from harness.tables.selection import View, seen
from tests.support.results import as_control, made_up, scored_by

TRIALS, PERMUTATIONS = 200, 500
QUICK = [f"trials={TRIALS}", f"permutations={PERMUTATIONS}"]
LOWER = {"higher_is_better": False}
MAE = ScoreProtocol(
    "counts",
    1,
    {"exact": {"metric": "count"}, "mae": {"metric": "count"}, "rmse": {}},
    {"error": ["mae", "rmse"]},
    "mae",
)


def errors(place: int, name: str, n: int) -> dict[str, np.ndarray]:
    """The later a run, the smaller its errors; samples differ in how hard they are."""
    hard = np.random.default_rng(3).gamma(2, size=n)
    noise = np.random.default_rng([place, *map(ord, name)]).normal(0, 0.05, size=n)
    error = hard * (1.5 - 0.2 * place) + noise**2
    return {name: (error < 1) * 1.0 if name == "exact" else error}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Four captioners, the last one the best, and two controls that are worse than all."""
    folder = made_up(tmp_path_factory.mktemp("direction"), runs=6, samples=40)
    runs = sorted(path for path in (folder / "runs").iterdir())
    for place, kind in ((0, "constant"), (1, "nearest")):
        as_control(runs[place], kind)
    scored_by(folder, MAE, {"exact": {}, "mae": LOWER, "rmse": LOWER}, errors)
    rebuild(folder, TRIALS, PERMUTATIONS)
    return folder


@pytest.fixture(scope="module")
def board(results) -> pd.DataFrame:
    return pd.read_csv(results / "leaderboard.csv", keep_default_na=False, na_values=[""])


# ---------------------------------------------------------------- an average of any name


@pytest.fixture(scope="module")
def quality(tmp_path_factory) -> Path:
    protocol = ScoreProtocol("p", 1, {"b": {}, "a": {}}, {"quality": ["a", "b"], "double": ["quality"]}, "quality")
    folder = made_up(tmp_path_factory.mktemp("quality"), runs=4, samples=30)
    as_control(sorted((folder / "runs").iterdir())[0], "constant")
    random = lambda place, name, n: {name: np.random.default_rng([place, ord(name)]).random(n) + 0.1 * place}  # noqa: E731
    scored_by(folder, protocol, {"b": {}, "a": {}}, random)
    rebuild(folder, TRIALS, PERMUTATIONS)
    return folder


def test_an_average_of_any_name_is_shown_and_ranks(quality):
    table = pd.read_csv(quality / "leaderboard.csv")
    scores = ["b", "a", "quality", "quality_ci_low", "quality_ci_high", "double", "double_ci_low", "double_ci_high"]
    facts, place = list(LEADERBOARD_COLUMNS), LEADERBOARD_COLUMNS.index("rank_low")
    assert list(table.columns) == [*facts[:place], *scores, *facts[place:], "gain_constant"]
    assert table["quality"].to_numpy() == pytest.approx(table[["a", "b"]].mean(axis=1).to_numpy(), abs=1e-5)
    ranked = table[table["rank"].notna()]
    assert ranked["quality"].is_monotonic_decreasing
    assert (ranked["quality_ci_low"] < ranked["quality"]).all()
    assert table["quality_ci_high"].notna().all(), "the control's, too"
    own = table.loc[table["control"] == "constant", "quality"].item()
    assert ranked["gain_constant"].to_numpy() == pytest.approx((ranked["quality"] - own).to_numpy(), abs=1e-5)


def test_it_is_tested_compared_and_reported(quality, capsys):
    for name in ("significance", "subgroups", "controls"):
        assert {"quality", "double"} <= set(pd.read_csv(quality / f"{name}.csv")["metric"])
    assert main(["leaderboard", f"results={quality}", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"quality .*double", shown)
    table = pd.read_csv(quality / "leaderboard.csv")
    assert f"{table['quality'][0]:.3f} [{table['quality_ci_low'][0]:.3f}" in shown
    assert main(["report", f"results={quality}", *QUICK]) == 0
    page = (quality / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert data["gallery"]["by"] == "quality"
    assert data["gallery"]["columns"] == ["quality", "double", "b", "a"]
    assert "mean of a and b; ranks the rows" in page
    assert "Better than no captioner?" in page


def test_a_narrow_terminal_keeps_the_column_that_ranks(quality, monkeypatch, capsys):
    from harness.machine import terminal

    monkeypatch.setattr(terminal.console, "width", 60)
    assert main(["leaderboard", f"results={quality}", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "this terminal is narrow" in shown
    left_out = re.search(r"narrow: (.*) are in", shown)[1].split(", ")
    assert "quality" not in left_out


# ---------------------------------------------------------------- less is better


def test_the_least_ranks_first_with_its_interval_and_rank_range(board):
    ranked = board[board["rank"].notna()]
    assert ranked["rank"].tolist() == [1, 2, 3, 4]
    assert ranked["mae"].is_monotonic_increasing
    assert ranked["model"].tolist() == ["model0005", "model0004", "model0003", "model0002"]
    assert (ranked["rank_low"] <= ranked["rank"]).all()
    assert (ranked["rank_high"] >= ranked["rank"]).all()
    assert ranked["rank_high"].iloc[0] < 4
    assert (ranked["mae_ci_low"] < ranked["mae"]).all()
    assert {"error_ci_low", "error_ci_high"} <= set(board.columns)
    assert "exact_ci_low" not in board


def test_a_gain_over_a_control_is_how_much_less(board):
    ranked, below = board[board["rank"].notna()], board[board["rank"].isna()]
    for kind in ("constant", "nearest"):
        own = below.loc[below["control"] == kind, "mae"].item()
        assert ranked[f"gain_{kind}"].to_numpy() == pytest.approx((own - ranked["mae"]).to_numpy(), abs=2e-5)
        assert (ranked[f"gain_{kind}"] > 0).all()


def test_of_two_controls_of_a_kind_the_one_with_the_least_counts(results, tmp_path):
    shutil.copytree(results, tmp_path / "two")
    victim = next(run for run in find_runs(tmp_path / "two") if run.control == "constant")
    as_control(victim.folder, "nearest", options={"hub": "another"})
    rebuild(tmp_path / "two", TRIALS, PERMUTATIONS)
    table = pd.read_csv(tmp_path / "two" / "leaderboard.csv")
    first, least = table.iloc[0], table.loc[table["control"] == "nearest", "mae"].min()
    assert first["gain_nearest"] == pytest.approx(least - first["mae"], abs=1e-5)


def test_pairs_go_down_the_ranks_and_a_long_board_from_the_least(results, tmp_path, monkeypatch):
    table = pd.read_csv(results / "significance.csv").query("metric == 'mae'")
    assert (table["difference"] < 0).all(), "row_a is the better one"
    monkeypatch.setattr(significance, "NEXT", 2)
    shutil.copytree(results, tmp_path / "long")
    rebuild(tmp_path / "long", TRIALS, permutations=60)
    table = pd.read_csv(tmp_path / "long" / "significance.csv")
    best = {name: part["row_a"].str.partition("/")[0].unique().tolist() for name, part in table.groupby("metric")}
    assert {name: best[name] for name in ("mae", "error")} == {"mae": ["model0005"], "error": ["model0005"]}


def test_scores_say_the_direction_of_averages_too(results):
    scores = pd.read_csv(results / "scores.csv").groupby("metric")["higher_is_better"].unique().map(list).to_dict()
    assert scores == {"exact": [True], "mae": [False], "rmse": [False], "error": [False]}


def test_sorted_by_it_the_least_comes_first(results):
    (board,) = rebuild(results, TRIALS, PERMUTATIONS)
    for column in ("mae", "error", "mae_ci_high", "rmse"):
        assert seen(board, View(sort=column)).table[column].is_monotonic_increasing
    for column in ("exact", "gain_constant"):
        assert seen(board, View(sort=column)).table[column].dropna().is_monotonic_decreasing


def test_people_are_told(results, capsys):
    assert main(["leaderboard", f"results={results}", *QUICK]) == 0
    assert "less is better: mae, rmse, error" in capsys.readouterr().out
    assert "less is better: mae, rmse, error" in (results / "leaderboard.md").read_text()
    assert main(["compare", "model0004", "model0005", f"results={results}", "metric=mae", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "less is better, so that below 0 A is better: mae, rmse, error" in shown
    assert "largest differences by mae" in shown


def test_the_report_knows_the_best_from_the_worst(results, board):
    assert main(["report", f"results={results}", "samples=8", *QUICK]) == 0
    page = (results / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    gallery = data["gallery"]
    assert (gallery["by"], gallery["lower"]) == ("mae", ["error", "mae", "rmse"])
    means = {kind: [s["mean"] for s in gallery["samples"] if kind in s["why"]] for kind in ("best", "worst")}
    assert max(means["best"]) < min(means["worst"])
    assert data["significance"]["lower"] == ["error", "mae", "rmse"]
    assert "Better than every control: constant, nearest" in page
    assert f"mae {board['mae'][0]:.3f}" in page
    assert "ranks the rows; less is better" in page
    assert "A line that rises says that the captioner does worse" in page
    assert "brighter is lower, which is better" in page
    assert "mae (less is better)" in page, "on the axes"
