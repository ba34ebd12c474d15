"""Several processes give what one gives; whoever fails or dies, nothing hangs and nothing is made twice for good."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.cells import cell
from harness.contracts import RequestError
from harness.machine import ranks
from harness.store import Journal
from tests.support.cell_driver import losses, parts, start, weights

ZERO = ["model=smolvlm", "lora=none"]
TARGETED = ["model=smolvlm", "lora=targeted", "lora.dropout=0.0", "train.learning_rate=1e-4"]
FITS = {
    "targeted": TARGETED,
    # 2 micro-batches of 2 rows on each process; head and embeddings are tied; adapters that get no gradient
    "unreached": ["model=idefics_9b", "lora=hybrid", "lora.dropout=0.0", "train.micro_batch_size=2"],
    # stages: what is frozen when the processes' model is wrapped trains from steps 2 and 3 on
    "stages": ["model=cnn_transformer", "lora=full", "train.learning_rate=1e-4"],
}


def captions(results: Path) -> list[tuple[str, str]]:
    (path,) = results.glob("runs/*/captions.jsonl")
    return [(row.id, row.caption) for row in Journal(path).rows()]


def row(results: Path, kind: str) -> dict[str, object]:
    (path,) = results.glob(f"{kind}/*/manifest.json")
    return json.loads(path.read_text())


def learned(results: Path) -> dict[str, torch.Tensor]:
    """Without the key biases of attention: softmax cancels them, Adam makes steps of the rounding in their gradient."""
    tensors = weights(results)
    for name in [name for name in tensors if name.endswith("in_proj_bias")]:
        query, _, value = tensors.pop(name).chunk(3)
        tensors[name] = torch.cat([query, value])
    return tensors


def same_fit(one: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(losses(one)[["step", "loss"]], losses(other)[["step", "loss"]], rtol=0, atol=1e-5)
    left, right = learned(one), learned(other)
    assert left.keys() == right.keys()
    assert max((left[key] - right[key]).abs().max().item() for key in left) < 1e-5


@pytest.fixture(scope="module")
def zero_shot(tmp_path_factory) -> list[tuple[str, str]]:
    results = tmp_path_factory.mktemp("zero")
    assert cell.run(parts(ZERO, results)).status == "ok"
    return captions(results)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["targeted", "stages", pytest.param("unreached", marks=pytest.mark.long)])
def test_two_processes_make_the_fit_and_the_captions_of_one(name, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert cell.run(parts(FITS[name], one)).status == "ok"
    done = start(FITS[name], two, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
    same_fit(one, two)
    assert captions(one) == captions(two)
    assert len({id_ for id_, _ in captions(two)}) == 10
    assert row(two, "fits")["row"]["processes"] == 2
    assert row(two, "fits")["identity"] == row(one, "fits")["identity"]
    assert row(two, "runs")["identity"] == row(one, "runs")["identity"]


@pytest.mark.long
def test_three_processes_caption_with_one_that_has_less_memory(zero_shot, tmp_path):
    done = start([*ZERO, "generate.batch_size=3"], tmp_path, {"rank": 1, "rows": 1}, processes=3)
    assert done.returncode == 0, done.stderr
    assert captions(tmp_path) == zero_shot
    (limit,) = tmp_path.glob("cache/rows-*.json")
    assert json.loads(limit.read_text())["rows"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_process_that_is_killed_ends_all_and_one_goes_on(rank, zero_shot, tmp_path):
    fault = {"rank": rank, "method": "generate", "call": 2, "how": "kill"}
    done = start(ZERO, tmp_path, fault, processes=2)
    assert done.returncode != 0
    kept = captions(tmp_path)
    assert kept == zero_shot[:4]  # the first round: one batch of 2 each
    assert cell.run(parts(ZERO, tmp_path)).status == "ok"
    assert captions(tmp_path) == zero_shot


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "method", "lora"),
    [
        (1, "generate", ZERO),
        pytest.param(0, "generate", ZERO, marks=pytest.mark.long),
        pytest.param(1, "collate", TARGETED, marks=pytest.mark.long),
    ],
)
def test_an_error_of_one_process_ends_all_with_its_words(rank, method, lora, tmp_path):
    fault = {"rank": rank, "method": method, "call": 2, "how": "raise"}
    done = start(lora, tmp_path, fault, processes=2)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("FAILED")]
    assert said == ["FAILED RuntimeError: the disk fell off"], done.stderr
    manifest = row(tmp_path, "runs")
    assert manifest["status"] == "failed"
    assert "the disk fell off" in manifest["row"]["error"]


@pytest.mark.long
def test_a_fit_goes_on_with_another_number_of_processes(tmp_path):
    whole, fewer, more = tmp_path / "whole", tmp_path / "fewer", tmp_path / "more"
    assert cell.run(parts(TARGETED, whole)).status == "ok"
    fault = {"rank": 1, "method": "collate", "call": 4, "how": "kill"}
    assert start(TARGETED, fewer, fault, processes=2).returncode != 0
    assert any(fewer.glob("fits/*/checkpoints/checkpoint-2/complete.json"))
    assert cell.run(parts(TARGETED, fewer)).status == "ok"
    same_fit(whole, fewer)
    assert start(TARGETED, more, {**fault, "rank": 0}).returncode != 0
    assert any(more.glob("fits/*/checkpoints/checkpoint-2/complete.json"))
    done = start(TARGETED, more, processes=2)
    assert done.returncode == 0, done.stderr
    same_fit(whole, more)


@pytest.mark.long
def test_a_fit_short_of_memory_on_one_process_goes_on_when_repeated(tmp_path):
    whole, short = tmp_path / "whole", tmp_path / "short"
    fault = {"rank": 1, "rows": 2}
    done = start(TARGETED, short, fault, processes=2)
    assert done.returncode != 0
    assert "out of memory with train.micro_batch_size=4 on each of 2 processes; repeat the command" in done.stderr
    done = start(TARGETED, short, fault, processes=2)
    assert done.returncode == 0, done.stderr
    assert row(short, "fits")["row"]["micro_batch_size"] == 2
    assert cell.run(parts(TARGETED, whole)).status == "ok"
    same_fit(whole, short)


# ---------------------------------------------------------------- outside torchrun


def test_a_single_process_waits_for_nobody():
    assert (ranks.world(), ranks.rank(), ranks.first(), ranks.speaker()) == (1, 0, True, True)
    assert ranks.gather("value") == ["value"]
    assert ranks.once(lambda: "made") == "made"
    assert ranks.fail("reason") == "reason"
    assert ranks.place("cuda:1") == "cuda:1"
    ranks.start("cpu")
    ranks.stop()


def test_a_gpu_that_is_named_cannot_be_that_of_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks.place("cpu") == "cpu"
    with pytest.raises(RequestError, match="device=cuda:1: expected auto, cpu or cuda"):
        ranks.place("cuda:1")


@pytest.mark.parametrize(("local", "device"), [("0", "cuda:0"), ("1", "cuda:1"), ("2", None)])
def test_each_process_takes_its_own_gpu(local, device, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if device:
        assert ranks.place("cuda") == device
    else:
        with pytest.raises(RequestError, match="--nproc-per-node 2"):
            ranks.place("cuda")
