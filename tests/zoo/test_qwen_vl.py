"""Both Qwen-VL generations: the prompt they were trained on, tokens by picture size, and the real sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessor

from harness.contracts import Example, RequestError
from model_zoo.base.captioner import HFCaptioner
from model_zoo.embedded import twin_qwen
from model_zoo.embedded._twin import open_twin
from model_zoo.qwen_vl import Qwen2VL, widened
from tests.support.captioners import GREEDY, QUESTION, examples, loaded, make, picture, published, supervised, twin_copy

QWEN = ("qwen2_vl", "qwen25_vl")

REAL = {name: published(name) for name in QWEN}


@pytest.fixture(scope="module", params=QWEN)
def captioner(request: pytest.FixtureRequest) -> Iterator[HFCaptioner]:
    return loaded(request.param)


def real(name: str, folder: Path, **values: Any) -> HFCaptioner:
    (folder / "config.json").write_text(json.dumps(REAL[name] | values))
    return make(name, weights="hub", hub=str(folder))


def image_tokens(captioner: HFCaptioner, width: int, height: int) -> int:
    row = captioner.encode([picture(width, height)], QUESTION)
    tokens = row.ids.count(captioner.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    assert row.tensors["pixel_values"].shape[0] == row.tensors["image_grid_thw"].prod() == 4 * tokens
    return tokens


# ---------------------------------------------------------------- prompt


def test_the_prompt_is_the_one_of_the_chat_template(captioner: HFCaptioner) -> None:
    row = captioner.encode([picture(128, 128)], "What is shown?")
    assert captioner.tokenizer.decode(row.ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * 16}<|vision_end|>What is shown?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert set(row.tensors) == {"pixel_values", "image_grid_thw"}
    answer = captioner.answer("A nodule.", 50)
    assert captioner.tokenizer.decode(answer.ids) == "A nodule.<|im_end|>"


def test_a_caption_ends_with_its_turn_or_with_the_text(captioner: HFCaptioner) -> None:
    assert captioner.tokenizer.convert_ids_to_tokens(captioner.stops) == ["<|im_end|>", "<|endoftext|>"]
    assert captioner.tokenizer.convert_ids_to_tokens(captioner.pad_id) == "<|endoftext|>"


@pytest.mark.parametrize("name", QWEN)
def test_the_template_of_an_older_checkpoint_lies_in_a_file_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for m in messages %}{% for c in m['content'] %}{{ c.get('text', '<|image_pad|>') }}"
    template += "{% endfor %}{% endfor %}"
    copy = twin_copy(name, tmp_path, monkeypatch)
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    row = make(name).encode([picture(128, 128)], "Why?")
    assert make(name).tokenizer.decode(row.ids) == "<|image_pad|>" * 16 + "Why?"


def test_a_template_without_a_place_for_the_picture_is_refused() -> None:
    captioner = make("qwen2_vl")
    captioner.tokenizer.chat_template = "{{ messages[0]['role'] }}"
    with pytest.raises(RequestError, match="one image token .* per picture, got 0 for 1; use the checkpoint's own"):
        captioner.encode([picture(64, 64)], QUESTION)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(("limit", "tokens"), [(256 * 28 * 28, 234), (512 * 28 * 28, 391)])
def test_a_real_picture_has_as_many_tokens_as_max_pixels_allows(limit: int, tokens: int) -> None:
    captioner = make("qwen2_vl", max_pixels=limit)
    captioner.image_processor = Qwen2VLImageProcessor(patch_size=14, temporal_patch_size=2, merge_size=2)
    assert image_tokens(captioner, 640, 480) == tokens  # 480 rows of 640
    assert captioner.encode([picture(640, 480)], "").tensors["pixel_values"].shape[1] == 14 * 14 * 3 * 2


def test_the_picture_size_sets_the_number_of_tokens(captioner: HFCaptioner) -> None:
    assert image_tokens(captioner, 128, 128) == 16
    assert image_tokens(captioner, 256, 128) == 32
    assert image_tokens(captioner, 3, 4) == 6, "enlarged to min_pixels, 2 by 3 tokens of 32 pixels"
    assert image_tokens(captioner, 3000, 200) == 76 * 5, "shrunk to max_pixels"
    assert image_tokens(captioner, 1, 900) == 24


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (4, 900)])
def test_a_picture_too_thin_gets_black_bars(size: tuple[int, int]) -> None:
    thin = Image.new("RGB", size, "white")
    wide = widened(thin)
    assert sorted(wide.size) == [5, 900]
    white = [pixel for pixel in wide.getdata() if pixel == (255, 255, 255)]
    assert len(white) == size[0] * size[1]
    assert widened(wide) is wide


def test_a_picture_of_200_to_1_is_left_alone(captioner: HFCaptioner) -> None:
    thin = Image.new("RGB", (1, 200))
    assert widened(thin) is thin
    assert captioner.encode([thin], QUESTION).tensors["image_grid_thw"].shape == (1, 3)


def test_batches_of_pictures_with_different_numbers_of_tokens(captioner: HFCaptioner) -> None:
    batch = examples([None] * 4)
    assert len({len(captioner.encode(e.images, QUESTION).ids) for e in batch}) > 1
    assert captioner.generate(batch, GREEDY) == [captioner.generate([example], GREEDY)[0] for example in batch]


def test_two_pictures_of_one_sample(captioner: HFCaptioner) -> None:
    example = Example((picture(128, 128), picture(96, 64)), QUESTION, "Two views.")
    batch = captioner.collate([example], 50)
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8], [1, 4, 6]]
    mark = captioner.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (batch["input_ids"] == mark).sum() == 16 + 6
    assert supervised(captioner, batch) == ["Two views.<|im_end|>"]
    assert captioner.generate([example], GREEDY)[0].tokens


def test_where_the_picture_shows_something_matters(captioner: HFCaptioner) -> None:
    """The logits change when the picture is mirrored: positions reach the language model."""
    image = picture(128, 128)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    batch = captioner.prompts([captioner.encode([view], QUESTION) for view in (image, mirrored)])
    with torch.no_grad():
        logits = captioner.model(**batch).logits[:, -1]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


def test_limits_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(RequestError, match="min_pixels <= max_pixels, got 3136 and 100"):
        Qwen2VL("qwen2_vl", "SVLM", "embedded", "", None, "auto", "sdpa", min_pixels=3136, max_pixels=100)


# ---------------------------------------------------------------- real size


@pytest.mark.parametrize(("name", "total"), [("qwen2_vl", 2_208_985_600), ("qwen25_vl", 3_754_622_976)])
def test_the_real_size(name: str, total: int, tmp_path: Path) -> None:
    captioner = real(name, tmp_path)
    assert sum(parameter.numel() for parameter in captioner.skeleton().parameters()) == total
    assert captioner.tied
    assert captioner.region("lm_head.weight") == "embeddings"


@pytest.mark.parametrize(
    ("name", "layers", "v_mlp", "millions"), [("qwen2_vl", 28, 64, 19.98), ("qwen25_vl", 36, 96, 30.47)]
)
def test_the_sites_of_the_real_size(name: str, layers: int, v_mlp: int, millions: float, tmp_path: Path) -> None:
    captioner = real(name, tmp_path)
    modules = dict(captioner.skeleton().named_modules())
    found = {n: [modules[m] for m in modules if re.fullmatch(s.pattern, m)] for n, s in captioner.sites.items()}
    assert {site: len(hits) for site, hits in found.items()} == {
        "qkv": 3 * layers,
        "o": layers,
        "mlp": 3 * layers,
        "v_qkv": 32,
        "v_o": 32,
        "v_mlp": v_mlp,
        "connector": 2,
        "head": 1,
        "embeddings": 1,
    }
    targeted = [module for site in ("qkv", "mlp", "connector", "v_qkv") for module in found[site]]
    # Trained parameters at rank 16, as peft counts them.
    assert round(16 * sum(m.in_features + m.out_features for m in targeted) / 1e6, 2) == millions


def test_the_other_generation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(REAL["qwen25_vl"]))
    with pytest.raises(RequestError, match="architecture 'qwen2_vl', got 'qwen2_5_vl'"):
        make("qwen2_vl", weights="hub", hub=str(tmp_path)).skeleton()


def test_the_later_twin_begins_with_what_the_earlier_one_knows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    twin_qwen.CHECKPOINTS["qwen25_vl"].write(tmp_path)
    fresh, earlier = open_twin("qwen25_vl", tmp_path), make("qwen2_vl")
    assert fresh.tokenizer.get_vocab() == earlier.tokenizer.get_vocab()
    fresh.load("cpu")
    earlier.load("cpu")
    twin_qwen.begin(fresh)
    known = earlier.model.state_dict()
    taken = {name for name, tensor in fresh.model.state_dict().items() if torch.equal(tensor, known.get(name, -tensor))}
    assert {name for name in known if name.startswith("model.language_model")} <= taken
    assert "model.visual.blocks.0.attn.qkv.weight" in taken
    assert "model.visual.blocks.0.mlp.gate_proj.weight" not in taken
