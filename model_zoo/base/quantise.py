"""Language layers in 4 or 8 bits by bitsandbytes: the frozen base of QLoRA (Dettmers et al. 2023, arXiv 2305.14314).

Head, embeddings, vision tower and connector keep the compute dtype: they are a small part of the memory, and some
strategies train them in full. bitsandbytes is imported when it is needed only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from harness.contracts import CapBenchError

Scheme = Literal["nf4", "int8"]
"""nf4: 4-bit normal floats with double quantisation. int8: LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339)."""

BLOCK = 64  # weights that share a scale in nf4
SMALL_BLOCK = 32  # for the narrow layers of a tiny twin: some CPUs read a block wrongly that reaches into the next row
THRESHOLD = 6.0  # LLM.int8()'s: activation columns with a larger value are multiplied in 16 bits


def bnb_config(scheme: Scheme, compute: torch.dtype, kept: Iterable[str]) -> BitsAndBytesConfig:
    """Options that from_pretrained is told. `kept` replaces the library's own list, which spares the head alone."""
    if scheme == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=THRESHOLD, llm_int8_skip_modules=sorted(kept))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=sorted(kept),
    )


def widths(model: nn.Module) -> dict[str, int]:
    """The number of inputs of each linear layer."""
    return {name: module.in_features for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def fits(scheme: Scheme, width: int) -> bool:
    """Whether from_pretrained can quantise a layer of so many inputs: its 4-bit blocks have a fixed size."""
    return scheme == "int8" or width % BLOCK == 0


def takes(scheme: Scheme, width: int) -> bool:
    """Whether a layer of so many inputs can be quantised at all. Some layers of the tiny twins cannot: they stay."""
    return scheme == "int8" or width % SMALL_BLOCK == 0


def quantise(model: nn.Module, scheme: Scheme, compute: torch.dtype, names: Iterable[str], device: str) -> None:
    """Replace the named linear layers that are still plain: what from_pretrained has not read or cannot quantise.

    Weights are quantised on `device`, one layer at a time. The rest of the model is not moved.
    """
    kinds = _kinds(scheme)
    for name in names:
        layer: Any = model.get_submodule(name)
        if not isinstance(layer, kinds):
            layer = _quantised(layer, scheme, compute, device)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
        # On some CPUs a 4-bit layer would repack its weights at the first caption: then it computes in bf16, passes
        # no gradient any more and takes some sizes only.
        layer.support_avx512bf16_for_cpu = False
    # peft asks the model, not its layers, which of its own LoRA layers fits.
    setattr(model, "is_loaded_in_4bit" if scheme == "nf4" else "is_loaded_in_8bit", True)


def check(model: nn.Module, scheme: Scheme, names: Iterable[str], what: str) -> None:
    """Prove that the named layers are quantised, and no others. Raises CapBenchError naming one that is wrong."""
    found = {name for name, module in model.named_modules() if isinstance(module, _kinds("nf4") + _kinds("int8"))}
    wanted = {name for name in names if isinstance(model.get_submodule(name), _kinds(scheme))}
    for wrong, state in ((sorted(set(names) - wanted), "is not"), (sorted(found - set(names)), "must not be")):
        if wrong:
            raise CapBenchError(
                f"{what}: expected the linear layers of the language region in {scheme} and no others, "
                f"{wrong[0]} {state} quantised" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
            )


def _quantised(plain: nn.Linear, scheme: Scheme, compute: torch.dtype, device: str) -> nn.Module:
    import bitsandbytes as bnb

    shape = (plain.in_features, plain.out_features, plain.bias is not None)
    weight = plain.weight.detach()
    with torch.device("meta"):  # its own fresh weights are thrown away
        layer: Any
        if scheme == "nf4":
            layer = bnb.nn.Linear4bit(*shape, compute_dtype=compute, compress_statistics=True, quant_type="nf4")
            block = BLOCK if fits(scheme, plain.in_features) else SMALL_BLOCK
            layer.weight = bnb.nn.Params4bit(weight, False, blocksize=block, quant_type="nf4", module=layer)
        else:
            layer = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False, threshold=THRESHOLD)
            layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer.bias = plain.bias
    moved: nn.Module = layer.to(device).requires_grad_(False).train(plain.training)
    return moved


def _kinds(scheme: Scheme) -> tuple[type[nn.Module], ...]:
    import bitsandbytes as bnb

    # It says at every product of an int8 layer that the input is cast to fp16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return (bnb.nn.Linear4bit,) if scheme == "nf4" else (bnb.nn.Linear8bitLt,)
