"""Runs of controls and of captioners on grey pictures: through the same files as every other run."""

import signal
from pathlib import Path

import pandas as pd
import pytest

from harness import config
from harness.cells import cell
from harness.cells.identity import identify
from harness.cli import main
from harness.contracts import RequestError
from harness.imaging.files import FileImage
from harness.store import Journal, read_manifest
from harness.store.runs import Run, find_runs
from tests.support.cell_driver import parts, start
from tests.support.commands import LIGHT, SMALL

CONTROLS = "constant,template,nearest"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Two captioners with all controls and their blank runs, in one command."""
    folder = tmp_path_factory.mktemp("control-runs")
    sweep = ["model=cnn_transformer,smolvlm", "lora=none,full", f"control=none,{CONTROLS}", "blank=true,false"]
    assert main(["run", "-m", *sweep, f"results={folder}", *LIGHT, *SMALL]) == 0
    return folder


def run_of(results: Path, **row: str) -> Run:
    (found,) = [run for run in find_runs(results) if all(run.row.get(key) == value for key, value in row.items())]
    return found


def test_a_sweep_makes_each_control_once_and_blank_runs_of_every_captioner(results):
    runs = pd.read_csv(results / "runs.csv", keep_default_na=False)
    assert list(runs.columns)[-1] == "control"
    assert sorted(runs["control"]) == ["", "", "", "blank", "blank", "blank", *sorted(CONTROLS.split(","))]
    controls = runs[~runs["control"].isin(["", "blank"])]
    assert (controls["model"] == controls["control"]).all()
    assert set(controls["class"]) == {"control"}
    assert {tuple(row) for row in controls[["strategy", "prompt", "modality", "seed"]].values} == {
        ("none", "none", "none", "")
    }
    assert set(runs["status"]) == {"ok"}
    assert (runs["n_ok"] == runs["n_requested"]).all()
    assert (controls["peak_memory_bytes"].astype(float) > 1e7).all()
    assert (controls["generate_seconds"].astype(float) >= 0).all()


def test_the_fit_is_shared_with_the_seeing_run_and_the_captions_are_not(results):
    assert len(list((results / "fits").iterdir())) == 1
    seeing, blank = (run_of(results, strategy="full", control=control) for control in ("", "blank"))
    assert seeing.row["fit_id"] == blank.row["fit_id"]
    assert blank.manifest["seeing"] == seeing.manifest["variant"] != blank.manifest["variant"]
    assert seeing.manifest["identity"] | {"blank": True} == blank.manifest["identity"]
    assert blank.row["class"] == "control"
    for run in find_runs(results):
        if run.control == "blank":
            assert run.row["n_distinct"] == 1, "the same question of the same grey"


def test_the_journal_says_whose_caption_was_copied(results):
    train = config.build(config.cells("run", SMALL)[0], "dataset").load("train").samples
    captions = {sample.id: sample.caption for sample in train}
    nearest = run_of(results, control="nearest")
    assert all(row.caption == captions[vars(row)["neighbour"]] for row in nearest.rows)
    assert nearest.manifest["control"]["pictures"] == len(train)
    assert nearest.manifest["control"]["duplicates"] == 0
    constant = run_of(results, control="constant")
    assert {row.caption for row in constant.rows} == {constant.manifest["control"]["caption"]}
    assert "duplicates" not in constant.manifest["control"], "it does not look"


def test_controls_stand_on_the_board_and_every_record_is_sound(results, capsys):
    board = pd.read_csv(results / "leaderboard.csv")
    assert board["rank"].notna().sum() == 3
    assert {f"gain_{name}" for name in (*CONTROLS.split(","), "blank")} <= set(board.columns)
    assert board.loc[board["rank"].notna(), "gain_blank"].notna().all()
    assert main(["verify", f"results={results}"]) == 0
    assert "10 runs and fits verified, 0 problems" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["show", "reproduce"])
def test_other_commands_know_a_control(results, tmp_path, command, capsys):
    run = run_of(results, control="constant")
    target = f"results={tmp_path}" if command == "reproduce" else f"results={results}"
    words = [f"source={results}", "--config-dir", LIGHT[1]] if command == "reproduce" else []
    assert main([command, run.folder.name, target, *words]) == 0
    assert {"show": "control", "reproduce": "captions: 0 of 8 differ"}[command] in capsys.readouterr().out


def test_another_captioner_seed_or_prompt_is_the_same_control(results, capsys):
    asked = ["control=constant", "model=qwen2_vl", "lora=targeted", "prompt=modality", "seed=7"]
    assert main(["run", *asked, f"results={results}", *LIGHT, *SMALL]) == 0
    assert "done before" in capsys.readouterr().out


def test_other_training_captions_or_rules_are_another_control(tmp_path):
    ids = {
        identify(parts([*asked, "lora=none"], tmp_path)).run_id
        for asked in (
            ["control=constant"],
            ["control=constant", "dataset.train=19"],
            ["control=constant", "control.sampled=5"],
            ["control=constant", "dataset.test=9"],
            ["control=template"],
        )
    }
    assert len(ids) == 5
    batches = {identify(parts(["control=nearest", f"control.batch_size={size}"], tmp_path)).run_id for size in (1, 2)}
    assert len(batches) == 1


def test_runs_of_earlier_versions_keep_their_identity(tmp_path):
    known = identify(parts(["model=cnn_transformer", "lora=none"], tmp_path))
    assert "blank" not in known.run_identity
    assert "control" not in str(known.run_identity) + str(known.fit_identity)


def test_blank_and_a_control_are_refused_together(tmp_path, capsys):
    assert main(["run", "control=constant", "blank=true", f"results={tmp_path}", *LIGHT, *SMALL]) == 2
    assert "refused, a grey picture is for a captioner" in capsys.readouterr().err


def test_a_control_needs_training_captions(tmp_path, capsys):
    assert main(["run", "control=template", f"results={tmp_path}", *LIGHT, *SMALL, "dataset.train=0"]) == 2
    assert "expected" in capsys.readouterr().err


def test_cells_of_a_control_are_one_whatever_they_are_swept_over():
    asked = ["model=smolvlm,qwen2_vl", "control=none,constant", "dataset.test=5,6", "blank=true,false"]
    cells = config.cells("run", asked, multirun=True)
    controls = [one for one in cells if one.choices["control"] == "constant"]
    assert len(cells) == 2 * 2 * 2 + 2
    assert [one.label for one in controls] == ["control=constant dataset.test=5", "control=constant dataset.test=6"]
    assert not any(one.config["blank"] for one in controls)


def test_controls_alone_lose_nothing_that_was_asked_of_them():
    cells = config.cells("run", ["control=constant,template", "blank=true"], multirun=True)
    assert [(one.choices["control"], one.config["blank"]) for one in cells] == [("constant", True), ("template", True)]
    with pytest.raises(RequestError, match="did you mean 'lora.rank'"):
        config.cells("run", ["control=constant,template", "lora.rnk=4"], multirun=True)


def test_a_dry_run_knows_what_is_done_and_goes_on_after_a_checkpoint_that_is_not_here(results, capsys):
    asked = ["model=smolvlm", "lora=none", "control=none,constant,nearest", "model.hub=no/where", "weights=hub"]
    assert main(["run", "-m", *asked, "dataset=phantom", f"results={results}", *LIGHT, *SMALL, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 cells, 0 refused, 2 cannot run" in said
    assert main(["run", "-m", f"control=none,{CONTROLS}", *LIGHT, *SMALL, f"results={results}", "--dry-run"]) == 0
    assert capsys.readouterr().out.count(": done") == 3


@pytest.mark.slow
def test_killed_between_batches_it_goes_on_to_the_same_captions(tmp_path):
    asked = ["control=template", "dataset.test=150", "lora=none"]
    fault = {"of": "control", "method": "caption", "call": 2, "how": "kill"}
    assert start(asked, tmp_path / "torn", fault).returncode == -signal.SIGKILL
    (journal,) = (tmp_path / "torn").glob("runs/*/captions.jsonl")
    before = journal.read_bytes()
    assert len(Journal(journal).rows()) == 64
    assert not (journal.parent / "manifest.json").exists()
    for folder in ("torn", "whole"):
        assert cell.run(parts(asked, tmp_path / folder)).status == "ok"
    assert journal.read_bytes().startswith(before)
    (other,) = (tmp_path / "whole").glob("runs/*/captions.jsonl")
    torn, whole = ([{**vars(row), "seconds": 0} for row in Journal(path).rows()] for path in (journal, other))
    assert torn == whole
    assert len(torn) == 150


def test_a_picture_that_goes_bad_is_a_failed_row_and_is_tried_again(tmp_path, monkeypatch):
    from PIL import Image

    from harness.contracts import ImageError

    lines = ["image,caption,split"]
    for index in range(6):
        Image.new("RGB", (32, 32), (40 * index, 0, 0)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,Picture number {index}.,{'test' if index > 3 else 'train'}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    original = FileImage.load

    def load(self):
        if self.path.name == "5.png":
            raise ImageError("the disk went away")
        return original(self)

    asked = ["control=nearest", "dataset=table", f"dataset.path={tmp_path / 'table.csv'}", "dataset.check=listed"]
    arguments = ["run", *asked, *LIGHT, "threads=1", f"results={tmp_path / 'results'}"]
    with monkeypatch.context() as patch:
        patch.setattr(FileImage, "load", load)
        assert main(arguments) == 1
    (run,) = find_runs(tmp_path / "results")
    assert run.status == "partial"
    failed = run.rows[1]
    assert (failed.status, failed.caption) == ("failed", None)
    assert "disk went away" in failed.error
    assert main(arguments) == 0
    assert (read_manifest(run.folder) or {})["status"] == "ok"
    assert pd.read_csv(tmp_path / "results" / "leaderboard.csv")["n"].tolist() == [2]


def test_a_control_whose_encoder_is_not_here_is_one_line(tmp_path, capsys):
    asked = ["control=nearest", "weights=hub", "control.hub=no/where", "dataset=phantom"]
    assert main(["run", *asked, f"results={tmp_path}", *LIGHT, *SMALL]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "hf download no/where" in error
    with pytest.raises(RequestError):
        identify(parts(asked, tmp_path))
