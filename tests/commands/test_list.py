"""`capbench list` shows every choice, with what is found of it."""

import subprocess
import sys

import pytest
import yaml

from harness.choices import conf_dir, groups
from harness.cli import main
from harness.commands.list import KINDS
from model_zoo._found import found, whereabouts
from tests.support.captioners import make
from tests.support.commands import clean


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_is_listed(kind, capsys):
    assert main(["list", kind]) == 0
    text = capsys.readouterr().out
    for name in groups()[KINDS[kind]]:
        assert name in text


def test_models_say_what_is_found_of_their_checkpoints(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["list", "models"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "HuggingFaceTB/SmolVLM-500M-Instruct" in text
    assert "local" not in text


HEAVY = {"torch", "transformers", "pandas", "peft", "hydra", "omegaconf", "pydantic", "scipy", "medcat", "requests"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["list"]])
def test_help_and_list_import_nothing_heavy(arguments):
    code = (
        f"import sys; from harness.cli import main; assert main({arguments}) == 0; print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean(), capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "harness" in loaded
    assert not loaded & (HEAVY if arguments == ["list"] else HEAVY | {"rich", "numpy", "yaml", "logging"})


def test_what_is_found_of_the_checkpoints_is_what_the_captioners_say(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for path in sorted((conf_dir() / "model").glob("*.yaml")):
        node = yaml.safe_load(path.read_text())
        assert found(node) == make(path.stem, weights="hub").found(), path.stem


def test_a_checkpoint_in_the_cache_is_found_by_its_revision(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert whereabouts("owner/name", None).startswith("not here")
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert whereabouts("owner/name", None).startswith("not here"), "nothing says that this is the main branch"
    assert whereabouts("owner/name", "abc") == "in the cache"
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    assert whereabouts("owner/name", None) == "in the cache"
    assert whereabouts("owner/name", "v2").startswith("not here")
    assert whereabouts(str(tmp_path), None) == "local"


@pytest.mark.parametrize(
    ("text", "words"),
    [("_target_: [", "cannot be read"), ("a: 1", "expected `_target_"), ("_target_: no.such.Thing", "PYTHONPATH")],
)
def test_a_yaml_that_cannot_be_listed_is_named(text, words, tmp_path, capsys):
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt" / "mine.yaml").write_text(text)
    assert main(["list", "prompts", "--config-dir", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_an_incomplete_protocol_is_listed_with_what_it_has(tmp_path, capsys):
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "mine.yaml").write_text("_target_: harness.contracts.ScoreProtocol\nname: mine\n")
    assert main(["list", "protocols", "--config-dir", str(tmp_path)]) == 0
    assert "lacks one" in capsys.readouterr().out
