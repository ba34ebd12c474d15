"""Faults injected into whole commands: nothing is lost, nothing mixed, every failure has a name. Minutes."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from harness.cli import main
from harness.store import Journal
from harness.store.runs import find_runs
from tests.support.commands import LIGHT, SMALL, capbench, clean, command

pytestmark = pytest.mark.long

COSTS = {
    "train_seconds", "train_samples_per_s", "generate_seconds", "captions_per_s", "peak_memory_bytes", "started_at",
    "finished_at",
}  # fmt: skip
CELL = ["run", "model=cnn_transformer", "lora=full", *LIGHT, *SMALL]
SIX = ["run", "-m", "model=smolvlm,qwen2_vl,moondream2", "lora=none,targeted", *LIGHT, *SMALL]
MOMENTS = 20


def tables(results: Path) -> dict[str, pd.DataFrame]:
    """What an undisturbed and a disturbed sweep must have in common: all but the costs."""
    found = {name: pd.read_csv(results / f"{name}.csv") for name in ("runs", "scores", "leaderboard")}
    return {name: table.drop(columns=COSTS & set(table.columns)) for name, table in found.items()}


def same(left: Path, right: Path) -> None:
    for name, table in tables(left).items():
        pd.testing.assert_frame_equal(table, tables(right)[name])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    assert main([*CELL, f"results={results}"]) == 0
    return results


@pytest.fixture(scope="module")
def six(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("six")
    assert main([*SIX, f"results={results}"]) == 0
    return results


def test_sigkill_at_random_moments_changes_nothing(six, tmp_path):
    """Moments are shares of the time that a whole sweep takes here, so that a fast machine is stopped as often."""
    rng, killed, sweep = random.Random(0), 0, 0
    whole = finished_in(None, six, tmp_path / "whole")
    while killed < MOMENTS:
        results = tmp_path / str(sweep)
        if finished_in(rng.uniform(0.1, 0.8) * whole, six, results) is None:
            killed += 1
        else:
            sweep += 1
    finished_in(None, six, results)


def finished_in(seconds: float | None, six: Path, results: Path) -> float | None:
    """The seconds that a sweep took to its end, with the tables of an undisturbed one; None where it was killed."""
    start = time.monotonic()
    process = subprocess.Popen(
        command([*SIX, f"results={results}"]), cwd=results.parent, env=clean(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return None
    took = time.monotonic() - start
    assert process.returncode == 0
    same(six, results)
    for run in find_runs(results):
        ids = [row.id for row in Journal(run.folder / "captions.jsonl").rows()]
        assert len(ids) == len(set(ids))  # a batch that was on the disk was never made again
    return took


KINDS = [
    "config.yaml",
    "losses.csv",
    "manifest.json",
    "captions.jsonl",
    "safetensors",
    "optimizer",
    "scores/",
    "runs.csv",
    "leaderboard",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_at_each_kind_of_write(kind, undisturbed, tmp_path, monkeypatch, capsys):
    fill(monkeypatch, kind)
    arguments = [*CELL, f"results={tmp_path}"]
    assert main(arguments) == 1
    assert "No space left" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(arguments) == 0
    same(undisturbed, tmp_path)


@pytest.mark.parametrize("kind", ["config.yaml", "manifest.json", "runs.csv"])
def test_a_folder_that_becomes_read_only(kind, undisturbed, tmp_path, monkeypatch, capsys):
    fill(monkeypatch, kind, errno.EROFS)
    assert main([*CELL, f"results={tmp_path}"]) == 1
    assert "Read-only file system" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([*CELL, f"results={tmp_path}"]) == 0
    same(undisturbed, tmp_path)


def fill(monkeypatch, kind: str, code: int = errno.ENOSPC) -> None:
    """Let writes to files of this kind fail as on a full disk, whoever writes."""
    import safetensors.torch
    import torch

    from harness import store

    def guarded(write, place):
        def guarded_write(*arguments, **options):
            path = str(getattr(arguments[place], "path", arguments[place]))
            if kind in path:
                raise OSError(code, os.strerror(code), path)
            return write(*arguments, **options)

        return guarded_write

    write_text = store.write_text
    for module in list(sys.modules.values()):
        if getattr(module, "write_text", None) is write_text:
            monkeypatch.setattr(module, "write_text", guarded(write_text, 0))
    monkeypatch.setattr(store.Journal, "append", guarded(store.Journal.append, 0))
    monkeypatch.setattr(torch, "save", guarded(torch.save, 1))
    monkeypatch.setattr(safetensors.torch, "serialize_file", guarded(safetensors.torch.serialize_file, 1))


def copied(results: Path, target: Path) -> Path:
    shutil.copytree(results, target)
    return target


def test_a_torn_line_of_captions_is_made_again(undisturbed, tmp_path):
    results = copied(undisturbed, tmp_path / "results")
    run = find_runs(results)[0].folder
    whole = (run / "captions.jsonl").read_bytes()
    (run / "captions.jsonl").write_bytes(whole[:-25])
    (run / "manifest.json").unlink()
    assert main([*CELL, f"results={results}"]) == 0
    same(undisturbed, results)


@pytest.mark.parametrize("fault", ["truncated", "swapped", "gone"])
def test_another_adapter_under_the_same_name_is_refused(fault, undisturbed, tmp_path, capsys):
    results = copied(undisturbed, tmp_path / "results")
    file = next(results.glob("fits/*/adapter/*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes({"truncated": content[:100], "swapped": content, "gone": b""}[fault])
    if fault == "gone":
        file.unlink()
    arguments = [*CELL, f"results={results}", "generate.max_new_tokens=12"]
    assert main(arguments) == 1
    assert "not the file that this fit wrote" in capsys.readouterr().err
    assert "failed" in set(pd.read_csv(results / "runs.csv")["status"])
    shutil.rmtree(file.parent.parent)
    assert main(arguments) == 0


def test_an_edited_picture_is_another_run(tmp_path):
    for n in range(3):
        Image.effect_noise((48, 40), 60 + n).convert("RGB").save(tmp_path / f"{n}.png")
    rows = "".join(f"{n},{n}.png,A caption.,test\n" for n in range(3))
    (tmp_path / "table.csv").write_text(f"id,image,caption,split\n{rows}")
    quick = ["model=cnn_transformer", "lora=none", *LIGHT, "generate.max_new_tokens=4", "threads=1"]
    arguments = ["run", "dataset=table", f"dataset.path={tmp_path / 'table.csv'}", *quick, f"results={tmp_path / 'r'}"]
    assert main(arguments) == 0
    Image.effect_noise((48, 40), 99).convert("RGB").save(tmp_path / "1.png")
    assert main(arguments) == 0
    assert len(find_runs(tmp_path / "r")) == 2
    assert len({run.manifest["identity"]["data"] for run in find_runs(tmp_path / "r")}) == 2


def test_a_changed_value_is_another_run_and_the_old_one_stays(undisturbed, tmp_path):
    results = copied(undisturbed, tmp_path / "results")
    before = find_runs(results)[0].folder.name
    assert main([*CELL, "train.learning_rate=0.001", f"results={results}"]) == 0
    assert len(find_runs(results)) == 2
    assert main([*CELL, f"results={results}"]) == 0
    assert before in {run.folder.name for run in find_runs(results)}
    assert len(find_runs(results)) == 2


def test_a_clock_that_goes_back(undisturbed, tmp_path, monkeypatch):
    from harness.machine import provenance

    results = copied(undisturbed, tmp_path / "results")
    monkeypatch.setattr(provenance, "now", lambda: "1999-12-31T23:59:59Z")
    assert main([*CELL, "seed=1", f"results={results}"]) == 0
    assert sorted(pd.read_csv(results / "runs.csv")["status"]) == ["ok", "ok"]
    assert pd.read_csv(results / "leaderboard.csv")["seeds"].tolist() == [2]


def test_a_full_shared_memory_is_a_named_failure(tmp_path):
    """Data workers hand batches over through /dev/shm."""
    arguments = command([*CELL, "train.workers=2", "dataset.size=512", f"results={tmp_path}"])
    script = 'mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77; exec "$@"'
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *arguments],
            env=clean(), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "train.workers=0" in pd.read_csv(tmp_path / "runs.csv")["error"].item()


def test_a_loss_that_is_no_number_is_a_named_failure(tmp_path):
    assert main([*CELL, "train.learning_rate=1e30", "train.max_grad_norm=0.0", f"results={tmp_path}"]) == 1
    assert "the loss became" in pd.read_csv(tmp_path / "runs.csv")["error"].item()


def test_two_sweeps_over_one_folder_at_once(six, tmp_path):
    arguments = [*SIX, f"results={tmp_path}"]
    pair = [
        subprocess.Popen(command(arguments), cwd=tmp_path, env=clean(), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in pair:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    same(six, tmp_path)


def test_two_hundred_cells(tmp_path):
    arguments = ["run", "-m", "model=cnn_transformer", "lora=none", *LIGHT, *SMALL, "dataset.test=1"]
    start = time.monotonic()
    done = capbench([*arguments, "generate.max_new_tokens=range(1,201)", f"results={tmp_path}"], tmp_path)
    assert done.returncode == 0, done.stderr
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert len(runs) == 200
    assert set(runs["status"]) == {"ok"}
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 200
    print(f"{time.monotonic() - start:.0f} s")


def test_cells_of_two_processes_under_torchrun_give_the_tables_of_one(tmp_path):
    cells = ["run", "-m", "model=smolvlm", "lora=targeted", "lora.dropout=0.0", *LIGHT, *SMALL]
    assert main([*cells, f"results={tmp_path / 'one'}"]) == 0
    two = ["launcher=torchrun", "launcher.processes=2", f"results={tmp_path / 'two'}"]
    done = capbench([*cells, *two], tmp_path)
    assert done.returncode == 0, done.stderr
    same(tmp_path / "one", tmp_path / "two")
    assert find_runs(tmp_path / "two")[0].manifest["processes"] == 2


def test_a_failing_cell_of_two_processes_is_one_failure_with_its_reason(tmp_path):
    cells = ["run", "-m", "model=smolvlm", "lora=targeted", "train.learning_rate=1e30", *LIGHT, *SMALL]
    two = ["launcher=torchrun", "launcher.processes=2", "train.max_grad_norm=0.0", f"results={tmp_path}"]
    done = capbench([*cells, *two], tmp_path)
    assert done.returncode == 1
    assert "the loss became" in pd.read_csv(tmp_path / "runs.csv")["error"].item()
