"""Counts of parameters that train, and the modules that a pattern names: arithmetic on a skeleton, without weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

from harness.contracts import REGIONS, Captioner, Refused, RequestError


def matching(model: nn.Module, pattern: str, what: str) -> tuple[str, ...]:
    """Names of the modules a pattern matches in full. Raises RequestError when there is none."""
    names = tuple(name for name, _ in model.named_modules() if re.fullmatch(pattern, name))
    if not names:
        raise RequestError(
            f"{what}: the pattern {pattern} matches no module of this model; nothing would be trained there"
        )
    return names


def total(model: nn.Module) -> int:
    """All parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def below(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Parameters in or below the named modules, by name, tied ones once ("" is the whole model)."""
    prefixes = tuple(names)
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if any(prefix == "" or name.startswith(f"{prefix}.") for prefix in prefixes)
    }


def refuse_quantised(captioner: Captioner, names: Iterable[str], strategy: str) -> None:
    """Raise Refused when a loaded module that shall train in full has 4- or 8-bit weights: those take no gradient."""
    for name, parameter in below(captioner.model, names).items():
        if not parameter.is_floating_point():
            raise Refused(
                f"lora={strategy} on model={captioner.name}: refused, {name} is quantised and cannot be trained in "
                "full; use model.dtype=auto, or a strategy that adapts it with LoRA"
            )


def per_region(captioner: Captioner, sizes: Mapping[str, int]) -> dict[str, int]:
    """Module or parameter sizes summed by the captioner's regions; regions without any are left out."""
    counts = dict.fromkeys(REGIONS, 0)
    for name, size in sizes.items():
        counts[captioner.region(name)] += size
    return {region: count for region, count in counts.items() if count}
