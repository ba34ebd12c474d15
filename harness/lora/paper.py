"""The published comparison's own LoRA settings, which differ from model to model."""

from __future__ import annotations

from typing import Any

from harness.contracts import Captioner, Plan, Refused
from harness.lora.sites import SiteLora


class PaperLora(SiteLora):
    """LoRA with each model's published sites and scaling (doi 10.3390/bioengineering12121330)."""

    def __init__(
        self, name: str, models: dict[str, dict[str, Any]], dropout: float, dora: bool, learning_rate: float
    ) -> None:
        super().__init__(name, [], [], 1, 1, dropout, dora, learning_rate)
        self.models = models

    def plan(self, captioner: Captioner) -> Plan:
        """The plan of the model's row. Raises Refused for a model that the study did not adapt with LoRA."""
        row = self.models.get(captioner.name)
        if row is None:
            raise Refused(
                f"lora={self.name} on model={captioner.name}: refused, the published comparison has no LoRA row for "
                f"it (it has {', '.join(self.models)}); use another strategy"
            )
        rest = (row["rank"], row["alpha"], self.dropout, self.dora, self.learning_rate)
        return SiteLora(self.name, row["sites"], [], *rest).plan(captioner)
