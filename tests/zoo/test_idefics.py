"""IDEFICS: the published prompt, which picture each word looks at, added tokens, and the real size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import IdeficsProcessor

from harness import config
from harness.contracts import Example, RequestError
from model_zoo.base.captioner import HFCaptioner
from model_zoo.embedded import twin_idefics
from model_zoo.embedded._twin import open_twin
from model_zoo.idefics import END, FAKE, IMAGE
from tests.support.captioners import GREEDY, QUESTION, examples, loaded, make, picture, supervised, twin_copy

# Values of HuggingFaceM4/idefics-9b-instruct's config.json.
REAL = {
    "model_type": "idefics",
    "vocab_size": 32000,
    "additional_vocab_size": 3,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "alpha_initializer": "zeros",
    "alpha_type": "float",
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "cross_layer_interval": 4,
    "qk_layer_norms": True,
    "use_resampler": True,
    "freeze_text_layers": False,
    "freeze_vision_layers": False,
    "freeze_lm_head": False,
    "vision_config": {
        "embed_dim": 1280,
        "image_size": 224,
        "patch_size": 14,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
    },
    "perceiver_config": {
        "use_resampler": True,
        "resampler_n_latents": 64,
        "resampler_depth": 6,
        "resampler_n_heads": 16,
        "resampler_head_dim": 96,
        "qk_layer_norms_perceiver": True,
    },
}


@pytest.fixture(scope="module")
def captioner() -> Iterator[HFCaptioner]:
    return loaded("idefics_9b")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> HFCaptioner:
    folder = tmp_path_factory.mktemp("idefics")
    (folder / "config.json").write_text(json.dumps(REAL))
    return make("idefics_9b", weights="hub", hub=str(folder))


def several(captions: list[str | None]) -> list[Example]:
    """Samples of one, two and three pictures with questions of several lengths."""
    views = [tuple(picture(100 + 20 * n, 128, seed=10 * i + n) for n in range(1 + i % 3)) for i in range(len(captions))]
    return [Example(pictures, e.prompt, e.caption) for pictures, e in zip(views, examples(captions), strict=True)]


# ---------------------------------------------------------------- text


def test_prompt_and_answer_are_the_tokens_of_the_published_text(captioner: HFCaptioner) -> None:
    ids = captioner.encode([picture(100, 80)], "What is shown?").ids
    prompt = f"<s>User:{FAKE}{IMAGE}{FAKE}What is shown?{END}\nAssistant:"
    answer = captioner.answer("A nodule.", 50)
    text = captioner.tokenizer(f"{prompt} A nodule.{END}", add_special_tokens=False)["input_ids"]
    assert ids + list(answer.ids) == text
    tokens = captioner.tokenizer.convert_ids_to_tokens(ids)
    assert tokens[0] == "<s>"
    assert [tokens.count(token) for token in ("<s>", FAKE, IMAGE, END)] == [1, 2, 1, 1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_inputs_are_those_of_the_published_processor(captioner: HFCaptioner, count: int) -> None:
    views = [picture(120 - 30 * n, 60 + 40 * n, seed=n) for n in range(count)]
    processor = IdeficsProcessor(captioner.image_processor, captioner.tokenizer)
    spoken = [["User:", *views, f"What is shown?{END}", "\nAssistant:"]]
    expected = processor(text=spoken, add_end_of_utterance_token=False)
    found = captioner.prompts([captioner.encode(views, "What is shown?")])
    assert set(found) == set(expected)
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, torch.as_tensor(expected[key]), msg=key, check_dtype=False)


def test_an_added_token_in_a_question_is_refused_whatever_the_files_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = twin_copy("idefics_9b", tmp_path, monkeypatch)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json.loads((copy / file).read_text())
        content.pop("additional_special_tokens")
        (copy / file).write_text(json.dumps(content))
    for token in (FAKE, IMAGE, END):
        with pytest.raises(RequestError, match=f"special token '{token}'"):
            make("idefics_9b").collate([Example((picture(64, 64),), f"Is {token} normal?", "x")], 50)


@pytest.mark.parametrize("change", [{"vocab_size": 32}, {"additional_vocab_size": 2}])
def test_a_tokenizer_of_another_checkpoint_is_refused(
    change: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base checkpoint has two added tokens: it does not know how an utterance ends."""
    copy = twin_copy("idefics_9b", tmp_path, monkeypatch)
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(RequestError, match="get an instruct checkpoint whose files belong together"):
        make("idefics_9b").tokenizer.encode("x")


def test_no_caption_announces_a_picture(captioner: HFCaptioner) -> None:
    batch = examples([None] * 3)
    expected = captioner.generate(batch, GREEDY)
    marks = captioner.tokenizer.convert_tokens_to_ids([FAKE, IMAGE])

    def prefer(module: torch.nn.Module, inputs: object, logits: torch.Tensor) -> torch.Tensor:
        assert logits.shape[-1] == len(captioner.tokenizer)
        logits[..., marks] += 1000
        return logits

    handle = captioner.model.lm_head.register_forward_hook(prefer)
    try:
        assert captioner.generate(batch, GREEDY) == expected
    finally:
        handle.remove()


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (4, 3), (3000, 200)])
def test_a_picture_of_any_shape_is_squashed(captioner: HFCaptioner, size: tuple[int, int]) -> None:
    pixels = captioner.encode([Image.new("RGB", size, (255, 0, 51))], QUESTION).tensors["pixel_values"]
    assert pixels.shape == (1, 1, 3, 64, 64)
    # CLIP's mean and deviation.
    mean, deviation = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    expected = torch.tensor((np.array([1.0, 0.0, 0.2]) - mean) / deviation, dtype=pixels.dtype)
    torch.testing.assert_close(pixels[0, 0], expected[:, None, None].expand(3, 64, 64), atol=1e-4, rtol=0)


def test_each_place_looks_at_the_last_picture_before_it_whatever_the_padding(captioner: HFCaptioner) -> None:
    rows = [captioner.row(example) for example in several([None] * 3)]
    mark = captioner.tokenizer.convert_tokens_to_ids(IMAGE)
    for batch in (captioner.prompts(rows), captioner.batch(rows, ["A nodule.", "", "Two words."], 50)):
        looks = batch["image_attention_mask"]
        assert looks.shape == (*batch["input_ids"].shape, 3)
        for ids, mask, look in zip(batch["input_ids"], batch["attention_mask"], looks, strict=True):
            seen = 0
            for token, real, place in zip(ids.tolist(), mask.tolist(), look.tolist(), strict=True):
                seen += token == mark
                if real:
                    assert place == [int(picture == seen) for picture in (1, 2, 3)]
            assert seen in (1, 2, 3)


def test_samples_of_several_pictures_in_one_batch(captioner: HFCaptioner) -> None:
    batch = several([None] * 6)
    together = captioner.generate(batch, GREEDY)
    assert together == [captioner.generate([example], GREEDY)[0] for example in batch]
    training = captioner.collate(several(["A nodule.", "Normal, in all views.", ""]), 50)
    assert supervised(captioner, training) == [f"A nodule.{END}", f"Normal, in all views.{END}", END]
    assert training["pixel_values"].shape == (3, 3, 3, 64, 64)
    training.pop("labels")
    with torch.no_grad():
        logits = captioner.model(**training).logits
        last = captioner.batch([captioner.row(several([None])[0])], ["A nodule."], 50)
        last.pop("labels")
        alone = captioner.model(**last).logits[0]
    torch.testing.assert_close(logits[0, : len(alone)], alone, atol=1e-4, rtol=1e-4)


def test_a_sample_without_pictures_is_refused(captioner: HFCaptioner) -> None:
    with pytest.raises(RequestError, match="one picture or more per sample, got none"):
        captioner.generate([Example((), QUESTION)], GREEDY)


def test_where_the_picture_shows_something_matters_unless_the_gates_are_closed(
    captioner: HFCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(128, 128)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    batch = captioner.prompts([captioner.encode([view], QUESTION) for view in (image, mirrored)])
    with torch.no_grad():
        logits = captioner.model(**batch).logits[:, -1]
        for layer in captioner.model.model.gated_cross_attn_layers:
            monkeypatch.setattr(layer.alpha_cross_attn, "data", torch.zeros(1))
        closed = captioner.model(**batch).logits[:, -1]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    assert torch.equal(closed[0], closed[1])


# ---------------------------------------------------------------- modules


def test_exactly_the_unreached_modules_get_no_gradient(captioner: HFCaptioner) -> None:
    captioner.model.requires_grad_()
    batch = captioner.collate(examples(["A nodule.", "Normal."]), 50)
    captioner.model(**{key: value for key, value in batch.items() if key != "labels"}).logits.sum().backward()
    silent = {name for name, parameter in captioner.model.named_parameters() if parameter.grad is None}
    captioner.model.zero_grad()
    assert silent == {f"{module}.{kind}" for module in captioner.unreached for kind in ("weight", "bias")}


def test_an_older_checkpoint_may_hold_rotary_frequencies(
    captioner: HFCaptioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = twin_copy("idefics_9b", tmp_path, monkeypatch) / "model.safetensors"
    state = load_file(file)
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.full((12,), 9.0)
    save_file(state, file, {"format": "pt"})
    batch = examples([None])
    assert loaded("idefics_9b").generate(batch, GREEDY) == captioner.generate(batch, GREEDY)


def test_the_twin_begins_with_the_vision_tower_of_llavas(tmp_path: Path) -> None:
    torch.manual_seed(0)
    twin_idefics.write(tmp_path)
    fresh, earlier = open_twin("idefics_9b", tmp_path), loaded("llava_15")
    fresh.load("cpu")
    twin_idefics.begin(fresh)
    views = [picture(128, 128)]
    pixels = [c.encode(views, QUESTION).tensors["pixel_values"] for c in (fresh, earlier)]
    assert torch.equal(pixels[0][0], pixels[1])
    with torch.no_grad():
        seen = fresh.model.model.vision_model(pixels[0][0]).last_hidden_state
        known = earlier.model.model.vision_tower(pixels[1], output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(seen, known, atol=1e-5, rtol=1e-5)


def test_the_real_size(real: HFCaptioner) -> None:
    assert sum(parameter.numel() for parameter in real.skeleton().parameters()) == 8_929_687_824
    assert not real.tied
    assert real.region("lm_head.additional_fc.weight") == "head"
    assert real.region("model.embed_tokens.additional_embedding.weight") == "embeddings"
    assert real.region("model.gated_cross_attn_layers.7.alpha_dense") == "language"
    assert real.region("model.perceiver_resampler.latents") == "connector"


def test_the_sites_of_the_real_size(real: HFCaptioner) -> None:
    modules = dict(real.skeleton().named_modules())
    found = {name: {m for m in modules if re.fullmatch(site.pattern, m)} for name, site in real.sites.items()}
    assert {name: len(hits) for name, hits in found.items()} == {
        "qkv": 96 + 24,  # 32 layers, and a cross-attention before every fourth
        "o": 32 + 8,
        "mlp": 96 + 24,
        "v_qkv": 96,
        "v_o": 32,
        "v_mlp": 64,
        "connector": 36,
        "r_qkv": 18,
        "head": 1,
        "embeddings": 1,
    }
    assert found["r_qkv"] < found["connector"]


@pytest.mark.parametrize(
    ("lora", "millions", "percent"),
    [("targeted", 50.25, 0.560), ("extended", 63.36, 0.705), ("hybrid", 312.4, 3.48), ("paper", 19.750_912, 0.2207)],
)
def test_trainable_parameters_of_the_real_size(real: HFCaptioner, lora: str, millions: float, percent: float) -> None:
    """Against counts by arithmetic on the published configuration."""
    plan = config.build(config.cells("run", [f"lora={lora}"])[0], "lora").plan(real)
    assert plan.params_trained / 1e6 == pytest.approx(millions, abs=0.05 if lora == "hybrid" else 0.005)
    share = 100 * plan.params_trained / (plan.params_total + plan.params_added)
    assert share == pytest.approx(percent, abs=0.006)


def test_the_published_recipe_of_the_real_size(real: HFCaptioner) -> None:
    plan = config.build(config.cells("run", ["lora=paper"])[0], "lora").plan(real)
    assert plan.params_trained == 19_750_912
    assert (plan.options["rank"], plan.options["alpha"]) == (16, 32)
