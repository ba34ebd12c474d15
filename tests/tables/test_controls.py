"""Controls on a leaderboard: listed, never ranked, costing no captioner a sample; controls.csv against plain numpy."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test

from harness.cli import main
from harness.store import file_digest, read_json, write_json
from harness.store.runs import find_runs
from harness.tables.columns import CONTROL_COLUMNS, ROW_COLUMNS, SEED
from harness.tables.rebuild import rebuild
from harness.tables.stats import bootstrap, holm
from tests.support.results import EMBEDDED_COLUMNS, PARTS, contents, made_up

RANKED = 4
TRIALS, PERMUTATIONS = 300, 2000
CONTROLS = ("constant", "template", "nearest")


def as_control(folder: Path, name: str, seeing: str | None = None) -> None:
    """Turn a made-up run into one of a control, or into the blank run of another one."""
    manifest = read_json(folder / "manifest.json")
    own = {"model": name, "strategy": "none", "prompt": "none", "modality": "none", "seed": None}
    if seeing is not None:
        twin = read_json(folder.parent / seeing / "manifest.json")
        own = {key: twin["row"][key] for key in ROW_COLUMNS}
        manifest |= {"seeing": twin["variant"]}
    manifest["row"] |= {**own, "class": "control", "control": name}
    manifest["config"] |= {"dataset": {"name": "made-up"}, "control": {"name": name}}
    write_json(folder / "manifest.json", manifest)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Four captioners, the three controls, and the blank runs of the first two captioners."""
    folder = made_up(tmp_path_factory.mktemp("controls"), runs=RANKED + 5)
    runs = sorted(path.name for path in (folder / "runs").iterdir())
    for place, name in enumerate(CONTROLS, start=RANKED):
        as_control(folder / "runs" / runs[place], name)
    for place in range(2):
        as_control(folder / "runs" / runs[RANKED + 3 + place], "blank", seeing=runs[place])
    rebuild(folder, TRIALS, PERMUTATIONS)
    return folder


@pytest.fixture(scope="module")
def alone(results, tmp_path_factory) -> Path:
    """The same captioners without a control."""
    folder = tmp_path_factory.mktemp("alone")
    for run in find_runs(results):
        if not run.control:
            shutil.copytree(run.folder, folder / "runs" / run.folder.name)
    rebuild(folder, TRIALS, PERMUTATIONS)
    return folder


@pytest.fixture(scope="module")
def samples(results) -> dict[tuple[str, str], pd.DataFrame]:
    """(model, control) -> per-sample scores with the composites."""
    found = {}
    for run in find_runs(results):
        table = pd.read_csv(run.folder / "samples.csv")
        table["relevance"] = table[PARTS].mean(axis=1)
        table["factuality"] = table[["umls_f1", "alignscore"]].mean(axis=1)
        table["overall"] = table[["relevance", "factuality"]].mean(axis=1)
        found[run.row["model"], run.control] = table
    return found


def opponent(control: str, model: str) -> tuple[str, str]:
    return (model, "blank") if control == "blank" else (control, control)


def test_controls_change_nothing_that_is_said_of_captioners(results, alone):
    for name in ("significance.csv", "agreement.csv", "subgroups.csv"):
        assert (results / name).read_bytes() == (alone / name).read_bytes(), name
    whole, part = (
        pd.read_csv(folder / "leaderboard.csv", dtype=str, keep_default_na=False) for folder in (results, alone)
    )
    kept = whole[whole["control"] == ""]
    pd.testing.assert_frame_equal(kept[part.columns], part)
    assert [name for name in whole.columns if name not in part.columns] == [
        f"gain_{name}" for name in (*sorted(CONTROLS), "blank")
    ]
    assert tuple(part.columns) == EMBEDDED_COLUMNS


def test_controls_are_listed_below_without_a_rank(results, samples):
    board = pd.read_csv(results / "leaderboard.csv", keep_default_na=False, na_values=[""])
    board["control"] = board["control"].fillna("")
    assert board["rank"].notna().tolist() == [True] * RANKED + [False] * 5
    below = board[RANKED:]
    assert below["control"].tolist() == ["constant", "nearest", "template", "blank", "blank"]
    assert set(below["class"]) == {"control"}
    assert below[["rank", "rank_low", "rank_high"]].isna().all().all()
    for row in below.to_dict("records"):
        mine = samples[row["model"], row["control"]]
        for metric in ("rouge", "relevance", "overall"):
            assert row[metric] == pytest.approx(mine[metric].mean(), abs=1e-5)
        assert row["overall_ci_low"] < row["overall"] < row["overall_ci_high"]
        assert row["n"] == len(mine)


def test_gains_are_differences_of_the_column_that_ranks(results, samples):
    board = pd.read_csv(results / "leaderboard.csv")
    ranked, below = board[:RANKED], board[RANKED:]
    for row in ranked.to_dict("records"):
        own = samples[row["model"], ""]["overall"].mean()
        for name in CONTROLS:
            assert row[f"gain_{name}"] == pytest.approx(own - samples[name, name]["overall"].mean(), abs=1e-5)
        blind = samples.get((row["model"], "blank"))
        assert (blind is None) == np.isnan(row["gain_blank"])
        if blind is not None:
            assert row["gain_blank"] == pytest.approx(own - blind["overall"].mean(), abs=1e-5)
    assert below[[name for name in board if name.startswith("gain_")]].isna().all().all()


def test_controls_csv_is_what_numpy_and_scipy_make_of_the_samples(results, samples):
    table = pd.read_csv(results / "controls.csv")
    assert tuple(table.columns) == CONTROL_COLUMNS
    assert table.groupby("control")["row"].nunique().to_dict() == dict.fromkeys(CONTROLS, RANKED) | {"blank": 2}
    assert set(table["metric"]) == {*PARTS, "umls_f1", "alignscore", "relevance", "factuality", "overall"}
    for row in table[table["metric"].isin(["rouge", "overall"])].to_dict("records"):
        model = row["row"].partition("/")[0]
        one = samples[model, ""][row["metric"]].to_numpy()
        other = samples[opponent(row["control"], model)][row["metric"]].to_numpy()
        assert row["difference"] == pytest.approx((one - other).mean(), abs=1e-5)
        drawn = bootstrap((one - other)[:, None], TRIALS, SEED)[:, 0]  # paired: the same images for both
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-5)
        assert row["n"] == len(one)
    for row in table[table["metric"] == "rouge"][::4].to_dict("records"):
        model = row["row"].partition("/")[0]
        pair = (samples[key]["rouge"].to_numpy() for key in ((model, ""), opponent(row["control"], model)))
        theirs = permutation_test(
            tuple(pair),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=PERMUTATIONS,
            vectorized=True,
            rng=np.random.default_rng(0),
        ).pvalue
        assert row["p"] == pytest.approx(theirs, abs=0.05)


def test_p_values_are_corrected_over_the_rows_of_a_metric_and_a_control(results):
    table = pd.read_csv(results / "controls.csv")
    for _, family in table.groupby(["metric", "control"]):
        assert family["p_holm"].to_numpy() == pytest.approx(holm(family["p"].to_numpy()), rel=1e-5)


def test_a_control_with_fewer_samples_costs_no_captioner_a_sample(results, alone, tmp_path, samples):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    victim = next(run for run in find_runs(copy) if run.control == "nearest")
    scores = next((victim.folder / "scores").glob("rouge-*.csv"))
    known, lines = file_digest(scores), scores.read_text().splitlines()
    for place in (3, 4):  # the metric failed on two samples
        lines[place] = f"{lines[place].partition(',')[0]},,failed"
    scores.write_text("\n".join(lines) + "\n")
    record = victim.folder / "scores" / "embedded.json"
    record.write_text(record.read_text().replace(known, file_digest(scores)))
    rebuild(copy, TRIALS, PERMUTATIONS)
    for name in ("significance.csv", "agreement.csv", "subgroups.csv"):
        assert (copy / name).read_bytes() == (alone / name).read_bytes(), name
    board = pd.read_csv(copy / "leaderboard.csv")
    assert set(board.loc[board["rank"].notna(), "n"]) == {40}
    assert board.loc[board["control"] == "nearest", "n"].item() == 38
    kept = np.ones(40, dtype=bool)
    kept[[2, 3]] = False
    first = board.iloc[0]
    own, other = (samples[key]["overall"][kept].mean() for key in ((first["model"], ""), ("nearest", "nearest")))
    assert first["gain_nearest"] == pytest.approx(own - other, abs=1e-5)
    table = pd.read_csv(copy / "controls.csv")
    assert table.groupby("control")["n"].unique().map(list).to_dict() == {
        **{name: [40] for name in ("constant", "template", "blank")},
        "nearest": [38],
    }


def test_of_two_controls_of_a_kind_the_stronger_one_counts_and_both_are_told_apart(results, tmp_path, samples):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    victim = next(run for run in find_runs(copy) if run.control == "template")
    manifest = read_json(victim.folder / "manifest.json")
    manifest["row"] |= {"model": "nearest", "control": "nearest"}
    manifest["config"]["control"] = {"name": "nearest", "hub": "another"}
    write_json(victim.folder / "manifest.json", manifest)
    rebuild(copy, TRIALS, PERMUTATIONS)
    board, table = pd.read_csv(copy / "leaderboard.csv"), pd.read_csv(copy / "controls.csv")
    names = set(board.loc[board["control"] == "nearest", "strategy"])
    assert len(names) == 2
    assert {name for name in table["control"] if name.startswith("nearest[")} == {
        name.replace("none", "nearest") for name in names
    }
    best = max(samples[name, name]["overall"].mean() for name in ("nearest", "template"))
    first = board.iloc[0]
    assert first["gain_nearest"] == pytest.approx(samples[first["model"], ""]["overall"].mean() - best, abs=1e-5)
    assert "gain_template" not in board


def test_an_incomplete_control_is_listed_and_compared_with_nothing(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    victim = next(run for run in find_runs(copy) if run.control == "constant")
    write_json(victim.folder / "manifest.json", {**victim.manifest, "status": "partial"})
    rebuild(copy, TRIALS, PERMUTATIONS)
    board = pd.read_csv(copy / "leaderboard.csv")
    assert len(board) == RANKED + 5
    assert board["control"].iloc[-1] == "constant"
    assert "gain_constant" not in board
    assert "constant" not in set(pd.read_csv(copy / "controls.csv")["control"])


def test_controls_alone_make_a_table_without_ranks(results, tmp_path):
    copy = tmp_path / "copy"
    for run in find_runs(results):
        if run.control:
            shutil.copytree(run.folder, copy / "runs" / run.folder.name)
    rebuild(copy, TRIALS, PERMUTATIONS)
    board = pd.read_csv(copy / "leaderboard.csv")
    assert len(board) == 5
    assert board["rank"].isna().all()
    assert board["overall"].notna().all()
    assert (copy / "controls.csv").read_text() == ",".join(CONTROL_COLUMNS) + "\n"


def test_tables_with_controls_are_rebuilt_to_the_byte(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results / "runs", copy / "runs")
    rebuild(copy, TRIALS, PERMUTATIONS)
    assert contents(copy) == contents(results)


def test_people_see_which_rows_are_controls(results, tmp_path, capsys):
    assert main(["leaderboard", f"results={results}", f"trials={TRIALS}", f"permutations={PERMUTATIONS}"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("control") >= 5
    assert "gain constant" in shown
    for suffix in (".md", ".tex"):
        text = (results / f"leaderboard{suffix}").read_text()
        assert text.count("control &" if suffix == ".tex" else "| control |") >= 5
        assert re.search(r"[+-]0\.\d{3} ", text), "a gain has a sign"
    out = tmp_path / "part.csv"
    words = [f"results={results}", f"trials={TRIALS}", f"permutations={PERMUTATIONS}", f"out={out}"]
    assert main(["leaderboard", *words, "model=constant,model0000"]) == 0
    assert pd.read_csv(out)["model"].tolist()[0] == "model0000"


def test_without_controls_no_column_of_theirs_is_shown(alone, capsys):
    assert main(["leaderboard", f"results={alone}", f"trials={TRIALS}", f"permutations={PERMUTATIONS}"]) == 0
    assert "control" not in capsys.readouterr().out
    assert "control" not in (alone / "leaderboard.md").read_text()
