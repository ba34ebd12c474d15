"""The built wheel, installed elsewhere, runs from another folder: conf, twins and concept table travel with it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.commands import ROOT, SMALL, clean

LIMIT = 16_000_000  # bytes; most of it the tiny checkpoints: twins below 15 MB and metrics below 12 MB, unpacked


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(root), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(root.glob("capbench-*.whl"))
    assert wheel.stat().st_size < LIMIT
    target = root / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return target


def capbench(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean(), "PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", "-m", "harness.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(installed, tmp_path):
    where = [sys.executable, "-P", "-c", "import harness; print(harness.__file__)"]
    found = subprocess.check_output(where, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, text=True)
    assert found.startswith(str(installed))
    done = capbench(installed, tmp_path, "run", "lora=none", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "results" / "leaderboard.csv")) == 1


@pytest.mark.slow
def test_a_users_folder_adds_to_the_wheels_conf(installed, tmp_path):
    folder = tmp_path / "mine" / "generate"
    folder.mkdir(parents=True)
    (folder / "short.yaml").write_text(
        "_target_: harness.contracts.Decoding\nmax_new_tokens: 3\nrepetition_penalty: 1.0\nbatch_size: 4\n"
    )
    asked = ["generate=short", "lora=none", "dataset.test=4", "metrics=[rouge1]"]
    done = capbench(installed, tmp_path, "run", "--config-dir", "mine", *asked)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "results" / "runs.csv")["n_truncated"].item() == 4


def test_the_wheel_holds_every_yaml_and_twin(installed):
    embedded = ("model_zoo/embedded", "harness/metrics/embedded", "harness/modality/embedded")
    for folder, inside in ((ROOT / "conf", "harness/conf"), *((ROOT / inside, inside) for inside in embedded)):
        ours = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
        theirs = {p.relative_to(installed / inside) for p in (installed / inside).rglob("*") if p.is_file()}
        assert ours <= theirs
