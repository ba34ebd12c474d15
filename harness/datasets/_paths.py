"""Paths that a user gives."""

from __future__ import annotations

from pathlib import Path

from harness.contracts import SPLITS, RequestError


def as_path(text: str) -> Path:
    """A path with the home folder filled in, which a shell leaves alone in dataset.path=~/FILE."""
    return Path(text).expanduser() if text.startswith("~/") else Path(text)


def given_folder(name: str, text: str) -> Path:
    """The folder of an option, links resolved. Raises RequestError."""
    folder = as_path(text)
    if not folder.is_dir():
        raise RequestError(f"{name}={text}: no such folder; give the one that holds the files, relative to this one")
    return folder.resolve()


def known_split(dataset: str, split: str) -> str:
    """The name of a split, as it came. Raises RequestError."""
    if split not in SPLITS:
        raise RequestError(f"dataset {dataset}: expected a split of {', '.join(SPLITS)}, got {split!r}")
    return split
