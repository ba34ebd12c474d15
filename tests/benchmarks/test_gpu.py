"""Checkpoints of the published sizes with random weights, and what is measured on them; here with one or two layers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from harness.benchmarks import captioner as stages
from harness.contracts import RequestError
from model_zoo.embedded import _random
from tests.support.captioners import make, picture

SMALL = [
    *("dataset.train=2", "dataset.test=2", "train.batch_size=2", "train.micro_batch_size=2", "train.max_steps=1"),
    *("generate.max_new_tokens=4", "model.image_splitting=false", "model.dtype=nf4"),
]
TARGETED = ["qkv", "mlp", "connector", "v_qkv"]


@pytest.mark.parametrize("name", _random.PIXELS)
def test_a_folder_has_the_published_sizes_and_the_twins_words(name: str, tmp_path: Path) -> None:
    _random.write_config(name, tmp_path / name)
    captioner, twin = make(name, weights="hub", hub=str(tmp_path / name)), make(name)
    shapes = {n: p.shape for n, p in captioner.skeleton().named_parameters()}
    assert shapes == {n: p.shape for n, p in make(name, weights="published").skeleton().named_parameters()}
    assert (captioner.stops, captioner.pad_id) == (twin.stops, twin.pad_id)
    assert captioner.config.image_token_id == twin.config.image_token_id
    row = captioner.encode([picture(640, 480)], "What is it?")
    features = {"smolvlm": 13 * 64, "qwen2_vl": 391, "llava_15": 576}[name]
    assert row.ids.count(captioner.config.image_token_id) == features


def test_weights_come_in_shards_and_tied_ones_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_random, "SHARD", 2**17)
    monkeypatch.setattr(_random, "PUBLISHED", _random.TWINS)  # tiny sizes: all that matters here is the cutting
    _random.prepare("qwen2_vl", tmp_path / "small", "cpu")
    captioner = make("qwen2_vl", weights="hub", hub=str(tmp_path / "small"), dtype="float32")
    places = json.loads((tmp_path / "small" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(places.values())) > 1
    assert "lm_head.weight" not in places
    for file in set(places.values()):
        with safe_open(tmp_path / "small" / file, "pt") as weights:
            sizes = [weights.get_tensor(name).numel() * 2 for name in weights.keys()]  # noqa: SIM118 (no mapping)
        assert len(sizes) == 1 or sum(sizes) <= 2**17
    captioner.load("cpu")
    spread = captioner.config.text_config.initializer_range
    deep = captioner.model.model.language_model.layers[0]
    assert deep.mlp.up_proj.weight.std().item() == pytest.approx(spread, rel=0.05)
    assert torch.equal(deep.input_layernorm.weight, torch.ones(captioner.config.text_config.hidden_size))


def test_a_row_is_measured_over_the_real_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "prepare", partial(_random.prepare, layers=1))
    order = {"model": "smolvlm", "size": "real", "sites": TARGETED, "overrides": SMALL, "device": "cpu", "threads": 1}
    row = stages.measure(order, tmp_path)
    assert row["prompt_tokens"] > 64
    assert 0 < row["params_trained"] < row["params_total"]
    measured = ("fit_samples_per_s", "captions_per_s", "fit_peak_mb", "captions_peak_mb", "load_s")
    assert all(row[name] > 0 for name in measured)
    assert "fit_cached_samples_per_s" not in row, "the tower trains"


def test_a_model_whose_picture_sizes_are_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="visiongpt2: expected one of smolvlm"):
        _random.write_config("visiongpt2", tmp_path / "none")
