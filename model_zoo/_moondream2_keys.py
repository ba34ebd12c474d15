"""MoonDream2's checkpoints: which of their tensors make up which one of ours, in the published spelling and in ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import safe_open

from harness.contracts import RequestError
from model_zoo._checkpoint import check_keys, weight_files

if TYPE_CHECKING:
    from torch import Tensor

    from model_zoo._moondream2_net import MoondreamNet

Spelling = Literal["published", "fused", "split"]
"""How a checkpoint stores query, key and value, and its names: as on the hub, or as the network's own state."""

REGIONS = r"region_model\..+"  # predicts boxes, from 2024-08-26 on; no caption depends on it
BLOCKS, TOWER = "text_model.transformer.h", "vision_encoder.encoder.model.visual"
LAYER, VISION = r"text_model\.model\.layers\.(\d+)", r"vision_encoder\.vision_model"
PUBLISHED = (
    (r"text_model\.model\.embed_tokens", "text_model.transformer.embd.wte"),
    (r"text_model\.model\.final_layernorm", "text_model.lm_head.ln"),
    (r"text_model\.lm_head", "text_model.lm_head.linear"),
    (rf"{LAYER}\.input_layernorm", rf"{BLOCKS}.\1.ln"),
    (rf"{LAYER}\.self_attn\.Wqkv", rf"{BLOCKS}.\1.mixer.Wqkv"),
    (rf"{LAYER}\.self_attn\.dense", rf"{BLOCKS}.\1.mixer.out_proj"),
    (rf"{LAYER}\.mlp\.(fc[12])", rf"{BLOCKS}.\1.mlp.\2"),
    (r"projection\.(fc[12])", r"vision_encoder.projection.mlp.\1"),
    (rf"{VISION}\.embeddings\.patch_embedding", f"{TOWER}.patch_embed.linear"),
    (rf"{VISION}\.encoder\.layers\.(\d+)\.self_attn\.Wqkv", rf"{TOWER}.blocks.\1.attn.qkv"),
    (rf"{VISION}\.encoder\.layers\.(\d+)\.self_attn\.out_proj", rf"{TOWER}.blocks.\1.attn.proj"),
    (rf"{VISION}\.encoder\.layers\.(\d+)\.layer_norm([12])", rf"{TOWER}.blocks.\1.norm\2"),
    (rf"{VISION}\.encoder\.layers\.(\d+)\.mlp\.(fc[12])", rf"{TOWER}.blocks.\1.mlp.\2"),
    (rf"{VISION}\.post_layernorm", f"{TOWER}.norm"),
)
"""Our module, and the module of vikhyat/moondream@211cc2f with the same weight and bias."""


@dataclass(frozen=True)
class Source:
    """Where a tensor of the network comes from: stored tensors joined on the first axis, or a third of one."""

    keys: tuple[str, ...]
    third: int | None = None


def spelling(keys: Collection[str]) -> Spelling:
    """How the checkpoint with these keys is spelled."""
    if any(key.startswith((BLOCKS, TOWER)) for key in keys):
        return "published"
    return "fused" if any(key.endswith(".Wqkv.weight") for key in keys) else "split"


def source(name: str, spelled: Spelling) -> Source:
    """The stored tensor or tensors of one of the network's."""
    joint, third = _joint(name)
    if spelled == "published":
        return Source((_published(joint),), third)
    if not name.startswith("text_model."):
        return Source((name,))
    if spelled == "fused":
        return Source((joint,), third)
    head, found, kind = name.partition(".Wqkv.")
    return Source(tuple(f"{head}.{part}_proj.{kind}" for part in "qkv")) if found else Source((name,))


def _joint(name: str) -> tuple[str, int | None]:
    """The name with query, key and value in one, and which of the three it was."""
    match = re.fullmatch(r"(.+\.self_attn)\.([qkv])_proj\.(weight|bias)", name)
    return (f"{match[1]}.Wqkv.{match[3]}", "qkv".index(match[2])) if match else (name, None)


def _published(name: str) -> str:
    module, _, kind = name.rpartition(".")
    if module.endswith("position_embedding"):
        return f"{TOWER}.pos_embed"
    for pattern, theirs in PUBLISHED:
        if re.fullmatch(pattern, module):
            return f"{re.sub(pattern, theirs, module)}.{kind}"
    raise ValueError(f"{name}: no published name is known")


def fill(net: MoondreamNet, folder: Path, dtype: torch.dtype) -> None:
    """Put a checkpoint folder's tensors into a network that lies on the meta device.

    Raises RequestError naming a key that is missing, left over or of another shape, or advising the other layout.
    """
    own = dict(net.named_parameters())
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(file, "pt")) for file in weight_files(folder)]
        stored = {key: file for file in files for key in file.keys()}  # noqa: SIM118 (a file is no dictionary)
        sources = {name: source(name, spelling(stored)) for name in own}
        needed = {key for entry in sources.values() for key in entry.keys}
        check_keys(folder, needed - stored.keys(), stored.keys() - needed, may_ignore=REGIONS)
        tensors = {}
        for name, entry in sources.items():
            tensor = _assemble(entry, lambda key: stored[key].get_tensor(key))
            _check(tensor, own[name], name, entry, folder, net)
            # a copy: no part may share memory with what it was cut from
            tensors[name] = tensor.reshape(own[name].shape).to(dtype, copy=True)
    net.load_state_dict(tensors, assign=True)


def _assemble(entry: Source, read: Callable[[str], Tensor]) -> Tensor:
    tensor = torch.cat([read(key) for key in entry.keys])
    return tensor if entry.third is None else tensor.chunk(3)[entry.third]


def _check(tensor: Tensor, own: Tensor, name: str, entry: Source, folder: Path, net: MoondreamNet) -> None:
    found, expected = tuple(tensor.shape), tuple(own.shape)
    if name == "projection.fc1.weight" and found != expected:
        other = "early" if net.tiled else "later"
        if found[1] * 2 == expected[1] or found[1] == expected[1] * 2:
            raise RequestError(
                f"{folder}: expected {expected[1]} inputs of the projection, got {found[1]}: this is the {other} "
                f"layout; set model.layout={other}"
            )
    # stored as one matrix, and with a first axis of one
    flat = name.endswith(("patch_embedding.weight", "position_embedding.weight")) and len(found) != len(expected)
    if found != expected and not (flat and _squeezed(found) == (expected[0], own[0].numel())):
        raise RequestError(
            f"{folder}: {' and '.join(entry.keys)} has another shape, {found}, than the {expected} that the "
            "configuration asks for; get the right checkpoint"
        )


def _squeezed(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
