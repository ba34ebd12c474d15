"""Formulas: values that are no means over samples, in every table, against plain loops over the same samples."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.commands.compare import pair, summary
from harness.contracts import ScoreProtocol
from harness.store.runs import find_run, find_runs
from harness.tables import significance, stats
from harness.tables.columns import ROW_COLUMNS, SEED
from harness.tables.formulas import formula, lower_is_better
from harness.tables.labels import row_name
from harness.tables.rebuild import rebuild
from tests.support.results import as_control, contents, made_up, scored_by

TRIALS, PERMUTATIONS = 200, 300
F1 = [{"over": {"tp": 2}, "under": {"tp": 2, "fp": 1, "fn": 1}}]
CLASSES = "abc"
BALANCED = [{"over": {f"hit_{c}": 1}, "under": {f"is_{c}": 1}} for c in CLASSES]
ENTRIES = {"f1": {"combine": F1}, "balanced": {"combine": BALANCED}, "exact": {}}
PROTOCOL = ScoreProtocol(
    "sums",
    1,
    {name: {"metric": name} for name in ENTRIES},
    {"both": ["f1", "balanced"], "quality": ["both", "exact"]},
    "quality",
)


def values(place: int, name: str, n: int) -> dict[str, np.ndarray]:
    """Counts of found boxes, classes read right, and a plain value; runs differ in skill, samples in kind."""
    rng = np.random.default_rng([place, *map(ord, name)])
    skill = 0.5 + 0.04 * place
    if name == "exact":
        return {"exact": (rng.random(n) < skill).astype(float)}
    if name == "balanced":
        kinds = np.random.default_rng(1).choice(list(CLASSES), size=n, p=[0.7, 0.2, 0.1])
        hit = (rng.random(n) < skill).astype(float)
        cells = {f"is_{c}": (kinds == c).astype(float) for c in CLASSES}
        return cells | {f"hit_{c}": hit * cells[f"is_{c}"] for c in CLASSES} | {"balanced": hit}
    wanted = np.random.default_rng(2).integers(0, 4, size=n)  # 0: nothing to find, no F1 of its own
    tp = rng.binomial(wanted, skill)
    fp, fn = rng.poisson(0.3, size=n), wanted - tp
    with np.errstate(invalid="ignore"):
        own = 2 * tp / (2 * tp + fp + fn)
    return {"tp": tp * 1.0, "fp": fp * 1.0, "fn": fn * 1.0, "f1": own}


def f1(table: pd.DataFrame) -> float:
    under = 2 * table["tp"].sum() + table["fp"].sum() + table["fn"].sum()
    return 2 * table["tp"].sum() / under if under else np.nan


def balanced(table: pd.DataFrame) -> float:
    """As scikit-learn has it: the mean recall of the classes that are there."""
    kinds = [table[f"hit_{c}"].sum() / table[f"is_{c}"].sum() for c in CLASSES if table[f"is_{c}"].sum()]
    return float(np.mean(kinds)) if kinds else np.nan


REFERENCE = {
    "f1": f1,
    "balanced": balanced,
    "exact": lambda table: table["exact"].mean(),
    "both": lambda table: (f1(table) + balanced(table)) / 2,
    "quality": lambda table: ((f1(table) + balanced(table)) / 2 + table["exact"].mean()) / 2,
}


def tables(results: Path) -> dict[str, list[pd.DataFrame]]:
    """Row and control -> all values of its metrics by sample, a table for each seed."""
    found: dict[str, list[pd.DataFrame]] = {}
    for run in find_runs(results):
        files = [pd.read_csv(run.folder / "scores" / f"{name}-0.csv") for name in ENTRIES]
        name = row_name(run.row[key] for key in ROW_COLUMNS)
        found.setdefault(name, []).append(pd.concat([file.drop(columns=["id", "reason"]) for file in files], axis=1))
    return found


def value(seeds: list[pd.DataFrame], name: str, rows=slice(None)) -> float:
    return float(np.mean([REFERENCE[name](table.iloc[rows]) for table in seeds]))


def draws(n: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(n, size=(TRIALS, n))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Four rows, two of them with two seeds, and a control."""
    folder = made_up(tmp_path_factory.mktemp("sums"), runs=8, samples=30, seeds=2)
    runs = sorted(path for path in (folder / "runs").iterdir())
    for path in (runs[3], runs[5], runs[7]):
        shutil.rmtree(path)
    as_control(runs[6], "constant")
    scored_by(folder, PROTOCOL, ENTRIES, values)
    rebuild(folder, TRIALS, PERMUTATIONS)
    return folder


@pytest.fixture(scope="module")
def board(results) -> pd.DataFrame:
    table = pd.read_csv(results / "leaderboard.csv")
    return table.assign(row=[row_name(cells) for cells in table[list(ROW_COLUMNS)].itertuples(index=False)])


def test_values_of_rows_and_controls_are_those_of_the_sums_the_mean_over_seeds(results, board):
    found = tables(results)
    assert board["seeds"].tolist().count(2) == 1
    for row in board.to_dict("records"):
        for name in REFERENCE:
            assert row[name] == pytest.approx(value(found[row["row"]], name), rel=1e-5)
    assert board["n"].eq(30).all(), "a sample without an F1 of its own counts all the same"
    assert board.loc[board["rank"] == 1, "quality"].item() == board.loc[board["control"].isna(), "quality"].max()


def test_intervals_and_rank_ranges_are_those_of_a_plain_loop(results, board):
    found, drawn = tables(results), draws(30)
    ranked = board[board["rank"].notna()]
    resampled = np.array([[value(found[name], "quality", rows) for name in ranked["row"]] for rows in drawn])
    for place, row in enumerate(ranked.to_dict("records")):
        bounds = np.quantile(resampled[:, place], [0.025, 0.975])
        assert (row["quality_ci_low"], row["quality_ci_high"]) == pytest.approx(tuple(bounds), rel=1e-5)
    ranks = (-resampled).argsort(axis=1).argsort(axis=1) + 1
    assert ranked["rank_low"].tolist() == np.quantile(ranks, 0.025, axis=0, method="lower").tolist()
    assert ranked["rank_high"].tolist() == np.quantile(ranks, 0.975, axis=0, method="higher").tolist()


@pytest.mark.parametrize("name", ["f1", "balanced", "quality"])
def test_paired_differences_and_p_values_are_those_of_a_plain_loop(results, name):
    table, found = pd.read_csv(results / "significance.csv"), tables(results)
    for row in table[table["metric"] == name].to_dict("records"):
        pair_of = [found[row[side]] for side in ("row_a", "row_b")]
        assert row["difference"] == pytest.approx(value(pair_of[0], name) - value(pair_of[1], name), rel=1e-4, abs=1e-7)
        drawn = [value(pair_of[0], name, rows) - value(pair_of[1], name, rows) for rows in draws(30)]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-6)
        assert row["p"] == pytest.approx(swapped(*pair_of, name), abs=1e-6)


def swapped(one: list[pd.DataFrame], other: list[pd.DataFrame], name: str) -> float:
    """The p-value by swapping the rows of the tables, with the same coins."""
    slots = [[side[place % len(side)] for place in range(2)] for side in (one, other)]  # two seeds at most
    observed, larger = abs(value(slots[0], name) - value(slots[1], name)), 1
    for coins in stats._bits(np.random.default_rng(SEED), PERMUTATIONS, len(one[0])).astype(bool):
        left, right = ([chosen(a, b, coins == side) for a, b in zip(*slots, strict=True)] for side in (True, False))
        larger += abs(value(left, name) - value(right, name)) >= observed - 1e-12
    return larger / (PERMUTATIONS + 1)


def chosen(one: pd.DataFrame, other: pd.DataFrame, first: np.ndarray) -> pd.DataFrame:
    """The samples of one system where `first` says so, of the other one elsewhere."""
    return pd.DataFrame(np.where(first[:, None], one, other), columns=one.columns)


def test_subgroups_and_controls_are_of_the_sums(results):
    found, runs = tables(results), find_runs(results)
    groups = pd.read_csv(results / "subgroups.csv", dtype={"group": str})
    modality = np.array([row.modality for row in runs[0].rows])
    for row in groups[(groups["by"] == "modality") & (groups["metric"] != "exact")].to_dict("records"):
        expected = value(found[row["row"]], row["metric"], modality == row["group"])
        assert row["value"] == pytest.approx(expected, rel=1e-4, nan_ok=True)
    over = pd.read_csv(results / "controls.csv")
    assert set(over["metric"]) == set(REFERENCE)
    (control,) = [name for name in found if name.startswith("constant")]
    for row in over.to_dict("records"):
        expected = value(found[row["row"]], row["metric"]) - value(found[control], row["metric"])
        assert row["difference"] == pytest.approx(expected, rel=1e-4, abs=1e-7)
        if row["metric"] == "f1":
            assert row["p"] == pytest.approx(swapped(found[row["row"]], found[control], "f1"), abs=1e-6)


def test_scores_samples_and_compare_say_the_same(results, board):
    scores = pd.read_csv(results / "scores.csv").set_index(["run_id", "metric"])
    for run in find_runs(results):
        own = tables_of(run)
        for name, reference in REFERENCE.items():
            assert scores.loc[(run.row["run_id"], name), "value"] == pytest.approx(reference(own), rel=1e-5)
        bounds = np.quantile([f1(own.iloc[rows]) for rows in draws(30)], [0.025, 0.975])
        assert scores.loc[(run.row["run_id"], "f1"), ["ci_low", "ci_high"]].tolist() == pytest.approx(
            list(bounds), rel=1e-5
        )
        shown = pd.read_csv(run.folder / "samples.csv")["f1"]
        assert shown.to_numpy() == pytest.approx(own["f1"].to_numpy(), rel=1e-5, nan_ok=True)
    a, b = (find_run(results, name) for name in ("model0001", "model0002"))
    table = summary(pair(a, b, None), TRIALS, PERMUTATIONS).set_index("metric")
    assert table.loc["quality", "a"] == pytest.approx(REFERENCE["quality"](tables_of(a)))
    assert table.loc["f1", "p"] == pytest.approx(swapped([tables_of(a)], [tables_of(b)], "f1"), abs=1e-6)


def tables_of(run) -> pd.DataFrame:
    files = [pd.read_csv(run.folder / "scores" / f"{name}-0.csv") for name in ENTRIES]
    return pd.concat([file.drop(columns=["id", "reason"]) for file in files], axis=1)


def test_a_long_board_tests_each_column_with_its_own_best_row(results, tmp_path, monkeypatch):
    monkeypatch.setattr(significance, "NEXT", 2)
    shutil.copytree(results, tmp_path / "long")
    rebuild(tmp_path / "long", TRIALS, permutations=50)
    table, every = (pd.read_csv(folder / "significance.csv") for folder in (tmp_path / "long", results))
    assert set(table["family"]) == {"best row and the next 2"}
    board = pd.read_csv(results / "leaderboard.csv").query("control.isna()")
    for name, part in table.groupby("metric"):
        assert {row.partition("/")[0] for row in part["row_a"]} == {board.loc[board[name].idxmax(), "model"]}
        for row in part.to_dict("records"):
            same = every[
                (every["metric"] == name) & every[["row_a", "row_b"]].isin([row["row_a"], row["row_b"]]).all(axis=1)
            ]
            assert abs(row["difference"]) == pytest.approx(abs(same["difference"].item()), rel=1e-4)
            assert row["p"] == pytest.approx(same["p"].item(), abs=0.2)


def test_tables_of_sums_are_rebuilt_to_the_byte(results, tmp_path):
    shutil.copytree(results / "runs", tmp_path / "runs")
    rebuild(tmp_path, TRIALS, PERMUTATIONS)
    assert contents(tmp_path) == contents(results)


def test_a_combined_column_changes_no_number_of_a_plain_one(tmp_path):
    entries = {"exact": {}, "f1": {"combine": F1}}
    numbers = []
    for place, names in enumerate((["exact"], ["exact", "f1"])):
        protocol = ScoreProtocol("p", 1, {name: {} for name in names}, {}, "exact")
        folder = made_up(tmp_path / str(place), runs=4, samples=30)
        rebuild(scored_by(folder, protocol, {name: entries[name] for name in names}, values), TRIALS, PERMUTATIONS)
        parts = [pd.read_csv(folder / f"{table}.csv") for table in ("scores", "significance", "subgroups")]
        numbers.append([part[part["metric"] == "exact"].reset_index(drop=True) for part in parts])
    for one, other in zip(*numbers, strict=True):
        pd.testing.assert_frame_equal(one, other, check_dtype=False, rtol=0, atol=0)


# ---------------------------------------------------------------- by hand


def test_ratios_by_hand():
    made = formula({"f1": {"combine": F1}, "balanced": {"combine": BALANCED}, "exact": {}}, {"mean": ["f1", "exact"]})
    sums = np.array([[2, 1, 1, 3, 4, 1, 2, 0, 0, 0.5], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0.25]])
    names = ["tp", "fp", "fn", "hit_a", "is_a", "hit_b", "is_b", "hit_c", "is_c"]
    assert [n for name in ("f1", "balanced") for n in summed_of(made, name)] == names
    found = made(made.with_averages(sums))
    assert found[0].tolist() == pytest.approx([4 / 6, (3 / 4 + 1 / 2) / 2, 0.5, (4 / 6 + 0.5) / 2])
    assert np.isnan(found[1]).tolist() == [True, True, False, True], "0/0 has no value, nor has what contains it"


def summed_of(made, name):
    from harness.tables.formulas import summed

    return summed(made.columns[name])


def test_a_value_that_a_resample_lacks_has_no_interval_and_no_rank_range(tmp_path):
    """One sample of two alone has something to find: a quarter of the draws leave it out."""

    def rare(place: int, name: str, n: int) -> dict[str, np.ndarray]:
        tp = np.zeros(n)
        tp[0] = 1.0
        return {"tp": tp, "fp": np.zeros(n), "fn": tp * place, "f1": np.ones(n)}

    protocol = ScoreProtocol("p", 1, {"f1": {}}, {}, "f1")
    rebuild(scored_by(made_up(tmp_path, runs=2, samples=6), protocol, {"f1": {"combine": F1}}, rare), 100, 50)
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert board["f1"].tolist() == pytest.approx([1.0, 2 / 3], rel=1e-5)
    assert board["rank"].tolist() == [1, 2]
    assert board[["f1_ci_low", "f1_ci_high", "rank_low", "rank_high"]].isna().all().all()


def test_a_permutation_without_a_value_counts_as_a_larger_one():
    made = formula({"precision": {"combine": [{"over": {"tp": 1}, "under": {"tp": 1, "fp": 1}}]}}, {})
    values = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])  # swapping one of two leaves a system empty
    coins = stats._bits(np.random.default_rng(0), 400, 2)
    assert stats.permutation(values, 400, 0, made)[0, 1, 0] == 1.0
    assert 0.3 < (coins[:, 0] != coins[:, 1]).mean() < 0.7
    assert np.isnan(stats.permutation(np.zeros((2, 3, 2)), 50, 0, made)[0, 1, 0]), "no difference, no p-value"


def test_rounding_makes_no_value_of_0_by_0():
    """Thirds do not add up exactly; a system that is left with nothing has no precision all the same."""
    made = formula({"precision": {"combine": [{"over": {"tp": 1}, "under": {"tp": 1, "fp": 1}}]}}, {})
    values = np.zeros((3, 6, 2))
    values[0, :3, 0], values[1, 3:, 0], values[2, :, 1] = 1 / 3, 0.1, 0.7
    p = stats.permutation(values, 300, 0, made)
    assert (p[0, 1, 0], p[0, 2, 0]) == (1.0, pytest.approx(p[1, 2, 0], abs=0.1))


def test_holm_leaves_out_what_was_not_tested():
    assert stats.holm(np.array([0.01, np.nan, 0.04])).tolist() == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)


def test_the_direction_of_an_average_is_that_of_its_parts():
    columns = {
        "mae": {"higher_is_better": False},
        "rmse": {"higher_is_better": False},
        "f1": {"higher_is_better": True},
    }
    averages = {"errors": ["mae", "rmse", "gone"], "all": ["errors"], "good": ["f1"]}
    assert lower_is_better({**columns, "gone": {"missing": "?"}}, averages) == {"mae", "rmse", "errors", "all"}
