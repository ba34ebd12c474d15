"""Contract of a strategy on every captioner: exactly what is planned trains, and what is saved comes back."""

import math
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import config
from harness.choices import groups
from harness.contracts import CapBenchError, Decoding, Query, Refused, RequestError, Training
from harness.training.fit import Fit, examples
from harness.training.loss import caption_loss
from tests.support.captioners import SIBLINGS, composed
from tests.support.captioners import strategy as named

CELLS = [(model, lora) for model in groups()["model"] for lora in groups()["lora"]]


def few(shown) -> list:
    """Cells as parameters of a test, those that another one of the same code shows marked long."""
    return [cell if shown(*cell) else pytest.param(*cell, marks=pytest.mark.long) for cell in CELLS]


def planned_apart(model: str, lora: str) -> bool:
    """A family by each strategy; its siblings by the one whose sites are their own."""
    return model not in SIBLINGS or lora == "paper"


def fitted_apart(model: str, lora: str) -> bool:
    """Adapters and whole modules on each family; other sites of the same class on one captioner."""
    return model == "smolvlm" or (model not in SIBLINGS and lora not in ("extended", "paper"))


@cache
def samples(count: int):
    dataset = config.build(composed(f"dataset.train={count}"), "dataset")
    return dataset.load("train").samples


def build(model: str, lora: str, *overrides: str):
    return config.build(composed(f"model={model}"), "model"), named(lora, *overrides)


def planned(model: str, lora: str, *overrides: str):
    """A loaded captioner with its strategy and plan; skips what the pair refuses."""
    captioner, strategy = build(model, lora, *overrides)
    try:
        plan = strategy.plan(captioner)
    except Refused:
        pytest.skip("refused, see test_a_refusal_says_what_to_do_instead")
    captioner.load("cpu")
    return captioner, strategy, plan


def queries(count: int = 8) -> list[Query]:
    return [Query(sample, "Describe this medical image.") for sample in samples(count)]


def training(**changes) -> Training:
    values = {
        "epochs": 1.0, "batch_size": 4, "learning_rate": 1e-3, "max_steps": 4, "warmup": 0.0, "weight_decay": 0.0,
        "scheduler": "constant", "max_grad_norm": 1.0, "max_caption_tokens": 64, "micro_batch_size": None,
        "save_every": 2, "log_every": 1, "workers": 0,
    }  # fmt: skip
    return Training(**{**values, **changes})


def captions(captioner) -> list[str]:
    decoding = Decoding(max_new_tokens=16, repetition_penalty=1.0, batch_size=4)
    return [made.caption for made in captioner.generate(examples(queries(4)), decoding)]


@pytest.mark.parametrize(("model", "lora"), CELLS)
def test_a_plan_names_existing_modules_and_counts_what_trains(model, lora):
    captioner, strategy, plan = planned(model, lora)
    names = {name for name, _ in captioner.model.named_modules()}
    assert set(plan.adapted) | set(plan.trained) <= names
    attached = strategy.attach(captioner, plan)
    trainable = {name: p for name, p in attached.named_parameters() if p.requires_grad}
    if not strategy.trains:
        assert plan.params_trained == 0
        return
    assert sum(p.numel() for p in trainable.values()) == plan.params_trained > 0
    if plan.adapted:
        assert all("lora_" in name or "modules_to_save" in name for name in trainable)
        added = ("lora_", "modules_to_save")
        frozen = [p for n, p in captioner.model.named_parameters() if not any(word in n for word in added)]
        assert plan.params_total == sum(p.numel() for p in frozen)
        assert plan.params_added == sum(p.numel() for n, p in trainable.items() if "lora_" in n)


@pytest.mark.parametrize(("model", "lora"), few(planned_apart))
def test_one_step_has_a_finite_loss_and_gradients_where_planned(model, lora):
    captioner, strategy, plan = planned(model, lora)
    if not strategy.trains:
        pytest.skip("trains nothing")
    attached = strategy.attach(captioner, plan)
    batch = captioner.collate(examples(queries(4)), 64)
    labels = batch.pop("labels")
    loss = caption_loss(attached(**batch), labels)
    loss.backward()
    assert math.isfinite(loss.item())
    silent = [n for n, p in attached.named_parameters() if p.requires_grad and p.grad is None]
    # Counted as published, though the model drops their output: nothing else may stay without a gradient.
    unreached = [n for n in silent if any(f".{module}." in f".{n}" for module in captioner.unreached)]
    assert silent == unreached
    assert bool(unreached) == any(name.startswith(tuple(captioner.unreached)) for name in plan.adapted)


@pytest.mark.parametrize(("model", "lora"), few(fitted_apart))
def test_what_is_saved_comes_back_and_gives_the_same_captions(model, lora, tmp_path):
    captioner, strategy, plan = planned(model, lora)
    if not strategy.trains:
        pytest.skip("trains nothing")
    before = captions(captioner)
    done = Fit(captioner, strategy, plan, queries(), training(learning_rate=5e-3), 0, tmp_path).run()
    assert done.steps == 4
    captioner.model.eval()
    fitted = captions(captioner)
    assert fitted != before
    assert {p.suffix for p in (tmp_path / "adapter").iterdir()} <= {".safetensors", ".json"}
    fresh, _ = build(model, lora)
    fresh.load("cpu")
    attached = strategy.attach(fresh, plan)
    strategy.load(attached, plan, tmp_path / "adapter")
    fresh.model.eval()
    assert captions(fresh) == fitted


@pytest.mark.parametrize(
    ("model", "lora"), [("visiongpt2", "targeted"), ("cnn_transformer", "targeted"), ("smolvlm", "full")]
)
def test_a_refusal_says_what_to_do_instead(model, lora):
    captioner, strategy = build(model, lora)
    with pytest.raises(Refused, match=r"refused.*use"):
        strategy.plan(captioner)


def test_a_site_that_matches_nothing_is_an_error():
    captioner, strategy = build("smolvlm", "targeted", "lora.sites=[qkv,mm_projector]")
    with pytest.raises(RequestError, match="no site 'mm_projector'; it has qkv"):
        strategy.plan(captioner)


def test_strategies_differ_in_what_they_train():
    plans = {
        lora: build("smolvlm", lora)[1].plan(build("smolvlm", lora)[0]) for lora in ("targeted", "extended", "hybrid")
    }
    targeted, extended, hybrid = plans.values()
    assert set(targeted.adapted) < set(extended.adapted)
    assert any(name.endswith("o_proj") for name in extended.adapted)
    assert hybrid.adapted == targeted.adapted
    assert set(hybrid.counts) == {*targeted.counts, "head", "embeddings"}
    captioner, _, _ = planned("smolvlm", "hybrid")
    whole = sum(p.numel() for n in hybrid.trained for p in captioner.model.get_submodule(n).parameters())
    assert hybrid.params_trained == targeted.params_trained + whole


def test_dora_adds_one_magnitude_per_output(tmp_path):
    captioner, strategy, plan = planned("smolvlm", "targeted", "lora.dora=true")
    plain = build("smolvlm", "targeted")[1].plan(captioner)
    modules = dict(captioner.skeleton().named_modules())
    assert plan.params_trained - plain.params_trained == sum(modules[name].out_features for name in plan.adapted)
    assert Fit(captioner, strategy, plan, queries(), training(max_steps=1), 0, tmp_path).run().steps == 1


def test_lora_counts_are_rank_times_in_plus_out():
    captioner, strategy = build("smolvlm", "targeted")
    plan = strategy.plan(captioner)
    modules = dict(captioner.skeleton().named_modules())
    expected = sum(strategy.rank * sum(modules[name].weight.shape) for name in plan.adapted)
    assert plan.params_trained == expected
    assert set(plan.counts) == {"vision", "connector", "language"}


@pytest.mark.parametrize("fault", ["missing", "changed", "dead"])
def test_an_adapter_that_does_not_arrive_is_refused(fault, tmp_path):
    """Adapters can load as nothing (huggingface/peft #2586): each way to lose one is an error here."""
    captioner, strategy, plan = planned("smolvlm", "targeted")
    attached = strategy.attach(captioner, plan)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in attached.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    strategy.save(attached, plan, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    saved = load_file(path)
    first = sorted(saved)[0]
    if fault == "missing":
        saved.pop(first)
    elif fault == "changed":
        saved[f"{first}.of_another_version"] = saved.pop(first)
    else:
        saved = {name: torch.zeros_like(t) if "lora_B" in name else t for name, t in saved.items()}
    save_file(saved, path)
    fresh, _ = build("smolvlm", "targeted")
    fresh.load("cpu")
    with pytest.raises(CapBenchError, match="did not arrive"):
        strategy.load(strategy.attach(fresh, plan), plan, tmp_path)


def test_progressive_stages_unfreeze_in_order(tmp_path):
    captioner, strategy, plan = planned("cnn_transformer", "full")
    attached = strategy.attach(captioner, plan)
    counts = []
    for share, _ in plan.schedule:
        strategy.unfreeze(attached, plan, share)
        counts.append(sum(p.numel() for p in attached.parameters() if p.requires_grad))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == plan.params_trained


def test_frozen_parts_stay_as_they_are_until_their_stage(tmp_path):
    captioner, strategy, plan = planned("cnn_transformer", "full")
    before = {name: p.detach().clone() for name, p in captioner.model.named_parameters()}
    first = plan.schedule[0][1]
    plan = type(plan)(**{**plan.__dict__, "schedule": ((0.0, first), (0.99, plan.trained))})
    Fit(captioner, strategy, plan, queries(), training(), 0, tmp_path).run()
    moved = {name for name, p in captioner.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(any(name.startswith(f"{prefix}.") for prefix in first) for name in moved)


def test_accumulated_micro_batches_give_the_update_of_the_large_batch(tmp_path):
    import pandas as pd

    losses = []
    for micro in (None, 2):
        captioner, strategy, plan = planned("smolvlm", "targeted", "lora.dropout=0.0")
        folder = tmp_path / str(micro)
        Fit(captioner, strategy, plan, queries(), training(micro_batch_size=micro), 0, folder).run()
        losses.append(pd.read_csv(folder / "losses.csv")["loss"])
    assert losses[0].to_numpy() == pytest.approx(losses[1].to_numpy(), abs=2e-4)


def test_the_loss_looks_at_supervised_positions_only():
    """Against a plain loop over positions."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7)
    labels = torch.tensor([[-100, -100, 3, 4, -100], [-100, 1, 2, -100, -100]])
    expected = [
        -torch.log_softmax(logits[row, place - 1], -1)[labels[row, place]]
        for row in range(2)
        for place in range(1, 5)
        if labels[row, place] != -100
    ]
    outputs = type("Outputs", (), {"logits": logits})
    assert caption_loss(outputs, labels).item() == pytest.approx(torch.stack(expected).mean().item())
    logits[0, 0] += 100  # predicts an unsupervised position
    assert caption_loss(outputs, labels).item() == pytest.approx(torch.stack(expected).mean().item())


def test_captions_that_are_cut_are_counted(tmp_path):
    captioner, strategy, plan = planned("smolvlm", "targeted")
    done = Fit(captioner, strategy, plan, queries(), training(max_caption_tokens=5, max_steps=1), 0, tmp_path).run()
    assert done.captions_cut == 8


def test_a_training_split_without_samples_is_refused(tmp_path):
    captioner, strategy, plan = planned("smolvlm", "targeted")
    with pytest.raises(RequestError, match="no usable sample"):
        Fit(captioner, strategy, plan, [], training(), 0, tmp_path).run()


def test_a_fit_that_breaks_gives_the_terminal_back(tmp_path, monkeypatch):
    """A bar that an error leaves behind would go on drawing over what later cells print, with the cursor hidden."""
    from rich.console import Console

    from harness.machine import terminal

    screen = (tmp_path / "screen").open("w")
    monkeypatch.setattr(terminal, "errors", Console(force_terminal=True, file=screen))
    captioner, strategy, plan = planned("smolvlm", "targeted")

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(captioner, "collate", broken)
    with pytest.raises(RuntimeError, match="broken") as caught:  # keeps the frames alive, as a debugger would
        Fit(captioner, strategy, plan, queries(), training(), 0, tmp_path).run()
    screen.flush()
    text = (tmp_path / "screen").read_text()
    assert caught.tb is not None
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "cursor hidden once, shown once"
