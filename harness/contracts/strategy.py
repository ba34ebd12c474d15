"""Strategies: how a captioner is adapted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.contracts.captioner import Captioner

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Plan:
    """A strategy resolved against one captioner: explicit module names, counts, options.

    adapted: modules that get LoRA; trained: modules trained in full; counts: trainable parameters per region;
    params_added: parameters that the strategy adds to the model (LoRA's own); schedule: (share of the steps, modules
    that train from then on), for progressive fine-tuning.
    """

    strategy: str
    params_total: int
    counts: Mapping[str, int]
    params_added: int = 0
    adapted: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    schedule: tuple[tuple[float, tuple[str, ...]], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def params_trained(self) -> int:
        """Trainable parameters over all regions, tied weights counted once."""
        return sum(self.counts.values())

    @property
    def params_trained_pct(self) -> float:
        """Percent of the model's parameters and those that the strategy adds, as published counts have it."""
        return 100 * self.params_trained / max(self.params_total + self.params_added, 1)  # a control has none


class Strategy(Protocol):
    """How a captioner is adapted."""

    name: str
    trains: bool
    learning_rate: float

    def plan(self, captioner: Captioner) -> Plan:
        """Resolve against the captioner's skeleton. Raises Refused, or RequestError when a site matches nothing."""

    def attach(self, captioner: Captioner, plan: Plan) -> nn.Module:
        """Make the loaded model trainable as planned and return it (peft wraps it)."""

    def save(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Write what was trained as safetensors."""

    def load(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Put saved weights into an attached model and prove that they arrived. Raises CapBenchError."""

    def merge(self, model: nn.Module) -> None:
        """Fold what was added into the captioner's own weights, in place. Raises Refused where that loses precision."""

    def unfreeze(self, model: nn.Module, plan: Plan, share: float) -> None:
        """Called when the fit enters a new stage of the plan's schedule, with the share of the steps done (0 to 1)."""
