"""No control."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from harness.contracts import Said, Sample


class NoControl:
    """Leaves the captioner its word."""

    speaks = False

    def __init__(self, name: str) -> None:
        self.name = name

    def digest(self) -> str:
        """There is no checkpoint."""
        return ""

    def learn(self, train: Sequence[Sample], device: str, features: MutableMapping[str, bytes]) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def say(self, samples: Sequence[Sample]) -> list[Said]:
        """Nothing, of any sample."""
        return [Said(None, "no control: the captioner speaks") for _ in samples]
