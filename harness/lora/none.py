"""Zero-shot: no adaptation at all."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from harness.contracts import Captioner, Plan, RequestError
from harness.lora._counts import total


class ZeroShot:
    """The checkpoint as it is."""

    trains = False
    learning_rate = 0.0

    def __init__(self, name: str) -> None:
        self.name = name

    def plan(self, captioner: Captioner) -> Plan:
        """Nothing trains."""
        return Plan(self.name, total(captioner.skeleton()), counts={})

    def attach(self, captioner: Captioner, plan: Plan) -> nn.Module:
        """The loaded model, unchanged."""
        return captioner.model

    def save(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """There is nothing to save: asking for it is an error."""
        raise RequestError(f"strategy {self.name} trains nothing, so there is nothing to save")

    def load(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """There is nothing to load."""

    def merge(self, model: nn.Module) -> None:
        """There is nothing to fold in."""

    def unfreeze(self, model: nn.Module, plan: Plan, share: float) -> None:
        """There are no stages."""
