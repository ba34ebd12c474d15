"""LLaVA: the prompts, squares and tiles, what the last CLIP layer does not get, and the real sizes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaNextImageProcessor

from harness.contracts import Example, RequestError
from model_zoo.base.captioner import HFCaptioner
from model_zoo.embedded.twin_llava import write_tokenizer
from tests.support.captioners import GREEDY, QUESTION, examples, loaded, make, picture, published, supervised, twin_copy

TOTALS = {"llava_15": 7_063_427_072, "llava_vicuna": 7_063_431_168, "llava_mistral": 7_566_747_648}
PROMPTS = {  # as published; question and answer are one sample
    "llava_15": "USER: <image>\nWhat? ASSISTANT:",
    "llava_vicuna": "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions. USER: <image>\nWhat? ASSISTANT:",
    "llava_mistral": "[INST] <image>\nWhat? [/INST]",
}
FAMILY = list(TOTALS)
TILED = [name for name in FAMILY if name != "llava_15"]


def real(name: str, folder: Path) -> HFCaptioner:
    """The published sizes and image settings, with the words of a twin: nothing here needs the weights."""
    (folder / "config.json").write_text(json.dumps(published(name) | {"image_token_index": 3}))
    write_tokenizer(folder)
    crop, pinpoints = {"height": 336, "width": 336}, published(name).get("image_grid_pinpoints")
    if name == "llava_15":
        CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=crop).save_pretrained(folder)
    else:
        images = LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size=crop, image_grid_pinpoints=pinpoints)
        images.save_pretrained(folder)
    return make(name, weights="hub", hub=str(folder))


def image_tokens(captioner: HFCaptioner, size: tuple[int, int]) -> int:
    return captioner.encode([picture(*size)], QUESTION).ids.count(captioner.tokenizer.convert_tokens_to_ids("<image>"))


# ---------------------------------------------------------------- text


@pytest.mark.parametrize("name", FAMILY)
def test_prompt_and_answer_are_the_tokens_of_the_published_text(name: str) -> None:
    captioner = make(name)
    image = captioner.tokenizer.convert_tokens_to_ids("<image>")
    ids = captioner.encode([picture(100, 80)], "What?").ids
    once = [token for place, token in enumerate(ids) if token != image or ids[place - 1] != image]
    answer = captioner.answer("A nodule.", 50)
    # <s> comes from the tokenizer, once; the answer's ids are those that follow the prompt in one text.
    assert once + list(answer.ids) == captioner.tokenizer(f"{PROMPTS[name]} A nodule.</s>")["input_ids"]
    assert once.count(captioner.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", FAMILY)
def test_an_image_token_in_a_question_is_refused_whatever_the_files_list(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = twin_copy(name, tmp_path, monkeypatch)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json.loads((copy / file).read_text())
        content.pop("additional_special_tokens")
        (copy / file).write_text(json.dumps(content))
    with pytest.raises(RequestError, match="special token '<image>'"):
        make(name).collate([Example((picture(64, 64),), "Is <image> normal?", "x")], 50)


def test_a_tokenizer_of_another_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = twin_copy("llava_15", tmp_path, monkeypatch)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"image_token_index": 32}))
    with pytest.raises(RequestError, match="<image> with the id 32 of config.json"):
        make("llava_15").tokenizer.encode("x")


# ---------------------------------------------------------------- pictures


def test_a_padded_picture_keeps_its_borders_and_a_cropped_one_loses_them() -> None:
    white = Image.new("RGB", (128, 64))
    white.paste((255, 255, 255), (0, 0, 24, 64))  # the centre crop begins at 32
    brightest = {}
    for square in ("pad", "crop"):
        captioner = make("llava_15", square=square)
        pixels = captioner.encode([white], QUESTION).tensors["pixel_values"]
        assert pixels.shape == (1, 3, 64, 64)
        brightest[square] = pixels[0, :, 20:44, :3].mean().item()
    assert brightest["pad"] > 1.5
    assert brightest["crop"] < 0.0
    bars = make("llava_15", square="pad").encode([white], QUESTION).tensors["pixel_values"][0, :, :12]
    assert bars.abs().max() < 0.02, "the borders are CLIP's mean colour"


def test_a_square_picture_is_the_same_padded_or_cropped() -> None:
    rows = [make("llava_15", square=square).encode([picture(96, 96)], QUESTION) for square in ("pad", "crop")]
    assert torch.equal(rows[0].tensors["pixel_values"], rows[1].tensors["pixel_values"])


def test_the_image_tokens_of_the_real_settings(tmp_path: Path) -> None:
    captioner = real("llava_15", tmp_path)
    assert {image_tokens(captioner, size) for size in ((336, 336), (640, 480), (20, 300))} == {576}


@pytest.mark.parametrize("name", TILED)
def test_the_image_tokens_of_the_real_tiles(name: str, tmp_path: Path) -> None:
    captioner = real(name, tmp_path)
    # Width and height; counts published with the processor, from 336 tiles with a line break per row.
    counts = {(336, 336): 1176, (640, 480): 2340, (400, 512): 2448, (672, 672): 2928, (600, 2000): 2232}
    assert {size: image_tokens(captioner, size) for size in counts} == counts


@pytest.mark.parametrize("name", TILED)
def test_tiles_added_to_fill_a_batch_change_no_caption(name: str) -> None:
    captioner = loaded(name)
    batch = examples([None] * 4)
    tiles = [captioner.encode(e.images, e.prompt).tensors["pixel_values"].shape[1] for e in batch]
    assert len(set(tiles)) > 1
    assert captioner.generate(batch, GREEDY) == [captioner.generate([example], GREEDY)[0] for example in batch]
    row = captioner.row(batch[tiles.index(min(tiles))])
    inputs = captioner.batch([row], ["A nodule."], 50)
    inputs.pop("labels")
    filled = torch.cat([inputs["pixel_values"], torch.full_like(inputs["pixel_values"][:, :1], 9.0)], 1)
    with torch.no_grad():
        logits = captioner.model(**inputs).logits
        assert torch.equal(logits, captioner.model(**inputs | {"pixel_values": filled}).logits)


@pytest.mark.parametrize("name", FAMILY)
def test_two_pictures_of_one_sample(name: str) -> None:
    captioner = loaded(name)
    example = Example((picture(128, 128), picture(100, 50)), QUESTION, "Two views.")
    batch = captioner.collate([example], 50)
    assert batch["pixel_values"].shape[0] == 2
    assert supervised(captioner, batch) == ["Two views.</s>"]
    assert captioner.generate([example], GREEDY)[0].tokens


# ---------------------------------------------------------------- modules


@pytest.mark.parametrize("name", FAMILY)
def test_exactly_the_unreached_modules_get_no_gradient(name: str) -> None:
    captioner = loaded(name)
    captioner.model.requires_grad_()
    batch = captioner.collate(examples(["A nodule.", "Normal."]), 50)
    captioner.model(**{key: value for key, value in batch.items() if key != "labels"}).logits.sum().backward()
    silent = {n for n, p in captioner.model.named_parameters() if p.grad is None}
    named = {
        n for n, _ in captioner.model.named_parameters() if n.startswith(tuple(f"{m}." for m in captioner.unreached))
    }
    assert silent == named
    assert silent


@pytest.mark.parametrize("name", FAMILY)
def test_the_real_size_and_its_sites(name: str, tmp_path: Path) -> None:
    captioner = real(name, tmp_path)
    modules = dict(captioner.skeleton().named_modules())
    assert sum(parameter.numel() for parameter in modules[""].parameters()) == TOTALS[name]
    found = {s: [m for m in modules if re.fullmatch(site.pattern, m)] for s, site in captioner.sites.items()}
    counts = {site: len(names) for site, names in found.items()}
    language = {"qkv": 96, "o": 32, "mlp": 96}
    vision = {"v_qkv": 72, "v_o": 24, "v_mlp": 48}  # all 24 layers, as published counts have it
    assert counts == language | vision | {"connector": 2, "head": 1, "embeddings": 1}
    targeted = [modules[m] for site in ("qkv", "mlp", "connector", "v_qkv") for m in found[site]]
    trained = 16 * sum(module.in_features + module.out_features for module in targeted)
    assert round(trained / 1e6, 2) == (40.32 if name == "llava_mistral" else 38.35)
    assert captioner.unreached[0].endswith("layers.23")
