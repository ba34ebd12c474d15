"""VisionGPT2: the lockstep, the stages of the schedule, and the real size."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from harness.contracts import Decoding, Example, RequestError
from model_zoo.base import checkpoint
from model_zoo.nets.visiongpt2 import VisionGPT2Net
from tests.support.captioners import GREEDY, TWINS, examples, loaded, make, picture, twin_copy


def net() -> VisionGPT2Net:
    model = loaded("visiongpt2").model
    assert isinstance(model, VisionGPT2Net)
    return model


def test_each_block_reads_the_output_of_its_own_vit_block() -> None:
    model = net()
    pixels, ids = torch.randn(2, 3, 64, 64), torch.randint(0, 500, (2, 7))
    outputs, read = [], []
    for layer in model.vit.encoder.layer:  # independent of `hidden_states`, which the model itself uses
        layer.register_forward_hook(lambda _m, _a, out: outputs.append(out[0] if isinstance(out, tuple) else out))
    for block in model.gpt2.transformer.h:
        block.crossattention.register_forward_pre_hook(
            lambda _m, _a, kwargs: read.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
    with torch.no_grad():
        model(ids, torch.ones_like(ids), pixels)
    assert len(outputs) == len(read) == 3
    assert all(torch.equal(out, seen) for out, seen in zip(outputs, read, strict=True))
    assert not torch.equal(outputs[0], outputs[1])


def test_the_picture_matters_in_every_block() -> None:
    model = net()
    pixels, ids = torch.randn(1, 3, 64, 64), torch.randint(0, 500, (1, 5))
    model(ids, torch.ones_like(ids), pixels).logits.sum().backward()
    gradients = [block.crossattention.c_attn.weight.grad for block in model.gpt2.transformer.h]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_cached_generation_equals_the_full_pass() -> None:
    model = net()
    pixels = torch.randn(3, 3, 64, 64)
    start = torch.full((3, 1), model.gpt2.config.bos_token_id)
    with torch.no_grad():
        options = {"do_sample": False, "min_new_tokens": 20, "max_new_tokens": 20, "pad_token_id": 0}
        ids = model.generate(start, pixels, **options, output_logits=True, return_dict_in_generate=True)
        full = model(ids.sequences, torch.ones_like(ids.sequences), pixels).logits
    cached = torch.stack(ids.logits, dim=1)
    torch.testing.assert_close(cached, full[:, :-1], atol=1e-4, rtol=1e-4)


def test_pictures_are_encoded_once_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = loaded("visiongpt2")
    calls = []
    captioner.model.vit.register_forward_hook(lambda *_: calls.append(1))
    assert captioner.generate(examples([None] * 2), Decoding(10, 1.0, 2))[0].tokens > 1
    assert len(calls) == 1


def test_the_prompt_is_ignored_and_text_starts_as_generation_does() -> None:
    captioner = make("visiongpt2")
    rows = [captioner.encode([picture(64, 64)], prompt) for prompt in ("a", "b c d")]
    assert rows[0].ids == rows[1].ids == [captioner.tokenizer.bos_token_id]
    batch = captioner.collate([Example((picture(64, 64),), "x", "Normal.")], 50)
    assert batch["input_ids"][0, 0] == captioner.tokenizer.bos_token_id
    assert batch["labels"][0, 0] == -100


def test_two_pictures_are_refused() -> None:
    with pytest.raises(RequestError, match="one picture"):
        make("visiongpt2").encode([picture(64, 64)] * 2, "")


@pytest.fixture
def real(tmp_path: Path) -> VisionGPT2Net:
    for part, kind in (("vision", "vit"), ("text", "gpt2")):  # the classes' defaults are the real sizes
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps({"model_type": kind}))
    captioner = make("visiongpt2", weights="hub", vision=str(tmp_path / "vision"), text=str(tmp_path / "text"))
    model = captioner.skeleton()
    assert isinstance(model, VisionGPT2Net)
    return model


def test_the_real_size_and_what_each_stage_trains(real: VisionGPT2Net) -> None:
    assert sum(parameter.numel() for parameter in real.parameters()) == 238_603_776
    counts = []
    for stage in make("visiongpt2").schedule:
        modules = [m for n, m in real.named_modules() if any(re.fullmatch(p, n) for p in stage.modules)]
        trained = {id(p): p.numel() for module in modules for p in module.parameters()}
        counts.append(sum(trained.values()))
    assert counts == [28_366_848, 113_421_312, 238_603_776]


def test_a_text_checkpoint_without_cross_attention_gets_a_seeded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = twin_copy("visiongpt2", tmp_path, monkeypatch)
    original = loaded("visiongpt2").model.gpt2
    config = json.loads((copy / "text" / "config.json").read_text())
    (copy / "text" / "config.json").write_text(json.dumps(config | {"add_cross_attention": False}))
    from safetensors.torch import load_file, save_file

    file = copy / "text" / "model.safetensors"
    kept = {k.removeprefix("transformer."): v for k, v in load_file(file).items() if "cross" not in k}
    save_file(kept, file, {"format": "pt"})  # GPT-2's own file has no prefix either
    plain = [loaded("visiongpt2", init_seed=seed).model.gpt2 for seed in (0, 0, 1)]
    new = [model.transformer.h[1].crossattention.c_attn.weight for model in plain]
    assert torch.equal(new[0], new[1])
    assert not torch.equal(new[0], new[2])
    assert 0 < new[0].std() < 0.1
    assert torch.equal(plain[0].transformer.wte.weight, original.transformer.wte.weight)


def test_a_vit_checkpoint_of_a_classifier_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    expected = loaded("visiongpt2").generate(examples([None] * 2), GREEDY)
    file = twin_copy("visiongpt2", tmp_path, monkeypatch) / "vision" / "model.safetensors"
    state = {f"vit.{key}": value for key, value in load_file(file).items()}  # google/vit-base-patch16-224's layout
    state |= {"vit.layernorm.weight": torch.ones(96), "vit.layernorm.bias": torch.zeros(96)}
    state |= {"classifier.weight": torch.ones(10, 96), "classifier.bias": torch.ones(10)}
    save_file(state, file, {"format": "pt"})
    assert loaded("visiongpt2").generate(examples([None] * 2), GREEDY) == expected


def test_parts_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = twin_copy("visiongpt2", tmp_path, monkeypatch)
    config = json.loads((copy / "vision" / "config.json").read_text())
    (copy / "vision" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(RequestError, match=r"as many blocks.*\(2, 96\) and \(3, 96\)"):
        make("visiongpt2").skeleton()
    assert checkpoint.TWINS != TWINS
