"""Every captioner with every strategy on the embedded default: each cell ends well or is refused with its reason.

Long (about ten minutes on two cores): `make long`.
"""

import subprocess
import sys

import pandas as pd
import pytest

from harness.choices import groups
from tests.support.commands import clean

MODELS = groups()["model"]
BASELINES = ("cnn_transformer", "visiongpt2")
STRATEGIES = ("none", "targeted", "extended", "hybrid")


def capbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, env=clean(), capture_output=True, text=True, check=False)


@pytest.mark.long
def test_every_model_and_strategy_ends_well_or_is_refused(tmp_path):
    done = capbench(
        "run",
        "-m",
        "model=glob(*)",
        f"lora={','.join(STRATEGIES)}",
        f"results={tmp_path}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = pd.read_csv(tmp_path / "runs.csv")
    expected = {(m, s) for m in MODELS for s in STRATEGIES if m not in BASELINES or s == "none"}
    assert set(zip(runs["model"], runs["strategy"], strict=True)) == expected
    assert set(runs["status"]) == {"ok"}
    assert (runs["n_ok"] == runs["n_requested"]).all()
    assert done.stdout.count("refused, a baseline has no pre-trained vision-language weights") == 2 * 3
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert board["rank"].notna().all()
    trained = board[board["strategy"] != "none"].groupby("model")["overall"].min()
    zero_shot = board[board["strategy"] == "none"].set_index("model")["overall"]
    assert (trained > zero_shot[trained.index]).all(), "a fit that teaches nothing"
