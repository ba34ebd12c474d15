"""No modality label."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import Sample


class NoLabel:
    """Gives no label to any sample."""

    def __init__(self, name: str) -> None:
        self.name = name

    def labels(self, samples: Sequence[Sample]) -> list[str | None]:
        """None for each sample."""
        return [None] * len(samples)
