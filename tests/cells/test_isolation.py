"""Sweeps through the command: what happens to one cell stays with it, and everything is written down."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pandas as pd
import pytest

from harness import config
from harness.cells.sweep import spread
from harness.cli import main
from harness.store import locked
from tests.support.commands import LIGHT, ROOT, SMALL, clean
from tests.support.launcher_work import warm

BAD = """
import ctypes, os, signal, sys, time
from harness.datasets.phantom import Phantom

class Bad(Phantom):
    def __init__(
        self, name: str, fault: str, train: int, valid: int, test: int, size: int, seed: int, style: str,
        limit: int | None,
    ):
        super().__init__(name, train, valid, test, size, seed, style, limit)
        self.fault = fault

    def load(self, split: str):
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            sys.exit(3)
        if self.fault == "crash":
            ctypes.string_at(0)
        if self.fault == "raise":
            raise KeyError("a callback of yours")
        return super().load(split)
"""


@pytest.fixture
def bad(tmp_path, monkeypatch) -> Iterator[list[str]]:
    """A dataset of a user that ends the process it is read in."""
    shutil.copytree(ROOT / "tests" / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "dataset").mkdir()
    phantom = (ROOT / "conf" / "dataset" / "phantom.yaml").read_text()
    text = phantom.replace("harness.datasets.phantom.Phantom", "bad.Bad")
    (tmp_path / "conf" / "dataset" / "bad.yaml").write_text(
        text.replace('name: "phantom"', 'name: "bad"') + "fault: none\n"
    )
    (tmp_path / "bad.py").write_text(BAD)
    warm()  # a server that this sweep started would keep its `bad` for the next test
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    yield ["--config-dir", str(tmp_path / "conf"), "protocol=light", "dataset=bad"]
    sys.modules.pop("bad", None)


@pytest.mark.slow
def test_every_end_of_a_process_is_one_row_and_the_others_go_on(bad, tmp_path, capsys):
    results = tmp_path / "results"
    faults = ["none", "kill", "exit", "crash", "raise"]
    arguments = ["run", "-m", *bad, f"dataset.fault={','.join(faults)}", "model=cnn_transformer", "lora=none"]
    assert main([*arguments, *SMALL, f"results={results}"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    runs = pd.read_csv(results / "runs.csv")
    assert sorted(runs["status"]) == ["failed"] * 4 + ["ok"]
    errors = " ".join(runs["error"].dropna())
    for word in ("SIGKILL", "exit code 3", "SIGSEGV", "a callback of yours"):
        assert word in errors
    assert len(pd.read_csv(results / "leaderboard.csv")) == 1
    cells = [json.loads(path.read_text()) for path in (results / "cells").glob("*.json")]
    assert sorted(cell["status"] for cell in cells) == ["failed"] * 4 + ["ok"]
    assert "Segmentation fault" in "".join(path.read_text() for path in (results / "logs").glob("cell-*.log"))


@pytest.mark.slow
def test_a_dry_run_says_what_is_done_and_what_would_run_and_writes_nothing(tmp_path, capsys):
    cells = ["run", "-m", "model=cnn_transformer", "lora=none,full,targeted", *LIGHT, *SMALL, f"results={tmp_path}"]
    assert main([*cells, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not any(tmp_path.iterdir())
    assert "3 cells, 1 refused" in said
    assert said.count("to do") == 2
    assert "6 steps" in said
    assert "unknown" in said
    assert main([*cells[:3], "lora=none", *cells[4:]]) == 0
    capsys.readouterr()
    assert main([*cells, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("to do") == 1
    assert "done" in said


@pytest.mark.slow
def test_a_cell_that_failed_and_ends_well_later_is_no_failure_any_more(bad, tmp_path):
    results, flag = tmp_path / "results", tmp_path / "flag"
    (tmp_path / "bad.py").write_text(BAD.replace('if self.fault == "kill"', f'if not os.path.exists("{flag}")'))
    arguments = ["run", "-m", *bad, "model=cnn_transformer", "lora=none", *SMALL, f"results={results}"]
    assert main(arguments) == 1
    assert list(pd.read_csv(results / "runs.csv")["status"]) == ["failed"]
    flag.touch()
    assert main(arguments) == 0
    assert list(pd.read_csv(results / "runs.csv")["status"]) == ["ok"]


def test_a_cell_says_that_it_waits_for_another_process(tmp_path, capfd):
    code = f"""
import time
from pathlib import Path
from harness.store import locked
with locked(Path({str(tmp_path / "run")!r})):
    Path({str(tmp_path / "held")!r}).touch()
    time.sleep(3)
"""
    other = subprocess.Popen([sys.executable, "-c", code], env=clean())
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with locked(tmp_path / "run"):
        pass
    assert "another process works on it" in capfd.readouterr().err
    other.wait()


def test_cells_that_share_a_fit_do_not_stand_side_by_side():
    asked = ["model=smolvlm,qwen2_vl", "lora=targeted", "prompt=plain,modality", "modality=none,oracle"]
    cells = config.cells("run", asked, multirun=True)
    order = spread(cells)
    assert sorted(order) == list(range(8))
    assert [cells[place].choices["model"] for place in order] == ["smolvlm", "qwen2_vl"] * 4
