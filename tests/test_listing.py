"""`capbench list` shows every choice, with what is found of it."""

import pytest

from harness.cli import main
from harness.listing import KINDS
from harness.registry import groups


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
