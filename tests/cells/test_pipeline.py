"""The whole line, from data to leaderboard, on the tiny twins."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness import config
from harness.choices import groups
from harness.cli import main
from harness.store import Journal, file_digest
from harness.store.runs import find_runs
from harness.tables.columns import RUN_COLUMNS, SCORE_COLUMNS
from harness.tables.values import add_averages, protocol_values
from tests.support.commands import LIGHT, SMALL
from tests.support.results import EMBEDDED_COLUMNS


def files(results: Path) -> dict[str, str]:
    """All but what says how the last command went."""
    found = [p for p in sorted(results.rglob("*")) if p.is_file() and p.parent.name not in ("cells", "logs")]
    return {str(p.relative_to(results)): file_digest(p) for p in found}


def test_every_model_appears_zero_shot_and_fine_tuned(sweep):
    board = pd.read_csv(sweep / "leaderboard.csv")
    assert tuple(board.columns)[: len(EMBEDDED_COLUMNS)] == EMBEDDED_COLUMNS
    rows = board.groupby("model")["strategy"].agg(set).to_dict()
    assert set(rows) == set(groups()["model"])
    for model, strategies in rows.items():
        assert "none" in strategies, model
        assert len(strategies) == 2, model
    assert sorted(board["rank"]) == list(range(1, len(board) + 1)) or board["overall"].duplicated().any()
    assert (board["rank_low"] <= board["rank"]).all()
    assert (board["rank"] <= board["rank_high"]).all()
    for name in ("relevance", "factuality", "overall"):
        assert (board[f"{name}_ci_low"] <= board[name]).all()
        assert (board[name] <= board[f"{name}_ci_high"]).all()


def test_the_tables_have_the_promised_columns(sweep):
    runs = pd.read_csv(sweep / "runs.csv")
    assert list(runs.columns) == list(RUN_COLUMNS)
    assert set(runs["status"]) == {"ok"}
    assert (runs["n_ok"] == runs["n_requested"]).all()
    assert (runs["peak_memory_bytes"] > 1e7).all()
    trained = runs[runs["strategy"] != "none"]
    assert (trained["train_seconds"] > 0).all()
    assert (trained["params_trained"] > 0).all()
    scores = pd.read_csv(sweep / "scores.csv")
    assert list(scores.columns) == list(SCORE_COLUMNS)
    assert set(scores["run_id"]) == set(runs["run_id"])
    assert (scores["n"] == 8).all()


def test_composites_are_means_of_unrounded_means(sweep):
    for run in find_runs(sweep):
        record = run.protocols["embedded"]
        values = protocol_values(run, record)
        full = add_averages(values, record["protocol"]["averages"])
        means = values.mean()
        relevance = (means["similarity"] + means["bertscore"] + means["rouge"] + means["bleurt"]) / 4
        assert full["relevance"].mean() == pytest.approx(relevance)
        factuality = (means["umls_f1"] + means["alignscore"]) / 2
        assert full["factuality"].mean() == pytest.approx(factuality)
        assert full["overall"].mean() == pytest.approx((relevance + factuality) / 2)


def test_manifests_hold_what_reproduces_a_number(sweep):
    for folder in (sweep / "runs").iterdir():
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["status"] == "ok"
        assert manifest["command"].split()[0] == "capbench"
        assert manifest["config"]["seed"] == 0
        assert manifest["environment"]["packages"]["torch"].startswith("2.")
        assert manifest["code_version"]
        assert manifest["files"]["captions.jsonl"] == file_digest(folder / "captions.jsonl")
        assert manifest["row"]["started_at"] <= manifest["row"]["finished_at"]
        assert (folder / "config.yaml").is_file()
    for folder in (sweep / "fits").iterdir():
        manifest = json.loads((folder / "manifest.json").read_text())
        plan = manifest["plan"]
        assert plan["adapted"] or plan["trained"]
        assert sum(plan["counts"].values()) > 0
        assert set(plan["counts"]) <= {"vision", "connector", "language", "head", "embeddings"}
        losses = pd.read_csv(folder / "losses.csv")
        assert list(losses["step"]) == [1, 2, 3, 4, 5, 6]
        assert losses["loss"].notna().all()


def test_repeating_the_command_repeats_nothing(results, capsys):
    before = files(results)
    assert main(["run", "experiment=demo", "control=none", f"results={results}", *SMALL]) == 0
    assert "done before" in capsys.readouterr().out
    assert files(results) == before


def test_tables_are_rebuilt_byte_identically(results, sweep):
    for name in ("runs.csv", "scores.csv", "leaderboard.csv", "leaderboard.md", "leaderboard.tex"):
        (results / name).unlink()
    assert main(["leaderboard", f"results={results}"]) == 0
    assert files(results) == files(sweep)


def test_another_inference_prompt_costs_no_fit(results, sweep):
    fits = files(results / "fits")
    arguments = ["model=smolvlm", "lora=targeted", "prompt=modality", "modality=oracle", f"results={results}", *SMALL]
    assert main(["run", *arguments]) == 0
    assert files(results / "fits") == fits
    assert len(pd.read_csv(results / "runs.csv")) == len(pd.read_csv(sweep / "runs.csv")) + 1


def test_a_runtime_option_changes_no_identity(results, capsys):
    small = [item for item in SMALL if not item.startswith("generate.batch_size")]
    changed = ["generate.batch_size=5", "train.save_every=3"]
    small = [item for item in small if not item.startswith("train.save_every")]
    assert main(["run", "model=smolvlm", "lora=targeted", f"results={results}", *small, *changed]) == 0
    assert "done before" in capsys.readouterr().out


def test_two_datasets_never_share_a_table(results, capsys):
    small = [item for item in SMALL if not item.startswith("dataset.test")]
    assert main(["run", "model=smolvlm", "lora=none", "dataset.test=5", f"results={results}", *small]) == 0
    assert "another table" in capsys.readouterr().out
    assert len(pd.read_csv(results / "leaderboard.csv")) == 1
    assert len(list(results.glob("leaderboard-*.csv"))) == 2


@pytest.mark.parametrize("wanted", ["dataset=phantom", "split=test", "weights=embedded", "protocol=embedded"])
def test_a_leaderboard_is_chosen_by_what_it_is_about(results, wanted, capsys):
    assert main(["leaderboard", f"results={results}", wanted]) == 0
    assert "dataset phantom, split test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset=rocov2"], ["rocov2", "there is", "dataset phantom"]),
        (["datset=phantom"], ["datset", "did you mean 'dataset'"]),
        (["trials=many"], ["trials", "expected int", "'many'"]),
    ],
)
def test_a_leaderboard_that_is_not_there_is_refused_in_one_line(results, arguments, words, capsys):
    assert main(["leaderboard", f"results={results}", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_narrow_terminal_gets_fewer_columns_and_no_cut_words(results, capsys, monkeypatch):
    monkeypatch.setattr("harness.machine.terminal.console.width", 80)
    assert main(["leaderboard", f"results={results}"]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    assert "cnn_transformer" in text
    assert "are in the files only" in text


def test_a_refusal_is_listed_and_a_single_one_ends_with_2(tmp_path, capsys):
    assert main(["run", "model=visiongpt2", "lora=targeted", f"results={tmp_path}", *SMALL]) == 2
    error = capsys.readouterr().err
    assert "refused" in error
    assert "lora=full" in error


def test_seeds_are_combined_into_one_row(tmp_path):
    arguments = ["model=cnn_transformer", "lora=full", "seed=0,1", "train.max_steps=2", f"results={tmp_path}"]
    assert main(["run", "-m", *LIGHT, *[s for s in SMALL if "max_steps" not in s], *arguments]) == 0
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(board["seeds"]) == [2]
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 2


def test_options_that_differ_name_their_rows(tmp_path):
    small = [item for item in SMALL if "max_steps" not in item]
    assert main(["run", "-m", "lora.rank=2,4", "train.max_steps=1", f"results={tmp_path}", *LIGHT, *small]) == 0
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert sorted(board["strategy"]) == ["targeted[lora.rank=2]", "targeted[lora.rank=4]"]


def test_a_run_that_is_not_scored_yet_is_listed_unranked(results, sweep):
    shutil.rmtree(sorted((results / "runs").iterdir())[0] / "scores")
    assert main(["leaderboard", f"results={results}"]) == 0
    board = pd.read_csv(results / "leaderboard.csv")
    assert list(board["rank"].isna()).count(True) == 1
    assert len(board) == len(pd.read_csv(sweep / "leaderboard.csv"))
    assert main(["score", f"results={results}"]) == 0
    assert (results / "leaderboard.csv").read_bytes() == (sweep / "leaderboard.csv").read_bytes()


def test_a_further_metric_of_some_runs_changes_no_other_column(results, sweep):
    arguments = ["model=smolvlm", "lora=none", "metrics=[rouge1]", f"results={results}", *SMALL]
    assert main(["run", *arguments]) == 0
    board, before = pd.read_csv(results / "leaderboard.csv"), pd.read_csv(sweep / "leaderboard.csv")
    pd.testing.assert_frame_equal(board[before.columns], before)
    assert list(board["rouge1"].notna()).count(True) == 1


def test_a_corrupt_manifest_fails_its_run_only(results, sweep):
    victim = sorted((results / "runs").iterdir())[0]
    (victim / "manifest.json").write_text("{ torn")
    assert main(["leaderboard", f"results={results}"]) == 0
    runs = pd.read_csv(results / "runs.csv")
    assert list(runs["status"]).count("failed") == 1
    assert "move the file away" in runs.loc[runs["status"] == "failed", "error"].item()
    assert len(pd.read_csv(results / "leaderboard.csv")) == len(pd.read_csv(sweep / "leaderboard.csv")) - 1


def test_edited_captions_are_refused(results, capsys):
    victim = sorted((results / "runs").iterdir())[0]
    path = victim / "captions.jsonl"
    path.write_text(path.read_text().replace('"caption": "', '"caption": "better ', 1))
    assert main(["score", f"results={results}"]) == 1
    assert "line 1" in capsys.readouterr().err


def test_a_picture_that_goes_bad_is_a_failed_row_and_the_run_is_not_ranked(tmp_path):
    from PIL import Image

    table = ["image,caption,split"]
    for index in range(6):
        Image.new("RGB", (32, 32), (40 * index, 0, 0)).save(tmp_path / f"{index}.png")
        table.append(f"{index}.png,Picture number {index}.,test")
    (tmp_path / "table.csv").write_text("\n".join(table) + "\n")
    results = tmp_path / "results"
    from harness.imaging.files import FileImage

    original = FileImage.load

    loaded = []

    def load(self):
        loaded.append(self.path.name)
        # sound while the table is read, by several threads in any order, and gone when it is captioned
        if self.path.name == "3.png" and loaded.count("3.png") > 1:
            from harness.contracts import ImageError

            raise ImageError("the disk went away")
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileImage, "load", load)
        where = ["dataset=table", f"dataset.path={tmp_path / 'table.csv'}", f"results={results}"]
        arguments = [*where, "lora=none", *LIGHT]
        assert main(["run", *arguments, "generate.max_new_tokens=4", "threads=1"]) == 1
    run = find_runs(results)[0]
    assert run.status == "partial"
    assert [row.status for row in run.rows].count("failed") == 1
    failed = next(row for row in Journal(run.folder / "captions.jsonl").rows() if row.status == "failed")
    assert failed.caption is None
    assert "disk went away" in failed.error
    board = pd.read_csv(results / "leaderboard.csv")
    assert board["rank"].isna().all()
    assert list(board["n"]) == [5]

    assert main(["run", *arguments, "generate.max_new_tokens=4", "threads=1"]) == 0  # the picture is back
    run = find_runs(results)[0]
    assert run.status == "ok"
    assert [row.id for row in run.rows] == [f"{index}.png" for index in range(6)]
    assert len(Journal(run.folder / "captions.jsonl").rows()) == 7
    assert list(pd.read_csv(results / "leaderboard.csv")["rank"]) == [1]


def test_a_sweep_over_results_folders_is_refused(tmp_path, capsys):
    assert main(["run", "-m", "lora=none", f"results={tmp_path / 'a'},{tmp_path / 'b'}", *SMALL]) == 2
    assert "expected one per command" in capsys.readouterr().err


def test_a_run_that_breaks_is_listed_unranked_and_ends_well_when_repeated(tmp_path, capsys):
    from model_zoo.cnn_transformer import CNNTransformer

    def broken(self, examples, decoding):
        raise RuntimeError("the device fell off the bus")

    assert main(["run", "model=smolvlm", "lora=none", f"results={tmp_path}", *LIGHT, *SMALL]) == 0
    arguments = ["run", "model=cnn_transformer", "lora=none", f"results={tmp_path}", *LIGHT, *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CNNTransformer, "generate", broken)
        assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "RuntimeError: the device fell off the bus" in captured.err
    assert "Traceback" not in captured.out + captured.err
    board = pd.read_csv(tmp_path / "leaderboard.csv").set_index("model")
    assert board["rank"].isna().to_dict() == {"smolvlm": False, "cnn_transformer": True}
    assert board.loc["cnn_transformer", "n"] == 0
    runs = pd.read_csv(tmp_path / "runs.csv").set_index("model")
    assert runs.loc["cnn_transformer", "status"] == "failed"
    assert "fell off the bus" in runs.loc["cnn_transformer", "error"]
    assert "Traceback" in next((tmp_path / "logs").glob("*.log")).read_text()

    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert "done before" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "leaderboard.csv")["rank"].notna().all()
    assert set(pd.read_csv(tmp_path / "runs.csv")["status"]) == {"ok"}


def test_a_failed_cell_does_not_keep_its_model_in_memory(tmp_path, monkeypatch):
    import weakref

    from harness.cells import worker

    class Model:
        pass

    def broken(parts):
        model = Model()
        alive.append(weakref.ref(model))
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise RuntimeError("outer") from error

    alive: list = []
    monkeypatch.setattr(worker.cell, "run", broken)
    ended = worker.attempt(config.cells("run", [f"results={tmp_path}"])[0], {})
    assert ended.message == "RuntimeError: outer"
    (log,) = (tmp_path / "logs").glob("cell-*.log")
    assert "inner" in log.read_text()
    assert alive[0]() is None


def test_captions_that_repeat_are_counted(sweep):
    runs = pd.read_csv(sweep / "runs.csv").set_index("run_id")
    for run in find_runs(sweep):
        assert runs.loc[run.row["run_id"], "n_distinct"] == len({row.caption for row in run.rows})


def test_a_seed_that_changes_nothing_makes_no_second_run(tmp_path):
    arguments = ["run", "-m", "model=cnn_transformer", "lora=none", "seed=0,1", *LIGHT, *SMALL, f"results={tmp_path}"]
    assert main(arguments) == 0
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 1
    assert pd.read_csv(tmp_path / "leaderboard.csv")["seeds"].tolist() == [1]
