"""`capbench doctor`: every captioner is healthy, and each way of being ill is found."""

from collections.abc import Callable
from functools import partial

import pandas as pd
import pytest
import torch

from harness.choices import groups
from harness.cli import main
from harness.contracts import Captioner, Decoding, Example, Refused
from harness.inference import parity
from harness.inference.parity import Finding, ParityCase, check_adapter, check_batches
from tests.support.captioners import loaded, make, one_per_family, picture, strategy

MODELS = groups()["model"]
SIZES = [(128, 128), (96, 200), (40, 30), (300, 128)]
GREEDY = Decoding(max_new_tokens=12, repetition_penalty=1.0, batch_size=4)


def case(model: str) -> ParityCase:
    pictures = [picture(*size, seed=place) for place, size in enumerate(SIZES)]
    return ParityCase(loaded(model), [Example((image,), "Describe this medical image.") for image in pictures], GREEDY)


def fresh(model: str) -> Captioner:
    captioner = make(model)
    captioner.load("cpu")
    return captioner


def adapter(ill: ParityCase, used, tmp_path) -> dict[str, Finding]:
    return {f.check: f for f in check_adapter(ill, used, partial(fresh, ill.captioner.name), tmp_path)}


@pytest.mark.parametrize("model", one_per_family(MODELS))
def test_batches_and_padding_change_nothing(model):
    findings = list(check_batches(case(model)))
    assert {f.check for f in findings} == ({"batch", "padding"} if make(model).prompted else {"batch"})
    assert [f for f in findings if f.verdict != "same"] == []


@pytest.mark.parametrize("lora", ["targeted", "hybrid", "full"])
@pytest.mark.parametrize("model", one_per_family(MODELS))
def test_merging_and_reloading_change_nothing(model, lora, tmp_path):
    used = strategy(lora)
    try:
        used.plan(make(model))
    except Refused:
        pytest.skip("refused, see tests/plugins/test_strategies.py")
    findings = adapter(case(model), used, tmp_path)
    assert set(findings) == ({"reloaded"} if lora == "full" else {"merged", "reloaded"})
    assert [f for f in findings.values() if f.verdict != "same"] == []


def test_fill_that_is_attended_to_is_found(monkeypatch):
    ill = case("smolvlm")
    right = ill.captioner.prompts
    monkeypatch.setattr(
        ill.captioner,
        "prompts",
        lambda rows: {**right(rows), "attention_mask": torch.ones_like(right(rows)["input_ids"])},
    )
    findings = {f.check: f for f in check_batches(ill)}
    assert findings["padding"].verdict == "differs"
    assert not findings["padding"].healthy
    assert "became" in findings["padding"].first


def test_an_adapter_that_loads_as_nothing_is_found(monkeypatch, tmp_path):
    used = strategy("targeted")
    monkeypatch.setattr(used, "load", lambda *_: None)
    assert adapter(case("smolvlm"), used, tmp_path)["reloaded"].verdict == "differs"


def test_a_merge_that_drops_the_adapter_is_found(monkeypatch, tmp_path):
    used = strategy("targeted")
    monkeypatch.setattr(used, "merge", lambda model: model.unload())
    assert adapter(case("smolvlm"), used, tmp_path)["merged"].verdict == "differs"


def test_an_adapter_without_effect_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(parity, "NOISE", 0.0)
    found = adapter(case("smolvlm"), strategy("targeted"), tmp_path)
    assert [f.verdict for f in found.values()] == ["dead"]


@pytest.mark.parametrize(
    ("differs", "tied", "verdict"), [(1e-6, True, "near tie"), (1e-6, False, "differs"), (1.0, True, "differs")]
)
def test_only_a_near_tie_may_change_a_token(differs: float, tied: bool, verdict: str) -> None:
    """A token may flip where two logits lie closer than the rounding that is seen, and nowhere else."""
    from harness.inference.parity import Outputs, compared

    ill = case("smolvlm")
    one, other = "Normal chest.", "Normal head."
    ids, others = ill.answer(one), ill.answer(other)
    logits = torch.zeros(len(ids), 700)
    place = next(n for n, pair in enumerate(zip(ids, others, strict=False)) if pair[0] != pair[1])
    logits[place, ids[place]] = 10.0
    logits[place, others[place]] = 10.0 - (1e-6 if tied else 1.0)
    spoken: Callable[[str, float], Outputs] = lambda text, shift: Outputs([text], [logits.double() + shift])  # noqa: E731
    finding = compared("batch", ill, [one], spoken(one, 0.0), spoken(other, differs))
    assert finding.verdict == verdict
    assert f"token {place + 1}: " in finding.first


def test_the_command_prints_and_writes_what_it_finds(tmp_path, capsys):
    out = tmp_path / "doctor.csv"
    overrides = ["model=smolvlm,cnn_transformer", "samples=2", "generate.max_new_tokens=8", f"out={out}"]
    assert main(["doctor", *overrides]) == 0
    table = pd.read_csv(out)
    assert list(zip(table["model"], table["check"], strict=True)) == [
        ("smolvlm", "batch"), ("smolvlm", "padding"), ("smolvlm", "merged"), ("smolvlm", "reloaded"),
        ("cnn_transformer", "batch"), ("cnn_transformer", "reloaded"),
    ]  # fmt: skip
    assert set(table["strategy"]) == {"targeted", "full"}
    text = capsys.readouterr().out
    assert "transformers 4." in text
    assert "GiB free" in text


def test_a_checkpoint_that_is_not_there_is_a_finding(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "doctor.csv"
    overrides = ["model=smolvlm", "weights=hub", f"model.hub={tmp_path / 'nowhere'}", f"out={out}"]
    assert main(["doctor", *overrides]) == 1
    assert pd.read_csv(out)["verdict"].tolist() == ["failed"]


def test_a_batch_of_one_is_refused(capsys):
    assert main(["doctor", "samples=1"]) == 2
    assert "expected 2 or more" in capsys.readouterr().err
