"""Which cells of a sweep are one and the same run, known before they are composed."""

from __future__ import annotations

from collections.abc import Sequence

IDLE = {"model", "lora", "prompt", "modality", "train", "generate", "seed", "blank"}
"""What has no part in a control."""


def distinct(batches: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells of a sweep, each a list of overrides: a sweep over ten models makes each control once.

    The controls of a sweep with captioners lose all that is meant for these, blank=true included.
    """
    if not any(_control(batch) == "none" for batch in batches):
        return [list(batch) for batch in batches]
    used = [
        tuple(text for text in batch if _control(batch) == "none" or _key(text).partition(".")[0] not in IDLE)
        for batch in batches
    ]
    return [list(batch) for batch in dict.fromkeys(used)]


def _control(batch: Sequence[str]) -> str:
    named = [text.partition("=")[2].strip("'\"") for text in batch if _key(text) == "control"]
    return named[-1] if named else "none"


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]
