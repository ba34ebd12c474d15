"""SIGKILL at every stage: the same command goes on, repeats nothing finished, loses at most one batch."""

from pathlib import Path

import pandas as pd
import pytest

from harness.cli import main
from harness.store import Journal, file_digest
from tests.support.commands import LIGHT, SMALL, capbench, only, started

CELL = ["run", "model=smolvlm", "lora=targeted", "metrics=[rouge1,similarity]", *SMALL]
CELL += ["generate.batch_size=1", "train.max_steps=8"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    done = capbench([*CELL, f"results={results}"], results)
    assert done.returncode == 0, done.stderr
    return results


def captions(results: Path) -> list[tuple[str, str]]:
    journal = Journal(only(results, "runs/*/captions.jsonl"))
    return [(row.id, row.caption) for row in journal.rows()]


@pytest.mark.slow
def test_killed_at_every_stage_the_result_is_the_undisturbed_one(undisturbed, tmp_path):
    arguments = [*CELL, f"results={tmp_path}"]

    started(arguments, tmp_path).kill_when(lambda: any(tmp_path.glob("fits/*/checkpoints/checkpoint-4/complete.json")))
    assert not any(tmp_path.glob("fits/*/manifest.json"))

    started(arguments, tmp_path).kill_when(lambda: _lines(tmp_path) >= 3)
    fit = only(tmp_path, "fits/*/manifest.json")
    fitted, kept = file_digest(fit), only(tmp_path, "runs/*/captions.jsonl").read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    assert not any(tmp_path.glob("runs/*/manifest.json"))

    started(arguments, tmp_path).kill_when(lambda: any(tmp_path.glob("runs/*/scores/*.csv")))
    finished = only(tmp_path, "runs/*/captions.jsonl").read_bytes()
    assert finished.startswith(kept)
    assert finished.count(b"\n") == 8
    scored = {path: file_digest(path) for path in tmp_path.glob("runs/*/scores/*.csv")}

    done = capbench(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "done before" in done.stdout
    assert file_digest(fit) == fitted
    assert only(tmp_path, "runs/*/captions.jsonl").read_bytes() == finished
    assert {path: file_digest(path) for path in scored} == scored

    assert captions(tmp_path) == captions(undisturbed)
    ours, theirs = (pd.read_csv(only(r, "fits/*/losses.csv")) for r in (tmp_path, undisturbed))
    pd.testing.assert_frame_equal(ours, theirs)
    assert file_digest(only(tmp_path, "fits/*/adapter/*.safetensors")) == file_digest(
        only(undisturbed, "fits/*/adapter/*.safetensors")
    )


def _lines(results: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in results.glob("runs/*/captions.jsonl"))


@pytest.mark.slow
def test_a_torso_of_a_checkpoint_is_not_resumed_from(undisturbed, tmp_path):
    """A checkpoint without its completion mark, and one whose mark is torn, are thrown away."""
    from harness.training.trainer import last_whole

    whole = only(undisturbed, "fits/*/checkpoints/checkpoint-8")
    root = tmp_path / "checkpoints"
    for step, mark in ((2, '{"seconds": 1.0}'), (4, '{"sec'), (6, None)):
        folder = root / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes((whole / "optimizer.pt").read_bytes()[:10])
        if mark is not None:
            (folder / "complete.json").write_text(mark)
    assert last_whole(root) == root / "checkpoint-2"
    assert [p.name for p in root.iterdir()] == ["checkpoint-2"]


@pytest.mark.slow
def test_a_failing_cell_is_listed_and_the_others_go_on(tmp_path, capsys):
    """One model's checkpoint is missing: exit code 1, the other row is there, the error is a row and a log."""
    arguments = [
        "run",
        "-m",
        "weights=hub,embedded",
        "lora=none",
        "model=smolvlm",
        *LIGHT,
        *SMALL,
        f"results={tmp_path}",
    ]
    assert main([*arguments, f"model.hub={tmp_path / 'nowhere'}"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert sorted(runs["status"]) == ["failed", "ok"]
    assert "nowhere" in runs.loc[runs["status"] == "failed", "error"].item()
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 1
    assert sum("Traceback" in path.read_text() for path in tmp_path.glob("logs/*.log")) == 1
