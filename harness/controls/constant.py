"""Constant control: the same caption for every picture."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.contracts import ControlCaption, Sample
from harness.controls._typical import FromCaptions, typical


class Constant(FromCaptions):
    """The most frequent training caption: what a score is worth to one who looks at nothing."""

    def learn(self, train: Sequence[Sample], device: str, features: MutableMapping[str, bytes]) -> Mapping[str, Any]:
        """Choose the caption."""
        chosen = typical([sample.caption for sample in train], self.sampled)
        self._caption = chosen.caption
        return asdict(chosen)

    def caption(self, samples: Sequence[Sample]) -> list[ControlCaption]:
        """The caption, for each sample."""
        return [ControlCaption(self._caption) for _ in samples]
