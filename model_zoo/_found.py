"""Checkpoints of a captioner found on this machine. Imports nothing heavy: `capbench list` shall be quick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TWINS = Path(__file__).parent / "embedded"
REVISION = "revision"


def found(values: Mapping[str, Any]) -> tuple[str, str]:
    """(embedded twin, published checkpoint) for the values of a captioner's yaml; nothing is read.

    A checkpoint is a key with a revision beside it: `hub` and `revision`, or `text` and `text_revision`.
    """
    keys = [key for key in values if key.endswith(REVISION)]
    hubs = {"hub" if key == REVISION else key.removesuffix(f"_{REVISION}"): key for key in keys}
    hubs = {part: key for part, key in hubs.items() if values.get(part)}
    parts = [TWINS / str(values["name"]) / ("" if part == "hub" else part) for part in hubs]
    published = [f"{values[part]}: {whereabouts(values[part], values[key])}" for part, key in hubs.items()]
    return "yes" if all(part.is_dir() for part in parts) else "none", "; ".join(published)


def whereabouts(hub: str, revision: str | None) -> str:
    """Where a published checkpoint is found on this machine, in words; nothing is downloaded."""
    if Path(hub).expanduser().exists():
        return "local"
    return "in the cache" if _cached(hub, revision) else "not here, downloaded at first use"


def _cached(hub: str, revision: str | None) -> bool:
    """As huggingface_hub's try_to_load_from_cache, which takes longer to import than everything else here."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{hub.replace('/', '--')}"
    name = folder / "refs" / (revision or "main")
    commit = name.read_text(encoding="utf-8").strip() if name.is_file() else revision or ""
    snapshot = folder / "snapshots" / commit
    return bool(commit) and any((snapshot / file).is_file() for file in ("config.json", "tokenizer.json"))
