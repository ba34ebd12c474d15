"""Every launcher brings each task to its end, and says how the process died that ended before its task."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.choices import groups
from harness.contracts import RequestError
from tests.support import launcher_work
from tests.support.commands import ROOT, clean
from tests.support.launcher_work import build, launch, request

KINDS = ["ok", "kill", "exit", "crash", "raise", "ok"]
STUBS = ROOT / "tests" / "support" / "slurm_stub.py"


def said(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The stub programs on PATH, and a launcher that asks often."""
    pytest.importorskip("submitit")
    from harness.launchers import slurm as module

    programs, state = tmp_path / "bin", tmp_path / "slurm"
    programs.mkdir()
    state.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {STUBS} {name} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB", str(state))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(module, "POLL", 0.2)
    monkeypatch.setattr(module, "ASK", 1.0)
    monkeypatch.setattr("submitit.SlurmJob._results_timeout_s", 1.0)  # how long a dead job's result may be on its way
    return state


def check(ended, folder):
    assert sorted(ended) == list(range(len(KINDS)))
    assert set(said(folder)) == {"t0", "t5"}
    assert [ended[place] for place in (0, 5)] == [None, None]
    assert all(ended[place] for place in range(1, 5))


@pytest.mark.parametrize("name", ["queue", "joblib"])
def test_whatever_ends_a_process_ends_one_task_only(name, tmp_path):
    ended = launch(build(name), request(tmp_path, KINDS))
    check(ended, tmp_path)
    assert "SIGKILL" in ended[1]
    assert "memory" in ended[1]
    assert "exit code 3" in ended[2]
    assert "SIGSEGV" in ended[3]


@pytest.mark.slow
def test_ray_ends_one_task_only(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    check(launch(build("ray"), request(tmp_path, KINDS)), tmp_path)


@pytest.mark.slow
def test_slurm_ends_one_task_only(tmp_path, slurm):
    folder = tmp_path / "out"
    folder.mkdir()
    ended = launch(build("slurm", jobs=2, partition="gpu", parameters={"qos": "high"}), request(folder, KINDS))
    check(ended, folder)
    script = (slurm / "script.sh").read_text()
    for line in ("--array=0-5%2", "--partition=gpu", "--gpus-per-node=1", "--time=1440", "--qos=high"):
        assert f"#SBATCH {line}" in script
    assert "SLURM job 12_1" in ended[1]


def test_slurm_puts_an_interrupted_cell_back_into_the_queue():
    from harness.launchers.slurm import Resumable

    resumable = Resumable(launcher_work.work)
    again = resumable.checkpoint({"id": "t0"})
    assert again.function is resumable
    assert again.args == ({"id": "t0"},)


def test_slurm_where_there_is_none_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="sbatch"):
        launch(build("slurm"), request(tmp_path, ["ok"]))


@pytest.mark.parametrize("name", ["queue", "joblib"])
def test_no_more_at_once_than_asked_for(name, tmp_path):
    launch(build(name, jobs=2), request(tmp_path, ["sleep"] * 5, width=5, seconds=0.3))
    spans = [(one["begin"], one["end"]) for one in said(tmp_path).values()]
    assert len(spans) == 5
    assert max(sum(begin <= other < end for begin, end in spans) for other, _ in spans) == 2


def test_threads_that_start_and_await_processes_hear_of_every_end(tmp_path):
    """Each start asks all other processes whether they have ended: an end must not be lost to another thread."""
    ended = launch(build("joblib", jobs=4), request(tmp_path, ["ok"] * 40))
    assert ended == dict.fromkeys(range(40))


def test_every_cell_sees_one_device_and_neighbours_another(tmp_path):
    launch(build("queue"), request(tmp_path, ["sleep"] * 4, devices=("0", "3"), seconds=0.3))
    seen = said(tmp_path)
    assert {one["gpu"] for one in seen.values()} == {"0", "3"}
    for one in seen.values():
        for other in seen.values():
            if one is not other and one["begin"] < other["end"] and other["begin"] < one["end"]:
                assert one["gpu"] != other["gpu"]


def test_tasks_have_a_process_each_in_the_folder_and_environment_of_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    launch(build("queue"), request(tmp_path, ["ok"] * 3))
    seen = said(tmp_path).values()
    assert len({one["pid"] for one in seen}) == 3
    assert {(one["cwd"], one["gpu"]) for one in seen} == {(str(tmp_path), "7")}


def test_closing_the_queue_ends_its_processes(tmp_path):
    launcher = build("queue")
    launched = launcher.launch(request(tmp_path, ["ok", "sleep", "sleep"], seconds=60))
    assert next(launched) == (0, None)
    wait_for(lambda: (tmp_path / "t1.begun").exists())
    launched.close()
    assert not running(tmp_path / "t1.begun")


@pytest.mark.slow
def test_killing_the_command_ends_its_processes(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.support.launcher_work import build, request
if __name__ == "__main__":
    dict(build("queue").launch(request(Path({str(tmp_path)!r}), ["sleep", "sleep"], seconds=60)))
"""
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], env=clean())
    wait_for(lambda: all((tmp_path / f"t{n}.begun").exists() for n in range(2)))
    process.kill()
    process.wait()
    files = [tmp_path / f"t{n}.begun" for n in range(2)]
    wait_for(lambda: not any(map(running, files)))
    assert [running(file) for file in files] == [False, False]


def test_torchrun_needs_a_number_where_there_is_no_gpu(tmp_path):
    with pytest.raises(RequestError, match="launcher.processes"):
        launch(build("torchrun"), request(tmp_path, ["ok"]))


@pytest.mark.slow
def test_torchrun_starts_each_task_in_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ended = launch(build("torchrun", processes=2), request(tmp_path, ["ok", "raise"]))
    assert ended[0] is None
    assert "exit code 1" in ended[1]
    assert "broken" in (tmp_path / "launcher" / "t1.log").read_text()


@pytest.mark.parametrize("name", groups()["launcher"])
def test_every_launcher_is_named_like_its_file_and_knows_no_default_of_its_own(name):
    assert build(name).name == name


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(file):
    pid = file.read_text() if file.exists() else ""
    try:
        return bool(pid) and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
