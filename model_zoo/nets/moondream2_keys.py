"""MoonDream2's checkpoints: which of their tensors make up which one of ours, in the published spelling and in ours."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import safe_open

from harness.contracts import RequestError
from harness.encoders.weights import check_keys
from model_zoo.base.checkpoint import weight_files

if TYPE_CHECKING:
    from model_zoo.nets.moondream2 import MoondreamNet

Spelling = Literal["published", "fused", "split"]
"""Spelling of names, and storage of query, key and value: as on the hub, or as the network's own state."""

REGIONS = r"region_model\..+"  # predicts boxes, from 2024-08-26 on; no caption depends on it
PROJECTION = ("projection.fc1.weight", "projection.mlp.fc1.weight")
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
    """Source of a tensor of the network: stored tensors joined on the first axis, or a third of one."""

    keys: tuple[str, ...]
    third: int | None = None


def spelling(keys: Collection[str]) -> Spelling:
    """Spelling of the checkpoint with these keys."""
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
    tensors = {}
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(file, "pt")) for file in weight_files(folder)]
        stored = {key: file for file in files for key in file.keys()}  # noqa: SIM118 (a file is no dictionary)
        spelled = spelling(stored)
        sources = {name: source(name, spelled) for name in own}
        needed = {key for entry in sources.values() for key in entry.keys}
        check_keys(folder, needed - stored.keys(), stored.keys() - needed, may_ignore=REGIONS)
        for name, entry in sources.items():
            expected = _stored_shape(name, entry, own[name].shape, spelled)
            for key in entry.keys:
                _check(folder, key, tuple(stored[key].get_slice(key).get_shape()), expected)
            tensor = torch.cat([stored[key].get_tensor(key) for key in entry.keys])
            part = tensor if entry.third is None else tensor.chunk(3)[entry.third]
            # a copy: no parameter may share memory with what it was cut from
            tensors[name] = part.reshape(own[name].shape).to(dtype, copy=True)
    net.load_state_dict(tensors, assign=True)


def _stored_shape(name: str, entry: Source, own: Sequence[int], spelled: Spelling) -> tuple[int, ...]:
    first, *rest = own
    if spelled == "published" and name.endswith(".patch_embedding.weight"):
        return first, math.prod(rest)  # a matrix, where we have a convolution: same order
    if spelled == "published" and name.endswith(".position_embedding.weight"):
        return 1, first, *rest
    return first // len(entry.keys) if entry.third is None else first * 3, *rest


def _check(folder: Path, key: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found == expected:
        return
    if key.endswith(PROJECTION) and found[-1] in (expected[-1] * 2, expected[-1] // 2):
        layout = "later" if found[-1] > expected[-1] else "early"
        raise RequestError(
            f"{folder}: expected {expected[-1]} inputs of the projection, got {found[-1]}: this is the {layout} "
            f"layout; set model.layout={layout}"
        )
    raise RequestError(
        f"{folder}: {key} has another shape, {found}, than the {expected} that the configuration asks for; "
        "get the right checkpoint"
    )
