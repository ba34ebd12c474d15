"""What is wrong with a checkpoint is said before anything is computed with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import huggingface_hub.errors
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.contracts import RequestError
from model_zoo.base import checkpoint
from model_zoo.base.checkpoint import Source, digest, resolve
from tests.support.captioners import examples, make, twin_copy


@pytest.fixture
def twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return twin_copy("smolvlm", tmp_path, monkeypatch)


def test_a_checkpoint_of_another_architecture(twin: Path) -> None:
    config = json.loads((twin / "config.json").read_text())
    (twin / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    with pytest.raises(RequestError, match="expected a checkpoint of the architecture 'idefics3', got 'llava'"):
        make("smolvlm").load("cpu")


def test_a_pickle_in_place_of_safetensors(twin: Path) -> None:
    weights = twin / "model.safetensors"
    torch.save(load_file(weights), twin / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(RequestError, match=r"found the pickle pytorch_model\.bin, which can run code"):
        make("smolvlm").load("cpu")
    (twin / "pytorch_model.bin").rename(weights)
    with pytest.raises(RequestError, match=r"model\.safetensors: a pickle under the name"):
        make("smolvlm").load("cpu")


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_truncated_file(twin: Path, kept: int) -> None:
    weights = twin / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(RequestError, match=r"model\.safetensors: not a complete safetensors file"):
        make("smolvlm").load("cpu")


def test_a_missing_an_unknown_and_a_misshapen_weight(twin: Path) -> None:
    weights = twin / "model.safetensors"
    state = load_file(weights)
    key = "model.connector.modality_projection.proj.weight"
    for spoiled, message in (
        ({k: v for k, v in state.items() if k != key}, f"lacks key {key}"),
        (state | {"model.text_model.layers.9.extra": torch.zeros(1)}, "unknown key model.text_model.layers.9.extra"),
        (state | {key: torch.zeros(3, 4)}, rf"{key} has another shape than the \(96, 256\)"),
    ):
        save_file(spoiled, weights, {"format": "pt"})
        with pytest.raises(RequestError, match=message):
            make("smolvlm").load("cpu")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "expected config.json"),
        ("tokenizer.json", "expected tokenizer.json"),
        ("preprocessor_config.json", "expected preprocessor"),
    ],
)
def test_a_missing_file(twin: Path, file: str, message: str) -> None:
    (twin / file).unlink()
    captioner = make("smolvlm")
    with pytest.raises(RequestError, match=message):
        captioner.collate(examples([""]), 5) if file != "config.json" else captioner.load("cpu")


def test_broken_json(twin: Path) -> None:
    (twin / "config.json").write_text('{"model_type": ')
    with pytest.raises(RequestError, match="not valid JSON"):
        make("smolvlm").skeleton()


def test_a_missing_twin_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no embedded twin none; there are .*smolvlm.*weights=hub"):
        resolve("none", "embedded", Source("owner/name", None))
    with pytest.raises(RequestError, match="no embedded twin smolvlm/none"):
        resolve("smolvlm", "embedded", Source("owner/name", None, "none"))
    for missing in (str(tmp_path / "none"), "./none", "a/b/c", "none"):
        with pytest.raises(RequestError, match="existing folder"):
            resolve("smolvlm", "hub", Source(missing, None))


def test_a_local_folder_stands_for_the_hub(tmp_path: Path) -> None:
    assert resolve("smolvlm", "hub", Source(str(tmp_path), None)) == tmp_path


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.LocalEntryNotFoundError("x"), "not in the cache and the hub cannot be reached"),
        (huggingface_hub.errors.HFValidationError("bad id"), "bad id; check the id"),
        (huggingface_hub.errors.OfflineModeIsEnabled("offline mode"), "offline mode; check the id"),
    ],
)
def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(checkpoint, "snapshot_download", fail)
    with pytest.raises(RequestError, match=f"cannot get owner/name at abc.*{message}.*local folder"):
        resolve("smolvlm", "hub", Source("owner/name", "abc"))


def test_a_download_asks_for_what_is_read_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def download(hub: str, **options: object) -> str:
        asked.append((hub, options["revision"], options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    captioner = make("smolvlm", weights="hub", revision="abc")
    with pytest.raises(RequestError, match=r"expected config\.json"):
        captioner.skeleton()
    with pytest.raises(RequestError, match=r"expected preprocessor_config\.json"):
        captioner.answer("", 5)
    hub = "HuggingFaceTB/SmolVLM-500M-Instruct"
    weights = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    assert asked == [(hub, "abc", ["config.json"]), (hub, "abc", weights)]


def test_the_digest_covers_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "weights.bin").write_text("never read")
    content = len(b"config.json").to_bytes(8, "little") + b"config.json" + hashlib.sha256(b"{}").digest()
    assert digest(tmp_path) == hashlib.sha256(content).hexdigest()
    (tmp_path / "config.json").rename(tmp_path / "tokenizer.json")
    assert digest(tmp_path) != hashlib.sha256(content).hexdigest()
