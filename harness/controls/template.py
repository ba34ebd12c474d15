"""Template control: one caption for each modality."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.contracts import ControlCaption, Sample
from harness.controls._typical import FromCaptions, typical


class Template(FromCaptions):
    """The most frequent training caption of the picture's true modality: what knowing the modality alone is worth.

    A modality that the training samples do not have gets the caption of all of them.
    """

    def learn(self, train: Sequence[Sample], device: str, features: MutableMapping[str, bytes]) -> Mapping[str, Any]:
        """Choose the captions."""
        captions: dict[str, list[str]] = {}
        for sample in train:
            captions.setdefault(sample.modality, []).append(sample.caption)
        chosen = {modality: typical(captions[modality], self.sampled) for modality in sorted(captions)}
        whole = typical([sample.caption for sample in train], self.sampled)
        self._captions = {modality: one.caption for modality, one in chosen.items()}
        self._otherwise = whole.caption
        return {"otherwise": asdict(whole), "modalities": {modality: asdict(one) for modality, one in chosen.items()}}

    def caption(self, samples: Sequence[Sample]) -> list[ControlCaption]:
        """The caption of each sample's modality."""
        return [ControlCaption(self._captions.get(sample.modality, self._otherwise)) for sample in samples]
