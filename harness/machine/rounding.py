"""Rounding: products of bfloat16 matrices in float32, each rounded as bfloat16 instructions round their sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

ATTENTION = "aten._scaled_dot_product_flash_attention_for_cpu"
MIXED = {f"{ATTENTION}_backward", "bitsandbytes.gemm_4bit"}  # take other dtypes beside bfloat16
PARTS = {
    "aten.mm",
    "aten.mv",
    "aten.addmm",
    "aten.bmm",
    "aten.baddbmm",
    "aten.convolution",
    "aten.convolution_backward",
    "aten._native_multi_head_attention",
    "aten._transformer_encoder_layer_fwd",
    ATTENTION,
}
WHOLE = {  # what torch does not take apart in inference mode
    "aten.matmul",
    "aten.linear",
    "aten.einsum",
    "aten.inner",
    "aten.tensordot",
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
    "aten.scaled_dot_product_attention",
}
PRODUCTS = PARTS | WHOLE | MIXED


class RoundedProducts(TorchDispatchMode):
    """A mode in which products of this thread are rounded, forwards and backwards; other operations stay as they are.

    A product of one bfloat16 and one float32 matrix stays the error that it is. Memory holds a float32 copy of the
    operands of one product at a time.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What `func` gives, in its own dtypes."""
        kwargs, name = kwargs or {}, str(func.overloadpacket)
        if name not in PRODUCTS or not _bfloat16_alone(name, args, kwargs):
            return func(*args, **kwargs)
        found = func(*_each(_widen, args), **_each(_widen, kwargs))
        if name == ATTENTION:  # the logarithms of the sums, for the way back, are float32 there too
            return _round(found[0]), *found[1:]
        return _each(_round, found)


def _bfloat16_alone(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether bfloat16 is multiplied, and by nothing of another dtype but where that is foreseen."""
    kinds = {part.dtype for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)}
    return torch.bfloat16 in kinds and (name in MIXED or kinds <= {torch.bfloat16, torch.bool})


def _each(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return tree_map_only(Tensor, change, tree)


def _widen(part: Tensor) -> Tensor:
    return part.float() if part.dtype == torch.bfloat16 else part


def _round(part: Tensor) -> Tensor:
    return part.bfloat16() if part.dtype == torch.float32 else part
