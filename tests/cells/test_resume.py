"""A fit that is killed, twice, ends with the weights and losses of the one that was not."""

from __future__ import annotations

import signal

import pandas as pd
import pytest
import torch

from harness.cells import cell
from tests.support.cell_driver import losses, parts, start, weights

# the log straddles checkpoints; dropout makes the random state matter; an epoch has 3 updates, the last one smaller
LOGGED = "train.log_every=3"
FITS = {
    "targeted": ["model=smolvlm", "lora=targeted", "lora.dropout=0.3", LOGGED],
    "features": ["model=smolvlm", "lora=targeted", "lora.sites=[qkv,mlp]", "lora.dropout=0.3", LOGGED, "features=on"],
    "accumulated": ["model=smolvlm", "lora=targeted", "lora.dropout=0.3", LOGGED, "train.micro_batch_size=2"],
    "hybrid": ["model=smolvlm", "lora=hybrid", "lora.dropout=0.3", LOGGED],
    "full": [
        "model=cnn_transformer",
        "lora=full",
        LOGGED,
    ],  # stages begin at steps 2 and 3, before and after checkpoint 2
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "targeted",
        "full",
        "features",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("accumulated", "hybrid")),
    ],
)
def test_a_killed_fit_ends_as_if_undisturbed(name, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert cell.run(parts(FITS[name], whole)).status == "ok"

    # which micro-batch of an attempt is its last; one is made ahead of the update that is under way
    for step, call in zip((2, 4), (10, 9) if name == "accumulated" else (4, 4), strict=True):
        fault = {"method": "collate", "call": call, "how": "kill"}
        assert start(FITS[name], torn, fault).returncode == -signal.SIGKILL
        assert any(torn.glob(f"fits/*/checkpoints/checkpoint-{step}/complete.json"))
        assert not any(torn.glob(f"fits/*/checkpoints/checkpoint-{step + 2}"))
        assert not any(torn.glob("fits/*/manifest.json"))
    assert cell.run(parts(FITS[name], torn)).status == "ok"

    mine, theirs = losses(torn), losses(whole)
    assert list(theirs["step"]) == [1, 2, 3, 4, 6]
    pd.testing.assert_frame_equal(mine, theirs, rtol=0, atol=1e-6)
    one, other = weights(torn), weights(whole)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
