"""Progressive full fine-tuning: parts are unfrozen in steps, following the captioner's own schedule."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.contracts import CapBenchError, Captioner, Plan, Refused
from harness.lora._counts import below, matching, per_region, refuse_quantised, total

WEIGHTS = "model.safetensors"


class ProgressiveFull:
    """All weights that the schedule names, from the stage on that names them."""

    trains = True

    def __init__(self, name: str, learning_rate: float) -> None:
        self.name = name
        self.learning_rate = learning_rate

    def plan(self, captioner: Captioner) -> Plan:
        """The stages as explicit module names; the counts are those of the last stage."""
        if not captioner.schedule:
            raise Refused(
                f"lora={self.name} on model={captioner.name}: refused, it has no unfreezing schedule "
                "(conf/model yaml: schedule); use a LoRA strategy"
            )
        model = captioner.skeleton()
        schedule, trained = [], dict[str, None]()
        for stage in captioner.schedule:
            found = [n for p in stage.modules for n in matching(model, p, f"schedule of {captioner.name}")]
            trained |= dict.fromkeys(found)
            schedule.append((stage.start, tuple(trained)))
        sizes = {name: p.numel() for name, p in below(model, trained).items()}
        return Plan(
            self.name, total(model), per_region(captioner, sizes), trained=tuple(trained), schedule=tuple(schedule)
        )

    def attach(self, captioner: Captioner, plan: Plan) -> nn.Module:
        """Everything that trains in some stage is trainable; the fit's callback freezes what is not due yet."""
        refuse_quantised(captioner, plan.trained, self.name)
        _train_only(captioner.model, plan.trained)
        return captioner.model

    def save(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """The trained parameters, tied ones once, and all buffers (batch-norm statistics move in training)."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_state(model, plan), folder / WEIGHTS)

    def load(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Copy saved tensors into the model; their names and shapes must be the planned ones."""
        saved, now = load_file(folder / WEIGHTS), _state(model, plan, copy=False)
        other = sorted(set(saved) ^ set(now))
        if other:
            raise CapBenchError(
                f"{folder / WEIGHTS}: expected the {len(now)} planned tensors, {other[0]} differs; fit again"
            )
        with torch.no_grad():
            for name, value in saved.items():
                if now[name].shape != value.shape:
                    raise CapBenchError(
                        f"{folder / WEIGHTS}: {name} has shape {tuple(value.shape)}, not {tuple(now[name].shape)}"
                    )
                now[name].copy_(value)

    def merge(self, model: nn.Module) -> None:
        """The captioner's own weights were trained: there is nothing to fold in."""

    def unfreeze(self, model: nn.Module, plan: Plan, share: float) -> None:
        """Freeze everything, then let the parts of the current stage train."""
        due = [names for start, names in plan.schedule if share >= start]
        _train_only(model, due[-1] if due else ())


def _train_only(model: nn.Module, names: tuple[str, ...]) -> None:
    model.requires_grad_(False)
    for parameter in below(model, names).values():
        parameter.requires_grad_(True)


def _state(model: nn.Module, plan: Plan, *, copy: bool = True) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = dict(below(model, plan.trained))
    kept = model.state_dict().keys()  # leaves out buffers that are computed anew at each load
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()} if copy else tensors
