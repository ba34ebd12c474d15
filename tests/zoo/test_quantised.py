"""Language layers in 4 and 8 bits (`dtype`), for every captioner of conf/model that takes LoRA."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from harness import config
from harness.cells import cell
from harness.cells.parts import build_parts
from harness.contracts import CapBenchError, Decoding, Query, Refused, RequestError, Training
from harness.training.fit import Fit
from harness.training.fit import examples as decoded
from harness.training.loss import caption_loss
from model_zoo.base import quantise
from model_zoo.base.captioner import HFCaptioner
from tests.support.captioners import (
    CONF,
    NAMES,
    SIBLINGS,
    TWINS,
    composed,
    examples,
    loaded,
    make,
    one_per_family,
    strategy,
)

bnb = pytest.importorskip("bitsandbytes", exc_type=ImportError)

VLMS = [name for name in NAMES if OmegaConf.load(CONF / f"{name}.yaml").kind != "baseline"]
SCHEMES = {"nf4": bnb.nn.Linear4bit, "int8": bnb.nn.Linear8bitLt}
SHORT = Decoding(max_new_tokens=16, repetition_penalty=1.0, batch_size=4)
CELLS = [
    pytest.param((name, scheme), marks=[pytest.mark.long] if name in SIBLINGS else [], id=f"{name}-{scheme}")
    for name in VLMS
    for scheme in SCHEMES
]


@pytest.fixture(scope="module", params=CELLS)
def captioner(request: pytest.FixtureRequest) -> Iterator[HFCaptioner]:
    name, scheme = request.param
    return loaded(name, dtype=scheme)


@cache
def queries() -> list[Query]:
    dataset = config.build(composed("dataset.train=8"), "dataset")
    return [Query(sample, "Describe this medical image.") for sample in dataset.load("train").samples]


def training(**changes) -> Training:
    values = {
        "epochs": 1.0, "batch_size": 4, "learning_rate": 5e-3, "max_steps": 4, "warmup": 0.0, "weight_decay": 0.0,
        "scheduler": "constant", "max_grad_norm": 1.0, "max_caption_tokens": 64, "micro_batch_size": None,
        "save_every": 2, "log_every": 1, "workers": 0,
    }  # fmt: skip
    return Training(**{**values, **changes})


def captions(captioner: HFCaptioner) -> list[str]:
    captioner.model.eval()
    return [made.caption for made in captioner.generate(decoded(queries()[:2]), SHORT)]


# ---------------------------------------------------------------- loading


def test_the_linear_layers_of_the_language_region_are_quantised_and_no_others(captioner):
    kind = SCHEMES[captioner.scheme]
    modules = dict(captioner.model.named_modules())
    plain = make(captioner.name).skeleton().named_modules()
    linear = {name: module.in_features for name, module in plain if isinstance(module, nn.Linear)}
    quantised = {name for name, module in modules.items() if isinstance(module, tuple(SCHEMES.values()))}
    language = {name for name in linear if captioner.region(name) == "language"}
    narrow = {name for name in language if kind is bnb.nn.Linear4bit and linear[name] % 32}
    assert quantised == language - narrow != set()
    assert narrow == set() or captioner.name == "idefics_9b", "its cross-attention reads a vision tower of 80 values"
    assert all(type(modules[name]) is kind for name in quantised)
    assert {modules[name].weight.dtype for name in quantised} == {
        torch.uint8 if kind is bnb.nn.Linear4bit else torch.int8
    }
    others = {p.dtype for n, p in captioner.model.named_parameters() if n.rpartition(".")[0] not in quantised}
    assert others == {torch.float32}
    assert {captioner.region(n) for n in linear.keys() - quantised} >= {"vision", "connector"}
    if kind is bnb.nn.Linear4bit:
        states = [modules[name].weight.quant_state for name in quantised]
        assert all(modules[name].in_features % modules[name].weight.quant_state.blocksize == 0 for name in quantised)
        assert {(s.quant_type, s.nested, s.blocksize) for s in states} <= {("nf4", True, size) for size in (32, 64)}
        assert {modules[name].compute_dtype for name in quantised} == {captioner.compute}


def test_weights_are_the_checkpoints_up_to_the_rounding_of_the_scheme(captioner):
    exact = dict(loaded(captioner.name).model.named_modules())
    for name, module in captioner.model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight, allowed = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state), 0.1
        elif isinstance(module, bnb.nn.Linear8bitLt):
            scales = module.state.SCB if module.weight.SCB is None else module.weight.SCB
            weight, allowed = module.weight.data * scales[:, None] / 127, 0.012
        else:
            continue
        error = (weight - exact[name].weight).norm() / exact[name].weight.norm()
        assert 0 < error < allowed, name


def test_a_batch_gives_the_captions_of_its_examples_alone(captioner):
    """LLM.int8() treats an activation column by the largest value of the whole batch."""
    batch = examples([None] * 3)
    together = captioner.generate(batch, SHORT)
    assert together == [captioner.generate([example], SHORT)[0] for example in batch]
    assert all(made.caption for made in together)


def test_counts_are_those_of_the_unquantised_model(captioner):
    for name in ("targeted", "hybrid"):
        built = strategy(name)
        assert built.plan(make(captioner.name, dtype=captioner.scheme)) == built.plan(make(captioner.name))


@pytest.mark.parametrize(("kept", "message"), [(0, "is not quantised"), (1, "must not be quantised")])
def test_a_layer_that_was_not_treated_as_planned_is_an_error(kept, message):
    captioner = loaded("smolvlm", dtype="nf4")
    names = list(captioner.quantisable())
    wrong = [*names, "lm_head"] if kept == 0 else names[1:]
    with pytest.raises(CapBenchError, match=f"{'lm_head' if kept == 0 else names[0]} {message}"):
        quantise.check(captioner.model, "nf4", wrong, "smolvlm")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_network_of_our_own_gets_the_layers_that_from_pretrained_would_make(scheme):
    expected = loaded("smolvlm", dtype=scheme)
    native = loaded("smolvlm")
    quantise.quantise(native.model, scheme, native.compute, expected.quantisable(), "cpu")
    native.dtype = scheme
    for name, value in expected.model.state_dict().items():
        assert torch.equal(native.model.state_dict()[name], value), name
    assert captions(native) == captions(expected)
    adapted = strategy("targeted")
    attached = adapted.attach(native, adapted.plan(make("smolvlm")))
    layer = attached.get_submodule(f"base_model.model.{next(iter(native.quantisable()))}")
    assert type(layer).__module__ == "peft.tuners.lora.bnb"


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(VLMS)))
def test_a_baseline_is_not_quantised(name):
    with pytest.raises(RequestError, match=r"model\.dtype: expected .*'nf4'"):
        config.build(config.cells("run", [f"model={name}", "model.dtype=nf4"])[0], "model")


# ---------------------------------------------------------------- training


def test_the_first_step_reaches_what_is_planned(captioner):
    own = loaded(captioner.name, dtype=captioner.scheme)
    hybrid = strategy("hybrid", "lora.dropout=0")
    plan = hybrid.plan(own)
    attached = hybrid.attach(own, plan).train()
    batch = own.collate(decoded(queries()[:2]), 64)
    labels = batch.pop("labels")
    loss = caption_loss(attached(**batch), labels)
    loss.backward()
    assert math.isfinite(loss.item())
    silent = [n for n, p in attached.named_parameters() if p.requires_grad and p.grad is None]
    assert all(any(f".{module}." in f".{n}" for module in own.unreached) for n in silent)
    deepest = next(name for name in own.quantisable() if name in plan.adapted)
    assert attached.get_submodule(f"base_model.model.{deepest}").lora_B["default"].weight.grad.any()


@pytest.mark.parametrize("name", [*one_per_family(VLMS), "smolvlm-int8"])
def test_a_fit_learns_is_resumed_and_comes_back(name, tmp_path):
    own = loaded(name.removesuffix("-int8"), dtype="int8" if name.endswith("-int8") else "nf4")
    targeted = strategy("targeted")
    plan = targeted.plan(own)
    before = captions(own)
    Fit(own, targeted, plan, queries()[:4], training(max_steps=1, save_every=1), 0, tmp_path).run()
    again = loaded(own.name, dtype=own.scheme)
    done = Fit(again, targeted, plan, queries()[:4], training(max_steps=6), 0, tmp_path).run()
    losses = pd.read_csv(tmp_path / "losses.csv")
    assert (done.steps, list(losses["step"])) == (6, list(range(1, 7)))
    assert losses["loss"].iloc[-1] < 0.9 * losses["loss"].iloc[0]
    assert captions(again) != before
    fresh = loaded(own.name, dtype=own.scheme)
    targeted.load(targeted.attach(fresh, plan), plan, tmp_path / "adapter")
    assert captions(fresh) == captions(again)


def test_dora_on_4_bit_layers_starts_at_the_base_and_trains(tmp_path):
    own, base = loaded("smolvlm", dtype="nf4"), loaded("smolvlm", dtype="nf4")
    dora = strategy("targeted", "lora.dora=true", "lora.dropout=0")
    plan = dora.plan(own)
    attached = dora.attach(own, plan)
    batch = base.collate(decoded(queries()[:2]), 64)
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(attached.eval()(**batch).logits, base.model(**batch).logits, atol=1e-3, rtol=1e-3)
    again = loaded("smolvlm", dtype="nf4")
    Fit(again, dora, plan, queries()[:4], training(max_steps=4), 0, tmp_path).run()
    losses = pd.read_csv(tmp_path / "losses.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0]


def test_dora_on_8_bit_layers_is_refused_on_a_cpu():
    captioner = loaded("smolvlm", dtype="int8")
    dora = strategy("targeted", "lora.dora=true")
    with pytest.raises(Refused, match=r"int8.*CUDA.*use model\.dtype=nf4"):
        dora.attach(captioner, dora.plan(captioner))


def test_quantised_layers_are_not_trained_in_full():
    captioner = loaded("smolvlm", dtype="nf4")
    built = strategy("hybrid", "lora.sites=[qkv]", "lora.full_sites=[mlp]")
    with pytest.raises(Refused, match=r"mlp\.\w+_proj\.weight is quantised.*model\.dtype=auto"):
        built.attach(captioner, built.plan(captioner))


def test_frozen_parts_keep_half_precision(tmp_path):
    """peft's usual preparation for 4-bit training would cast them to float32."""
    captioner = loaded("smolvlm", dtype="nf4", weights="hub", hub=str(TWINS / "smolvlm"))
    built = strategy("targeted")
    attached = built.attach(captioner, built.plan(captioner))
    frozen = {p.dtype for p in attached.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16, torch.uint8}
    Fit(captioner, built, built.plan(captioner), queries()[:4], training(max_steps=1), 0, tmp_path).run()


# ---------------------------------------------------------------- identity


def test_the_scheme_is_part_of_what_a_run_is(tmp_path):
    """The manifest of a whole cell says it; without metrics, which would take most of the time."""
    for dtype in ("nf4", "auto"):
        overrides = ["model=smolvlm", f"model.dtype={dtype}", "dataset.test=2", "lora=none", f"results={tmp_path}"]
        (one,) = config.cells("run", overrides)
        assert cell.run(build_parts(one, {})).status == "ok"
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/manifest.json")]
    assert {m["config"]["model"]["dtype"] for m in manifests} == {"nf4", "auto"}
    assert len({m["identity"]["fit"] for m in manifests}) == 2
    assert len({m["row"]["params_total"] for m in manifests}) == 1


def test_an_adapter_is_not_merged_into_quantised_weights():
    captioner, used = loaded("smolvlm", dtype="nf4"), strategy("targeted")
    model = used.attach(captioner, used.plan(captioner))
    with pytest.raises(Refused, match="load unquantised"):
        used.merge(model)
