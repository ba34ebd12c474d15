"""LoRA on a list of sites (Hu et al. 2021, arXiv 2106.09685), attached by peft.

A site is resolved against the captioner's own map to an explicit list of modules, because a list of name endings
("q_proj", ...) means other modules on every model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.contracts import CapBenchError, Captioner, Plan, Refused, RequestError
from harness.lora._counts import below, matching, per_region, refuse_quantised, total

WEIGHTS = "adapter_model.safetensors"


@dataclass(eq=False)
class SiteLora:
    """Low-rank adapters on the linear layers of the named sites; all else is frozen but the sites trained in full."""

    name: str
    sites: list[str]
    full_sites: list[str]
    rank: int
    alpha: int
    dropout: float
    dora: bool
    learning_rate: float

    trains = True

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.rank < 1:
            raise RequestError(f"lora.rank: expected 1 or more, got {self.rank}")
        if self.alpha < 1:
            raise RequestError(f"lora.alpha: expected 1 or more, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise RequestError(f"lora.dropout: expected 0 or more and less than 1, got {self.dropout}")

    def plan(self, captioner: Captioner) -> Plan:
        """Modules of all sites: r * (in + out) parameters each under LoRA (DoRA: + out), all of them where in full."""
        if not captioner.sites:
            raise Refused(
                f"lora={self.name} on model={captioner.name}: refused, a baseline has no pre-trained "
                "vision-language weights for LoRA to adapt; use lora=full or lora=none"
            )
        model = captioner.skeleton()
        modules = dict(model.named_modules())
        adapted = self._resolve(captioner, model, self.sites)
        trained = self._resolve(captioner, model, self.full_sites)
        lora = {name: self._size(name, modules[name]) for name in adapted}
        full = {name: parameter.numel() for name, parameter in below(model, trained).items()}
        return Plan(
            self.name,
            total(model),
            per_region(captioner, lora | full),
            params_added=sum(lora.values()),
            adapted=adapted,
            trained=trained,
            options={"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout, "dora": self.dora},
        )

    def _resolve(self, captioner: Captioner, model: nn.Module, sites: list[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for site in sites:
            if site not in captioner.sites:
                raise RequestError(
                    f"lora.sites: {captioner.name} has no site '{site}'; it has {', '.join(captioner.sites)}"
                )
            names = matching(model, captioner.sites[site].pattern, f"site '{site}' of {captioner.name}")
            found |= dict.fromkeys(names)
        return tuple(found)

    def attach(self, captioner: Captioner, plan: Plan) -> nn.Module:
        """Wrap the model with peft and check that exactly the planned modules and parameters train."""
        refuse_quantised(captioner, plan.trained, self.name)
        self._refuse_dora(captioner, plan)
        model: nn.Module = peft.get_peft_model(captioner.model, self._config(plan, tied=_tied(captioner, plan)))
        wrapped = {name.removeprefix("base_model.model.") for name, m in model.named_modules() if hasattr(m, "lora_A")}
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if wrapped != set(plan.adapted) or trainable != plan.params_trained:
            other = sorted(wrapped ^ set(plan.adapted))[:3]
            raise CapBenchError(
                f"{captioner.name}: peft adapted {trainable:,} parameters where {plan.params_trained:,} were planned"
                f" (modules that differ: {other})"
            )
        return model

    def _refuse_dora(self, captioner: Captioner, plan: Plan) -> None:
        """peft's DoRA loses the scales of 8-bit layers on a CPU when it dequantises them."""
        weights = below(captioner.model, plan.adapted).values()
        if plan.options["dora"] and any(w.dtype == torch.int8 and w.device.type == "cpu" for w in weights):
            raise Refused(
                f"lora.dora=true on model={captioner.name} with int8 layers: refused, it works on CUDA only; "
                "use model.dtype=nf4 or lora.dora=false"
            )

    def save(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """adapter_model.safetensors and adapter_config.json, readable by peft, without its empty model card."""
        assert isinstance(model, peft.PeftModel)
        folder.mkdir(parents=True, exist_ok=True)
        state = peft.get_peft_model_state_dict(model)
        # copies: a tied weight is stored under both of its names
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in state.items()}, folder / WEIGHTS)
        model.peft_config["default"].save_pretrained(str(folder))

    def load(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Load saved adapters and prove that they arrived: restored = saved, and not all of lora_B is zero."""
        saved = load_file(folder / WEIGHTS)
        peft.set_peft_model_state_dict(model, saved)
        now = peft.get_peft_model_state_dict(model)
        lost = sorted(set(saved) ^ set(now))
        lost += [
            key for key in saved if key in now and not torch.equal(now[key].cpu().to(saved[key].dtype), saved[key])
        ]
        alive = any(bool(value.any()) for key, value in now.items() if "lora_B" in key)
        if lost or not alive:
            what = f"{len(lost)} of {len(saved)} tensors differ, first {lost[0]}" if lost else "every lora_B is zero"
            raise CapBenchError(f"{folder / WEIGHTS}: the adapter did not arrive in the model ({what}); fit it again")

    def merge(self, model: nn.Module) -> None:
        """W + scaling * B A in place of W, and no adapters left. Raises Refused for quantised weights."""
        assert isinstance(model, peft.PeftModel)
        base = model.get_base_model()
        if any(getattr(base, flag, False) for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit")):
            raise Refused("refused, the sum would be rounded to the few values of quantised weights; load unquantised")
        model.merge_and_unload()

    def unfreeze(self, model: nn.Module, plan: Plan, share: float) -> None:
        """There are no stages: adapters train from the first step on."""

    def _size(self, name: str, module: nn.Module) -> int:
        if not isinstance(module, nn.Linear):
            raise RequestError(f"{name}: LoRA needs a linear layer, this is a {type(module).__name__}")
        return self.rank * (module.in_features + module.out_features) + (module.out_features if self.dora else 0)

    def _config(self, plan: Plan, *, tied: bool) -> peft.LoraConfig:
        # one regular expression of the exact names: peft compares a string with re.fullmatch, a list by endings
        exact = "|".join(re.escape(name) for name in plan.adapted)
        return peft.LoraConfig(
            r=plan.options["rank"],
            lora_alpha=plan.options["alpha"],
            lora_dropout=plan.options["dropout"],
            use_dora=plan.options["dora"],
            target_modules=exact,
            modules_to_save=list(plan.trained) or None,
            ensure_weight_tying=tied,  # else head and embeddings become two copies that drift apart
        )


def _tied(captioner: Captioner, plan: Plan) -> bool:
    """Whether modules trained in full share a weight. peft may be asked to keep it shared only where it is."""
    weights = [captioner.model.get_submodule(name).weight for name in plan.trained]
    return len({id(weight) for weight in weights}) < len(weights)
