"""What every captioner must do, for each yaml in conf/model, on its twin."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.contracts import REGIONS, Decoding, Example, RequestError, Seen
from model_zoo.base.captioner import IGNORED, HFCaptioner
from tests.support.captioners import (
    GREEDY,
    NAMES,
    QUESTION,
    TWINS,
    examples,
    loaded,
    make,
    one_per_family,
    picture,
    stop_text,
    supervised,
    twin_copy,
)

LONG = " ".join(["A", "large", "left-sided", "pleural", "effusion"] * 80)


@pytest.fixture(scope="module", params=NAMES)
def captioner(request: pytest.FixtureRequest) -> Iterator[HFCaptioner]:
    return loaded(request.param)


def test_there_is_a_yaml_per_twin_and_a_twin_per_yaml() -> None:
    twins = sorted(path.name for path in TWINS.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert twins == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_construction_reads_nothing_and_the_yaml_says_every_value(name: str) -> None:
    captioner = make(name, weights="hub")  # no such checkpoint here
    assert captioner.name == name
    assert not hasattr(captioner, "model")
    defaults = [p.name for p in inspect.signature(type(captioner)).parameters.values() if p.default is not p.empty]
    assert defaults == []


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("caption", ["", "Normal", "Axial thorax CT showing a 33 mm nodule (red arrow).", LONG])
@pytest.mark.parametrize("size", [(128, 128), (1, 900), (3000, 200), (3, 4)])
def test_supervised_text_is_caption_and_stop(captioner: HFCaptioner, caption: str, size: tuple[int, int]) -> None:
    limit = 4000 if captioner.longest_answer() is None else captioner.longest_answer()
    answer = captioner.answer(caption, limit)
    batch = captioner.collate([Example((picture(*size),), QUESTION, caption)], limit)
    text = supervised(captioner, batch)[0]
    if answer.cut:
        assert caption == LONG, "only the long caption may exceed what a model has positions for"
        assert len(answer.ids) == limit
        assert (captioner.lead + caption).startswith(text)
    else:
        assert text == (captioner.lead + caption if caption else "") + stop_text(captioner)


def test_labels_are_the_input_ids_of_the_answer_and_padding_is_masked(captioner: HFCaptioner) -> None:
    captions = ["", "Normal chest.", "Axial CT of the brain without abnormality.", "x"]
    batch = captioner.collate(examples(captions), 50)
    for row, caption in enumerate(captions):
        ids, mask, labels = (batch[key][row].tolist() for key in ("input_ids", "attention_mask", "labels"))
        length = sum(mask)
        assert mask == [1] * length + [0] * (len(mask) - length), "padding must be on the right"
        answer = captioner.answer(caption, 50).ids
        assert labels == [IGNORED] * (length - len(answer)) + list(answer) + [IGNORED] * (len(ids) - length)
        assert ids[length - len(answer) : length] == list(answer)


def test_a_caption_at_the_limit_is_whole_and_one_beyond_is_cut_without_stop(captioner: HFCaptioner) -> None:
    caption = "Axial CT of the chest shows a nodule in the left lung."
    whole = captioner.answer(caption, 100)
    exact, short = captioner.answer(caption, len(whole.ids)), captioner.answer(caption, len(whole.ids) - 1)
    assert exact == whole
    assert not whole.cut
    assert short.cut
    assert short.ids == whole.ids[:-1]
    assert not set(short.ids) & set(captioner.stops)


def test_a_special_token_spelled_in_a_caption_is_text(captioner: HFCaptioner) -> None:
    for token in captioner.tokenizer.all_special_tokens:
        answer = captioner.answer(f"left {token} lung", 200)
        assert not set(answer.ids[:-1]) & set(captioner.tokenizer.all_special_ids)
        assert answer.ids[-1] == captioner.stops[0]


def test_a_special_token_in_the_question_is_refused(captioner: HFCaptioner) -> None:
    if not captioner.prompted:
        pytest.skip("it is never asked")
    token = captioner.tokenizer.all_special_tokens[-1]
    with pytest.raises(RequestError, match="special token"):
        captioner.collate([Example((picture(64, 64),), f"What is {token}?", "x")], 50)


def test_training_on_a_sample_without_caption_is_refused(captioner: HFCaptioner) -> None:
    with pytest.raises(RequestError, match="caption to train on"):
        captioner.collate([Example((picture(64, 64),), QUESTION)], 50)


# ---------------------------------------------------------------- training


def loss_of(captioner: HFCaptioner, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits = captioner.model(**inputs).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
    )


def test_one_step_has_a_finite_loss_and_a_gradient_in_every_region(captioner: HFCaptioner) -> None:
    captioner.model.train().requires_grad_()
    loss = loss_of(captioner, captioner.collate(examples(["A nodule in the left lung.", "", "Normal."]), 50))
    loss.backward()
    reached = {
        captioner.region(n) for n, p in captioner.model.named_parameters() if p.grad is not None and p.grad.any()
    }
    present = {captioner.region(n) for n, _ in captioner.model.named_parameters()}
    captioner.model.zero_grad()
    captioner.model.eval()
    assert torch.isfinite(loss)
    assert reached == present


def test_padding_changes_no_logits(captioner: HFCaptioner) -> None:
    batch = examples(["A nodule in the left lung of a patient.", "", "Normal."])
    with torch.no_grad():
        together = captioner.collate(batch, 50)
        inputs = {key: value for key, value in together.items() if key != "labels"}
        padded = captioner.model(**inputs).logits
        for row, example in enumerate(batch):
            alone = captioner.collate([example], 50)
            alone.pop("labels")
            expected = captioner.model(**alone).logits[0]
            torch.testing.assert_close(padded[row, : len(expected)], expected, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- captions


@pytest.mark.parametrize("captioner", one_per_family(NAMES), indirect=True)
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_batch_gives_the_captions_of_its_examples_alone(captioner: HFCaptioner, penalty: float) -> None:
    decoding = Decoding(30, penalty, 8)
    batch = examples([None] * 6)
    together = captioner.generate(batch, decoding)
    assert together == [captioner.generate([example], decoding)[0] for example in batch]
    assert together == captioner.generate(batch, decoding)
    assert all(generated.caption for generated in together)


@pytest.mark.parametrize("captioner", one_per_family(NAMES), indirect=True)
def test_keys_of_a_fixed_size_change_no_caption(captioner: HFCaptioner, capfd: pytest.CaptureFixture[str]) -> None:
    batch = examples([None] * 4)
    static = captioner.generate(batch, Decoding(30, 1.0, 8, kv_cache="static"))
    assert static == captioner.generate(batch, Decoding(30, 1.0, 8))
    assert captioner.generate(batch[1:2], Decoding(12, 1.0, 8, kv_cache="static")) == captioner.generate(
        batch[1:2], Decoding(12, 1.0, 8)
    )
    assert "not valid" not in capfd.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", ["smolvlm", "llava_15", "moondream2"])
def test_a_compiled_step_changes_no_caption(name: str) -> None:
    captioner, batch = loaded(name), examples([None] * 3)
    compiled = captioner.generate(batch, Decoding(16, 1.0, 8, kv_cache="compiled"))
    assert compiled == captioner.generate(batch, Decoding(16, 1.0, 8))


def test_greedy_captions_are_those_of_a_plain_loop(captioner: HFCaptioner) -> None:
    example = examples([None])[0]
    row, new = captioner.row(example), []
    with torch.no_grad():
        while len(new) < 12:
            logits = captioner.model(**captioner.prompts([Seen([*row.ids, *new], row.tensors)])).logits[0, -1]
            new.append(int(logits.argmax()))
            if new[-1] in captioner.stops:
                new.pop()
                break
    generated = captioner.generate([example], Decoding(12, 1.0, 1))[0]
    assert generated.caption == captioner.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert generated.tokens == len(new)


def test_a_caption_without_stop_is_marked_truncated(captioner: HFCaptioner) -> None:
    whole = captioner.generate(examples([None]), GREEDY)[0]
    assert not whole.truncated
    assert whole.tokens > 3
    cut = captioner.generate(examples([None]), Decoding(3, 1.0, 1))[0]
    assert (cut.truncated, cut.tokens) == (True, 3)
    assert whole.caption.startswith(cut.caption)
    exact = captioner.generate(examples([None]), Decoding(whole.tokens + 1, 1.0, 1))[0]
    assert exact == whole


def test_generation_leaves_training_mode_as_it_was(captioner: HFCaptioner) -> None:
    captioner.model.train()
    captioner.generate(examples([None]), Decoding(2, 1.0, 1))
    assert captioner.model.training
    captioner.model.eval()


@pytest.mark.parametrize("captioner", one_per_family(NAMES), indirect=True)
def test_the_checkpoints_own_generation_options_do_not_leak(
    captioner: HFCaptioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = captioner.generate(examples([None] * 3), GREEDY)
    copy = twin_copy(captioner.name, tmp_path, monkeypatch)
    options = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 5.0, "max_new_tokens": 2, "min_length": 30}
    for config in copy.rglob("config.json"):
        (config.parent / "generation_config.json").write_text(json.dumps(options))
    assert loaded(captioner.name).generate(examples([None] * 3), GREEDY) == expected


# ---------------------------------------------------------------- modules


def test_the_skeleton_has_the_parameters_of_the_loaded_model(captioner: HFCaptioner) -> None:
    skeleton = make(captioner.name).skeleton()
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    shapes = [{n: tuple(p.shape) for n, p in m.named_parameters()} for m in (skeleton, captioner.model)]
    assert shapes[0] == shapes[1]


def test_every_site_matches_modules_of_its_region(captioner: HFCaptioner) -> None:
    modules = dict(captioner.model.named_modules())
    for site in captioner.sites.values():
        found = [name for name in modules if re.fullmatch(site.pattern, name)]
        assert found, site.pattern
        assert {captioner.region(name) for name in found} == {site.region}
    assert bool(captioner.sites) != bool(captioner.schedule), "adapted by LoRA or trained in full"


def test_every_parameter_has_a_region_and_other_names_are_refused(captioner: HFCaptioner) -> None:
    assert {captioner.region(name) for name, _ in captioner.model.named_parameters()} <= set(REGIONS)
    with pytest.raises(RequestError, match="no region"):
        captioner.region("somewhere.else")


def test_the_schedule_widens_to_the_whole_model(captioner: HFCaptioner) -> None:
    trained = []
    for stage in captioner.schedule:
        modules = [m for n, m in captioner.model.named_modules() if any(re.fullmatch(p, n) for p in stage.modules)]
        trained.append({id(p) for module in modules for p in module.parameters()})
    assert all(before < after for before, after in itertools.pairwise(trained))
    if trained:
        assert trained[-1] == {id(p) for p in captioner.model.parameters()}
    starts = [stage.start for stage in captioner.schedule]
    assert starts == sorted(starts)
    assert starts[:1] in ([], [0.0])


# ---------------------------------------------------------------- checkpoint


def test_any_changed_byte_changes_the_digest(
    captioner: HFCaptioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = captioner.digest()
    copy = twin_copy(captioner.name, tmp_path, monkeypatch)
    assert make(captioner.name).digest() == before, "where it lies does not matter"
    (copy / "README.md").write_text("not part of the checkpoint")
    assert make(captioner.name).digest() == before
    seen = {before}
    for file in sorted(copy.rglob("*.*")):
        if file.suffix in (".json", ".safetensors"):
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
            seen.add(make(captioner.name).digest())
    assert len(seen) > 4
    assert len(seen) == 1 + len([f for f in copy.rglob("*.*") if f.suffix in (".json", ".safetensors")])


def test_loading_twice_gives_the_same_weights(captioner: HFCaptioner) -> None:
    again = loaded(captioner.name).model.state_dict()
    for name, tensor in captioner.model.state_dict().items():
        assert torch.equal(tensor, again[name]), name
