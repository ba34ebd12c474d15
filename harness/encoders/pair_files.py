"""Files of an image-text encoder: where its checkpoint lies, whether all of it is there, and what it hashes to.

Nothing heavy is imported: metrics and controls are asked for these before they are loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.encoders import checkpoint as _checkpoint
from harness.encoders.checkpoint import hash_files, missing_package

Kind = Literal["medimageinsight", "transformers", "open_clip"]

EMBEDDED = "embedded"
TWIN = Path(__file__).parents[1] / "metrics" / "embedded" / "similarity"
RELEASE = "2024.09.27"
"""The folder inside of lion-ai/MedImageInsights that holds the release."""

OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # in the order open_clip looks


def locate(kind: Kind, checkpoint: str) -> Path | None:
    """The folder of "embedded", of a local folder or of a hub id in the local cache; None when parts are missing."""
    if checkpoint == EMBEDDED:
        return TWIN
    if kind == "transformers":
        return _checkpoint.locate(checkpoint)
    folder = _checkpoint.folder_of(checkpoint)
    if folder is None:
        return None
    if kind == "open_clip":
        return folder if (folder / "open_clip_config.json").is_file() and _open_clip_weights(folder) else None
    release = folder if (folder / "config.yaml").is_file() else folder / RELEASE
    parts = ((release / "config.yaml").is_file(), weight_file(release), tokenizer_folder(release))
    return release if all(parts) else None


def missing(kind: Kind, checkpoint: str) -> str | None:
    """What is not here and the command that helps."""
    package = missing_package("open_clip", "open_clip_torch>=3.0") if kind == "open_clip" else None
    if package or locate(kind, checkpoint):
        return package
    if kind == "transformers":
        return _checkpoint.how_to_get(checkpoint)
    needed = {
        "medimageinsight": "config.yaml, vision_model/ with the weights and language_model/ with CLIP's tokenizer",
        "open_clip": "open_clip_config.json and weights",
    }[kind]
    return (
        f"checkpoint {checkpoint!r} is neither a local folder with {needed} nor in the hub cache: "
        f"hf download {checkpoint}"
    )


def digest(kind: Kind, folder: Path) -> str:
    """Hex sha256 over the names and bytes of what an embedding can depend on."""
    if kind == "transformers":
        return _checkpoint.digest(folder)
    if kind == "open_clip":
        texts = [*folder.glob("*.json"), *folder.glob("vocab*"), *folder.glob("merges.txt")]
        return hash_files(folder, [*texts, *_open_clip_weights(folder)])
    weights, tokenizer = weight_file(folder), tokenizer_folder(folder)
    words = [path for path in tokenizer.iterdir() if path.is_file()] if tokenizer else []
    return hash_files(folder, [folder / "config.yaml", *([weights] if weights else []), *words])


def weight_file(release: Path) -> Path | None:
    """The weights of a MedImageInsight release: published as `medimageinsigt-v1.0.0.pt`, whatever the format."""
    found = [path for pattern in ("*.safetensors", "*.pt") for path in sorted((release / "vision_model").glob(pattern))]
    return found[0] if found else None


def tokenizer_folder(release: Path) -> Path | None:
    """CLIP's tokenizer: `clip_tokenizer_4.16.2` as published, `clip_tokenizer_v4162` in a port."""
    found = sorted(path.parent for path in (release / "language_model").glob("*/vocab.json"))
    return found[0] if found else None


def _open_clip_weights(folder: Path) -> list[Path]:
    return [folder / name for name in OPEN_CLIP_WEIGHTS if (folder / name).is_file()][:1]
