"""Checkpoint folders: where they come from, what they hash to, and whether they are what they claim to be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, BitsAndBytesConfig

from harness.contracts import RequestError
from harness.encoders.checkpoint import quiet, read_json, require
from harness.encoders.weights import check_loaded
from harness.store.files_cache import content_hash
from model_zoo import _found

Weights = Literal["embedded", "hub", "published"]
"""The tiny twin, the hub's checkpoint, or only its configuration, which ships with the code, for counting."""

FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
CONFIG = ("config.json",)
TEXT = ("*.json", "*.txt", "*.model", "*.jinja")
TWINS = _found.TWINS
PUBLISHED = Path(__file__).parents[1] / "published"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar")


@dataclass(frozen=True)
class Source:
    """One checkpoint of a captioner: hub id or local folder, and what of it is read.

    part: the twin's subfolder when a captioner is put together from several checkpoints.
    """

    hub: str
    revision: str | None
    part: str = ""
    files: tuple[str, ...] = FILES


def resolve(name: str, weights: Weights, source: Source, only: tuple[str, ...] | None = None) -> Path:
    """The local folder of a checkpoint, downloaded if need be. `only`: fetch no more than these patterns.

    Raises RequestError when there is none, saying what to do.
    """
    if weights == "embedded":
        return _twin(name, source.part)
    if weights == "published":
        return _published(name, source.part, only)
    local = Path(source.hub).expanduser()
    if local.exists():
        return local
    if source.hub.startswith((".", "/", "~")) or source.hub.count("/") != 1:
        raise RequestError(
            f"{name}: expected a hub id (owner/name) or an existing folder, got {source.hub!r}, which does not exist"
        )
    return _download(name, source, only or source.files)


def _twin(name: str, part: str) -> Path:
    folder = TWINS / name / part
    if not folder.is_dir():
        known = sorted(path.name for path in TWINS.iterdir() if path.is_dir() and path.name != "__pycache__")
        raise RequestError(
            f"{name}: no embedded twin {name}/{part}".rstrip("/") + f"; there are {', '.join(known) or 'none'}. "
            "Choose weights=hub, or add a twin in model_zoo/embedded/build.py"
        )
    return folder


def _published(name: str, part: str, only: tuple[str, ...] | None) -> Path:
    folder = PUBLISHED / name / part
    if only != CONFIG or not folder.is_dir():
        raise RequestError(
            f"{name}: the published configuration has neither weights nor words, it is there to count parameters; "
            "choose weights=embedded or weights=hub"
        )
    return folder


def _download(name: str, source: Source, patterns: tuple[str, ...]) -> Path:
    advice = "download it once where there is network, or set the model's hub id to a local folder"
    what = f"{name}: cannot get {source.hub}" + (f" at {source.revision}" if source.revision else "")
    try:
        folder = snapshot_download(
            source.hub, revision=source.revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
    except LocalEntryNotFoundError as error:
        raise RequestError(f"{what}: it is not in the cache and the hub cannot be reached; {advice}") from error
    except (HfHubHTTPError, HFValidationError, ConnectionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RequestError(f"{what}: {reason}; check the id and your access, or {advice}") from error
    return Path(folder)


def files(path: Path, patterns: Iterable[str] = FILES) -> list[Path]:
    """The files of a checkpoint folder that can change what it computes, sorted; a file stands for itself."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and any(fnmatch(file.name, p) for p in patterns))


def digest(path: Path, patterns: Iterable[str] = FILES) -> str:
    """Hex sha256 over names and contents of the checkpoint's files; where the folder lies does not matter."""
    total = hashlib.sha256()
    for file in files(path, patterns):
        name = file.name.encode()
        total.update(len(name).to_bytes(8, "little") + name + content_hash(file))
    return total.hexdigest()


def read_config(folder: Path, cls: Any) -> Any:
    """A transformers config, after a look whether the folder holds this architecture at all."""
    _found = read_json(folder / "config.json").get("model_type")
    if _found != cls.model_type:
        raise RequestError(
            f"{folder}: expected a checkpoint of the architecture {cls.model_type!r}, got {_found!r}; "
            "give the id or folder of the right one"
        )
    return cls.from_pretrained(folder, local_files_only=True)


def read_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a checkpoint folder."""
    require(folder, "tokenizer.json", "vocab.json", "tokenizer.model")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def read_image_processor(cls: Any, folder: Path) -> Any:
    """The slow image processor of a checkpoint folder: the fast one needs torchvision and gives other pixels."""
    require(folder, "preprocessor_config.json")
    return cls.from_pretrained(folder, local_files_only=True)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, each with an intact header and length.

    Raises RequestError when there are none, naming a pickle that lies in their place, or when one is damaged.
    """
    _found = files(folder, ("*.safetensors",))
    if not _found:
        pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in PICKLES]
        instead = f"found the pickle {pickles[0]}, which can run code and is never read" if pickles else "found none"
        raise RequestError(f"{folder}: expected weights as *.safetensors, {instead}; convert the checkpoint")
    for file in _found:
        try:
            with safe_open(file, "pt") as weights:
                weights.keys()
        except SafetensorError as error:
            raise RequestError(f"{file}: {_damage(file)} ({error}); get the checkpoint again") from error
    return _found


def _damage(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(2)
    pickled = start == b"PK" or start[:1] == b"\x80"
    return "a pickle under the name of a safetensors file" if pickled else "not a complete safetensors file"


def read_model(
    cls: Any,
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    attention: str,
    may_lack: str = "",
    may_ignore: str = "",
    bits: BitsAndBytesConfig | None = None,
    device: str = "cpu",
    **options: bool,
) -> Any:
    """A transformers model with every weight accounted for. `may_lack`, `may_ignore`: patterns over full key names.

    bits: how to quantise while reading; the model then lies on `device`, otherwise on the CPU.
    Raises RequestError naming a key that is missing, left over or of another shape.
    """
    weight_files(folder)
    with quiet():  # about keys, which are judged here
        model, info = cls.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **({} if bits is None else {"quantization_config": bits, "device_map": {"": device}}),
            **options,
        )
    check_loaded(folder, model, info, may_lack, may_ignore)
    return model
