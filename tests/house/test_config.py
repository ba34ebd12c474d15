"""The conf/ tree as the registry: everything composes and builds, everything wrong gets one clear line."""

import dataclasses
import subprocess
import sys
from functools import cache
from typing import get_type_hints

import pytest

from harness import config
from harness.cells.parts import GROUPS, Settings
from harness.choices import conf_dir, groups
from harness.cli import main
from harness.contracts import Decoding, RequestError, Training
from tests.support.commands import ROOT

PLUGINS = [(group, name) for group in GROUPS for name in groups()[group]]


def test_every_yaml_belongs_to_a_group_or_is_a_command():
    files = list(conf_dir().rglob("*.yaml"))
    assert len(files) == sum(len(names) for names in groups().values()) + len(list(conf_dir().glob("*.yaml")))
    assert {"smolvlm", "visiongpt2", "cnn_transformer"} <= set(groups()["model"])


@pytest.mark.parametrize(("group", "name"), PLUGINS, ids=[f"{g}={n}" for g, n in PLUGINS])
@pytest.mark.parametrize("weights", ["embedded", "hub"])
def test_every_choice_composes_builds_and_is_named_like_its_file(group, name, weights):
    extra = ["dataset.path=captions.csv"] if name == "table" else []
    cell = config.cells("run", [f"{group}={name}", f"weights={weights}", *extra])[0]
    built = config.build(cell, group)
    if group not in ("train", "generate"):
        assert built.name == name


@pytest.mark.parametrize("name", groups()["protocol"])
def test_every_protocol_names_metrics_that_build(name):
    protocol = config.build_node(config.choice("protocol", name), "protocol")
    assert protocol.name == name
    for column, spec in protocol.columns.items():
        metric = config.build_node(config.choice("metric", spec["metric"]), "metric")
        assert spec["value"] in metric.values, column
    known = set(protocol.columns)
    for average, parts in protocol.averages.items():
        assert set(parts) <= known, average
        known.add(average)


@cache
def experiment(name):
    """Its cells; composing dozens takes seconds."""
    return config.cells("run", [f"experiment={name}"])


@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_experiment_composes(name):
    cells = experiment(name)
    assert cells
    for cell in cells:
        config.settings(cell, Settings)


def test_the_demo_is_every_model_with_every_strategy_of_the_comparison():
    cells = experiment("demo")
    assert {c.choices["model"] for c in cells} == set(groups()["model"])
    assert {c.choices["lora"] for c in cells} == {"none", "targeted", "full"}
    assert {c.choices["control"] for c in cells} == set(groups()["control"])


def test_what_is_typed_replaces_the_axis_of_an_experiment():
    cells = config.cells("run", ["experiment=demo", "model=smolvlm", "lora=none", "control=none"])
    assert [dict(c.choices)["model"] for c in cells] == ["smolvlm"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=smolvlmm"], ["model=smolvlmm", "no such choice", "did you mean 'smolvlm'"]),
        (["modle=smolvlm"], ["modle", "no such key", "did you mean 'model'"]),
        (["train.epoch=2"], ["train.epoch", "did you mean 'train.epochs'"]),
        (["lora=none,targeted"], ["lora=none,targeted", "add -m"]),
        (["smolvlm"], ["smolvlm", "KEY=VALUE"]),
        (["seed=[1"], ["seed=[1: cannot be read"]),
        (["dataset=table"], ["dataset.path"]),
        (["dataset=rocov2"], ["dataset.root", "dataset.hub"]),
        (["dataset=imageclef"], ["dataset.root"]),
        (["lora=none", "lora.rank=4"], ["lora.rank", "not every choice of 'lora'"]),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(overrides, words):
    with pytest.raises(RequestError) as caught:
        config.build(config.cells("run", overrides)[0], "dataset").load("test")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("overrides", "group", "words"),
    [
        (["train.epochs=abc"], "train", ["train.epochs", "expected float", "'abc'"]),
        (["train.batch_size=2.5"], "train", ["train.batch_size", "expected int", "2.5"]),
        (["train.epochs=-1"], "train", ["train.epochs", "more than 0"]),
        (["train.batch_size=0"], "train", ["train.batch_size", "1 or more"]),
        (["train.warmup=2"], "train", ["train.warmup", "0 to 1"]),
        (["train.batch_size=16", "train.micro_batch_size=5"], "train", ["divisor", "16", "5"]),
        (["train.scheduler=step"], "train", ["train.scheduler", "linear"]),
        (["generate.max_new_tokens=yes"], "generate", ["generate.max_new_tokens", "expected int"]),
        (["lora.rank=0"], "lora", ["lora.rank", "1 or more"]),
        (["lora.alpha=0"], "lora", ["lora.alpha", "1 or more"]),
        (["model._target_=model_zoo.smolvlm.SmolVLMM"], "model", ["has no SmolVLMM; did you mean 'SmolVLM'"]),
        (["+lora.rnak=4"], "lora", ["lora.rnak", "did you mean 'rank'"]),
        (["dataset.style=medical"], "dataset", ["dataset.style", "radiology"]),
        (["model._target_=model_zoo.nothing.Model"], "model", ["cannot be imported", "PYTHONPATH"]),
        (["model._target_=null"], "model", ["_target_"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(overrides, group, words):
    with pytest.raises(RequestError) as caught:
        config.build(config.cells("run", overrides)[0], group)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "word"),
    [
        *(("seed=abc", "seed"), ("seed=-1", "seed"), ("metrics=rouge1", "metrics")),
        *(("threads=x", "threads"), ("threads=0", "threads"), ("features_gb=-1", "features_gb")),
    ],
)
def test_a_wrong_root_value_is_refused(override, word):
    with pytest.raises(RequestError, match=f"^{word}: expected"):
        config.settings(config.cells("run", [override])[0], Settings)


def test_a_missing_value_is_named():
    node = {k: v for k, v in config.cells("run", [])[0].config["lora"].items() if k != "rank"}
    with pytest.raises(RequestError, match="lora.rank: no value"):
        config.build_node(node, "lora")


def test_every_option_of_the_stages_is_classed_and_runtime_ones_are_these():
    """A new option must be put on one side on purpose: change this list only with a reason."""
    runtime = {
        f"{schema.__name__}.{field.name}"
        for schema in (Training, Decoding)
        for field in dataclasses.fields(schema)
        if config.is_runtime(get_type_hints(schema, include_extras=True)[field.name])
    }
    assert runtime == {
        "Training.micro_batch_size",
        "Training.save_every",
        "Training.log_every",
        "Training.workers",
        "Training.gradient_checkpointing",  # the same update, with less memory
        "Decoding.batch_size",
        "Decoding.kv_cache",  # where keys and values lie, not what they are
    }


def test_runtime_values_do_not_enter_an_identity():
    node = config.cells("run", ["generate.batch_size=3"])[0].config["generate"]
    assert "batch_size" not in config.identity_values(node)
    assert config.identity_values(node)["max_new_tokens"] == node["max_new_tokens"]


def test_a_users_own_folder_joins_the_choices(tmp_path):
    (tmp_path / "prompt").mkdir()
    text = (conf_dir() / "prompt" / "plain.yaml").read_text()
    (tmp_path / "prompt" / "mine.yaml").write_text(text.replace('name: "plain"', 'name: "mine"'))
    cell = config.cells("run", ["prompt=mine"], config_dir=str(tmp_path))[0]
    assert config.build(cell, "prompt").name == "mine"
    with pytest.raises(RequestError, match="expected a folder"):
        config.cells("run", [], config_dir=str(tmp_path / "nowhere"))


def test_hydra_leaves_no_litter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.cells("run", ["lora=none,targeted"], multirun=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], ["rum", "no such command", "run"]),
        (["run", "model=nothing"], ["model=nothing", "smolvlm"]),
        (["run", "--workers", "3"], ["--workers", "no such flag"]),
        (["run", "device=tpu"], ["device=tpu"]),
        (["score", "captions=nowhere.csv", "references=nowhere.csv"], ["nowhere.csv", "found none"]),
        (["list", "modles"], ["modles", "models"]),
        (["leaderboard", "results=nowhere"], ["nowhere", "capbench run"]),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["run", "score", "leaderboard", "list"])
def test_help_helps(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: capbench {command}" in text
    if command == "run":
        assert "smolvlm" in text


def test_help_loads_nothing_heavy():
    heavy = ("torch", "hydra", "pandas", "rich", "numpy")
    code = (
        f"import sys; from harness.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
