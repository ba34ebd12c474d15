"""The published study: recomputed from its own tables, and our rows beside it."""

from pathlib import Path

import pandas as pd
import pytest

from harness import config
from harness.cells.parts import GROUPS
from harness.choices import groups
from harness.cli import main
from harness.published import printed
from harness.published.beside import COLUMNS, beside, incomparable
from harness.store import read_json, write_json
from harness.store.runs import find_runs
from tests.support.results import made_up
from tests.support.rocov2_like import make

AVERAGES = config.choice("protocol", "paper")["averages"]
QUICK = ["parameters=false", "trials=50"]


def test_exactly_three_cells_are_inconsistent_and_named_with_what_they_are():
    found = {(one.model, one.metric): one for one in printed.findings(AVERAGES)}
    assert set(found) == {("smolvlm", "relevance"), ("smolvlm", "factuality"), ("qwen25_vl", "relevance")}
    relevance = found["smolvlm", "relevance"]
    assert [(name, value) for name, value, _ in relevance.cells] == [("base", 0.362), ("modality", 0.365)]
    assert [mean for *_, mean in relevance.cells] == pytest.approx([0.3345, 0.340])
    assert relevance.reason == "the mean without bleurt"
    ((name, value, mean),) = found["smolvlm", "factuality"].cells
    assert (name, value, mean) == ("modality", 0.048, pytest.approx(0.0635))
    ((name, value, mean),) = found["qwen25_vl", "relevance"].cells
    assert (name, value, mean) == ("modality", 0.351, pytest.approx(0.338, abs=5e-4))


def test_printed_values_stay_as_printed_and_nine_of_ten_rows_agree():
    table = printed.recomputed(AVERAGES)
    board = table[table["table"] == "leaderboard"]
    published = printed.printed("leaderboard").set_index("model")
    for row in board.to_dict("records"):
        assert row["published"] == published.loc[row["model"], row["metric"]]
    averages = board[board["metric"].isin(AVERAGES)]
    assert len(averages) == 30
    other = averages[averages["model"] != "smolvlm"]
    assert other["difference"].abs().max() <= 1e-3
    assert (other["note"] == "").all()
    mine = averages[averages["model"] == "smolvlm"].set_index("metric")
    assert mine.loc["overall", "recomputed"] == pytest.approx(0.186, abs=5e-4)
    assert mine.loc["overall", "note"] == "the mean of the printed relevance and factuality"
    assert mine.loc["relevance", "note"].startswith("inconsistent: ")
    assert board.loc[~board["metric"].isin(AVERAGES), ["recomputed", "difference"]].isna().all().all()


def test_recomputation_is_the_mean_of_the_six_metrics():
    table = printed.recomputed(AVERAGES).set_index(["table", "model", "configuration", "metric"]).sort_index()
    for key in {key[:3] for key in table.index}:
        part = table.loc[key]
        metric = part["published"]
        relevance = (metric["similarity"] + metric["bertscore"] + metric["rouge"] + metric["bleurt"]) / 4
        factuality = (metric["umls_f1"] + metric["alignscore"]) / 2
        expected = [relevance, factuality, (relevance + factuality) / 2]
        assert part.loc[["relevance", "factuality", "overall"], "recomputed"].tolist() == pytest.approx(expected)


def test_changes_by_the_modality_are_the_printed_percentages():
    overall = printed.changes(AVERAGES).query("metric == 'overall'").set_index("model")
    assert overall["published"].round(1).to_dict() == {"smolvlm": 3.5, "qwen2_vl": -21.6, "qwen25_vl": 6.4}
    assert overall.loc["qwen25_vl", "recomputed"] == pytest.approx(2.7, abs=0.3), "not 6.4"


def test_a_planted_error_is_found(monkeypatch):
    table = printed.tables()
    table["leaderboard"].loc[0, "factuality"] += 0.002
    monkeypatch.setattr(printed, "tables", lambda: table)
    found = {(one.model, one.metric) for one in printed.findings(AVERAGES)}
    assert ("llava_mistral", "factuality") in found
    assert len(found) == 4


# ---------------------------------------------------------------- our own rows


def board_of(folder: Path, protocol: str, weights: str, dataset: str) -> Path:
    """Made-up runs of two published captioners, one also with a modality label, scored by a protocol of that name."""
    made_up(folder, runs=3)
    names = [("smolvlm", "none"), ("moondream2", "none"), ("smolvlm", "oracle")]
    for (model, modality), run in zip(names, find_runs(folder), strict=True):
        manifest = read_json(run.folder / "manifest.json")
        manifest["row"] |= {"model": model, "modality": modality, "weights": weights, "dataset": dataset}
        write_json(run.folder / "manifest.json", manifest)
        record = read_json(run.folder / "scores" / "embedded.json")
        record["protocol"]["name"] = protocol
        (run.folder / "scores" / "embedded.json").unlink()
        write_json(run.folder / "scores" / f"{protocol}.json", record)
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    return board_of(tmp_path_factory.mktemp("real"), "paper", "hub", "rocov2")


def test_our_rows_stand_beside_the_published_ones(real, capsys):
    assert main(["paper", f"results={real}", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "3 inconsistent cells" in said
    assert "smolvlm factuality: modality 0.048 instead of 0.0635" in said
    assert "CANNOT BE COMPARED" not in said
    assert "split test, 40 samples; the study: test, 19267" in said
    table = pd.read_csv(real / "paper.csv")
    assert tuple(table.columns) == COLUMNS
    ours = table[table["table"] == "ours"]
    assert set(ours["model"]) == {"smolvlm", "moondream2"}
    assert set(ours["configuration"]) == {"targeted/plain/none"}, "a label in the prompt is another question"
    published = printed.printed("leaderboard").set_index("model")
    for run in find_runs(real):
        if run.row["modality"] == "none":
            mean = run.values(run.protocols["paper"]["columns"]["rouge"]).mean()
            row = ours[(ours["model"] == run.row["model"]) & (ours["metric"] == "rouge")].iloc[0]
            assert row["ours"] == pytest.approx(mean, rel=1e-5)
            assert row["published"] == published.loc[run.row["model"], "rouge"]
            assert row["difference"] == pytest.approx(mean - row["published"], rel=1e-4)
    assert ours.loc[ours["metric"] == "overall", "note"].str.contains("side our 95 % interval").all()


def test_no_row_of_ours_is_said_and_nothing_is_written_without_results(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["paper", *QUICK]) == 0
    assert "no run is scored by protocol paper" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())
    assert main(["paper", *QUICK, "out=deep/all.csv"]) == 0
    assert set(pd.read_csv(tmp_path / "deep/all.csv")["table"]) == {
        "leaderboard",
        "modality_ablation",
        "modality_change",
    }


def test_embedded_rows_are_never_shown_without_the_plain_statement(tmp_path, capsys):
    folder = board_of(tmp_path, "embedded", "embedded", "phantom")
    assert main(["paper", f"results={folder}", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "no run is scored by protocol paper" in said
    assert "it cannot be compared with the published one" in said
    assert "ours" not in set(pd.read_csv(folder / "paper.csv")["table"])
    assert main(["paper", f"results={folder}", *QUICK, "protocol=embedded"]) == 0
    said = capsys.readouterr().out
    assert "CANNOT BE COMPARED" in said
    assert "weights embedded are not the published checkpoints" in said
    ours = pd.read_csv(folder / "paper.csv").query("table == 'ours'")
    assert len(ours)
    assert ours["note"].str.startswith("not comparable: ").all()


def test_our_effects_of_the_modality_stand_beside_the_published_ones(tmp_path, capsys):
    folder = board_of(tmp_path, "paper", "hub", "rocov2")
    row = {"dataset": "rocov2", "split": "test", "weights": "hub", "protocol": "paper", "data": "0", "n": 40}
    row |= {"model": "smolvlm", "strategy": "paper", "prompt": "modality", "modality": "predicted", "group": ""}
    row |= {"base": 0.2, "value": 0.21, "difference": 0.01, "change_pct": 5.0, "ci_low": 0, "ci_high": 1, "p": 0.01}
    rows = [{**row, "metric": metric, "by": "all", "p_holm": 0.02} for metric in ("overall", "rouge")]
    rows += [{**rows[0], "by": "modality", "change_pct": 99.0}, {**rows[0], "protocol": "other", "change_pct": 98.0}]
    rows += [{**rows[0], "model": "llava_15"}]
    pd.DataFrame(rows).to_csv(folder / "ablation.csv", index=False)
    assert main(["paper", f"results={folder}", *QUICK]) == 0
    assert "+5.0 (+1.5)" in capsys.readouterr().out
    changes = pd.read_csv(folder / "paper.csv").query("table == 'modality_change' and ours.notna()")
    assert changes["metric"].tolist() == ["overall", "rouge"]
    assert changes["configuration"].unique().tolist() == ["paper/modality/predicted"]
    assert changes["difference"].iloc[0] == pytest.approx(1.5)
    (folder / "ablation.csv").write_text("model,metric\nsmolvlm,rouge\n")
    assert main(["paper", f"results={folder}", *QUICK]) == 2
    assert "capbench leaderboard" in capsys.readouterr().err


def test_controls_and_unscored_columns_are_no_published_row(real):
    from harness.tables.boards import build, grouped

    ((key, runs),) = grouped(find_runs(real)).items()
    board = build(key, runs, 20)
    board.table.loc[board.table["model"] == "smolvlm", "bleurt"] = None
    board.table.loc[board.table["model"] == "moondream2", "control"] = "blank"
    rows = beside(board, incomparable(key)).set_index(["model", "metric"])
    assert set(rows.index.get_level_values("model")) == {"smolvlm"}
    assert rows.loc[("smolvlm", "bleurt"), ["ours", "difference"]].isna().all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["out=table.txt"], "ends in .csv"), (["trials=0"], "1 or more"), (["protocl=paper"], "did you mean 'protocol'")],
)
def test_a_wrong_request_is_one_line(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["paper", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_parameter_table_is_part_of_it(tmp_path, capsys):
    assert main(["paper", f"results={tmp_path}", f"out={tmp_path / 'all.csv'}"]) == 0
    rows = pd.read_csv(tmp_path / "all.csv").query("table == 'parameters'").set_index(["model", "metric"])
    assert set(rows.index.get_level_values("model")) == {*groups()["model"], "moondream2_early"}
    exact = rows.loc[("llava_mistral", "params_trained")]
    assert (exact["published"], exact["ours"]) == (40.1e6, pytest.approx(40_108_032, rel=1e-5))
    assert exact["note"].startswith("exact: ")
    assert "trainable parameters" in capsys.readouterr().out


# ---------------------------------------------------------------- experiment=paper


@pytest.mark.slow
def test_the_experiment_is_the_published_comparison(tmp_path):
    cells = config.cells("run", ["experiment=paper", f"dataset.root={tmp_path}"])
    assert {(c.choices["dataset"], c.choices["weights"], c.choices["protocol"]) for c in cells} == {
        ("rocov2", "hub", "paper")
    }
    assert {c.choices["train"] for c in cells} == {"hub"}
    captioners = [c for c in cells if c.choices["control"] == "none"]
    assert {c.choices["model"] for c in captioners} == set(printed.printed("models")["model"])
    assert {c.choices["lora"] for c in captioners} == {"paper", "full"}
    assert len(cells) == len(captioners) + 3
    for one in cells[::7]:
        for group in GROUPS:
            config.build(one, group)


@pytest.mark.slow
def test_its_dry_run_works_on_a_folder_like_the_real_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make(tmp_path / "rocov2")
    asked = ["experiment=paper", f"dataset.root={tmp_path / 'rocov2'}", f"results={tmp_path / 'results'}"]
    assert main(["run", *asked, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "23 cells, 10 refused, 11 cannot run" in said, "no checkpoint is here, so the nearest control is not, either"
    assert "hf download" in said
    assert "0 of 8" in said
    assert not (tmp_path / "results" / "runs").exists()
