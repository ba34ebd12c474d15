"""No control."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from harness.contracts import ControlCaption, Sample


class NoControl:
    """Leaves the captioner its word."""

    replaces_captioner = False

    def __init__(self, name: str) -> None:
        self.name = name

    def digest(self) -> str:
        """There is no checkpoint."""
        return ""

    def learn(self, train: Sequence[Sample], device: str, features: MutableMapping[str, bytes]) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def caption(self, samples: Sequence[Sample]) -> list[ControlCaption]:
        """Nothing, of any sample."""
        return [ControlCaption(None, "no control: the captioner speaks") for _ in samples]
