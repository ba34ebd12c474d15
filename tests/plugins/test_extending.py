"""The examples of harness/README.md: each kind of plug-in in one file and one yaml, no edit elsewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tests.support.commands import ROOT, capbench

PAGE = (ROOT / "harness" / "README.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.S))
"""File -> content of every example."""


@pytest.fixture
def plugins(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_examples_are_short():
    assert {Path(name).suffix for name in FILES} == {".py", ".yaml"}
    assert {name: text.count("\n") for name, text in FILES.items() if text.count("\n") > 30} == {}


@pytest.mark.slow
def test_five_extensions_at_once_need_no_edit_elsewhere(plugins):
    (asked,) = re.findall(r"capbench run (--config-dir conf .*?)\n```", PAGE, re.S)
    words = asked.replace("\\\n", " ").replace("$twin", str(ROOT / "model_zoo" / "embedded" / "smolvlm")).split()
    limits = ["train.batch_size=4", "generate.max_new_tokens=8", "threads=1"]
    done = capbench(["run", *words, *limits], plugins, PYTHONPATH=str(plugins))
    assert done.returncode == 0, done.stderr
    board = pd.read_csv(plugins / "results/leaderboard.csv")
    row = board.iloc[0]
    assert (row["model"], row["strategy"], row["prompt"]) == ("terse", "early", "shout")
    assert 0 <= row["both_ci_low"] <= row["both"] <= 1
    assert row["both"] == pytest.approx((row["brevity"] + row["rouge"]) / 2, abs=1e-5)
    listed = capbench(["list", "models", "--config-dir", "conf"], plugins, PYTHONPATH=str(plugins), COLUMNS="200")
    assert "terse" in listed.stdout


@pytest.mark.slow
def test_a_plugin_that_python_cannot_find_is_named(plugins):
    done = capbench(["run", "--config-dir", "conf", "prompt=shout"], plugins)
    assert done.returncode == 2
    assert "shout.Shout" in done.stderr
    assert "PYTHONPATH" in done.stderr
    assert "Traceback" not in done.stderr
