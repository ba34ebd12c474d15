"""Weights of a checkpoint: read safely, and every key accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from re import fullmatch
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.contracts import RequestError

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_tensors(file: Path, what: str, *, mmap: bool = False) -> dict[str, Tensor]:
    """Tensors of a safetensors file or a pickle, also under "state_dict"; what they are is told by the content.

    mmap: of a file that holds much that is not wanted, such as the state of an optimizer. Raises RequestError.
    """
    with file.open("rb") as stream:
        start = stream.read(9)  # of safetensors: the length of a JSON header, whose bytes can be a pickle's, then "{"
    pickled = start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap) if pickled else load_file(file)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise RequestError(
            f"{file}: expected {what}, but the file cannot be read safely ({type(error).__name__}); "
            "get the checkpoint again"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise RequestError(f'{file}: expected a dictionary of tensors, or one under "state_dict", found neither')
    return dict(state)


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: Path,
    origin: str = "its configuration",
    may_lack: str = "",
    *,
    assign: bool = False,
) -> None:
    """Load tensors and refuse whatever does not fit. origin: what the shapes come from, for the message."""
    own = module.state_dict()
    check_keys(source, own.keys() - tensors.keys(), tensors.keys() - own.keys(), may_lack)
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            shape = tuple(own[key].shape)
            raise RequestError(f"{source}: {key} has the shape {tuple(value.shape)}, {origin} says {shape}")
    module.load_state_dict(tensors, strict=False, assign=assign)


def check_loaded(
    source: Path, model: nn.Module, info: Mapping[str, Any], may_lack: str = "", may_ignore: str = ""
) -> None:
    """Refuse half a model, which transformers fills with noise. info: what `from_pretrained` says of the loading."""
    if info["mismatched_keys"]:
        key = min(info["mismatched_keys"])
        expected = tuple(model.state_dict()[key].shape)
        raise RequestError(f"{source}: {key} has another shape than the {expected} that config.json asks for")
    check_keys(source, info["missing_keys"], info["unexpected_keys"], may_lack, may_ignore)


def check_keys(
    source: Path, missing: Iterable[str], unexpected: Iterable[str], may_lack: str = "", may_ignore: str = ""
) -> None:
    """Refuse a checkpoint that does not fit, naming a key. `may_lack`, `may_ignore`: patterns over full key names."""
    for kind, keys, allowed in (("lacks", missing, may_lack), ("has the unknown", unexpected, may_ignore)):
        wrong = sorted(key for key in keys if not fullmatch(allowed, key))
        if wrong:
            raise RequestError(
                f"{source}: expected the weights that the configuration describes, but the checkpoint {kind} "
                f"key {wrong[0]}" + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "") + "; get the right one"
            )
