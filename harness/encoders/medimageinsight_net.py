"""MedImageInsight (Codella et al. 2024, arXiv 2410.06542): a DaViT beside a transformer that reads the whole text.

DaViT (Ding et al. 2022, arXiv 2204.03645) has turns of attention among the places of a window and among channels. The
modules carry the names of the published weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import QuickGELUActivation


@dataclass(frozen=True)
class VisionSizes:
    """Sizes of the image encoder; lists have one entry per stage."""

    patch: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    prenorm: Sequence[bool]
    widths: Sequence[int]
    heads: Sequence[int]
    groups: Sequence[int]
    depths: Sequence[int]
    window: int


@dataclass(frozen=True)
class LanguageSizes:
    """Sizes of the text encoder."""

    vocabulary: int
    context: int
    width: int
    heads: int
    layers: int


class Residual(nn.Module):
    """x + fn(norm(x)); (N, H, W, C) in and out."""

    def __init__(self, fn: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        new: Tensor = self.fn(x if self.norm is None else self.norm(x))
        return x + new


class DepthwiseConv(nn.Module):
    """3x3 per channel. Its zero padding is all that tells DaViT where in the picture it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) in and out."""
        new: Tensor = self.dw(x.permute(0, 3, 1, 2))
        return new.permute(0, 2, 3, 1)


class MLP(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = (("fc1", nn.Linear(width, 4 * width)), ("act", nn.GELU()), ("fc2", nn.Linear(4 * width, width)))
        self.net = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) in and out."""
        new: Tensor = self.net(x)
        return new


class WindowAttention(nn.Module):
    """Attention among the places of one window. Windows at the border are filled up with zeros, which take part."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) in and out."""
        count, height, width, channels = x.shape
        side = self.window
        x = functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.view(count, rows, side, columns, side, channels).transpose(2, 3).reshape(-1, side * side, channels)
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.proj(x).view(count, rows, columns, side, side, channels).transpose(2, 3)
        return x.reshape(count, rows * side, columns * side, channels)[:, :height, :width]


class ChannelAttention(nn.Module):
    """Attention among the channels of one group, each described by its values at all places."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) in and out."""
        count, height, width, channels = x.shape
        places = height * width
        split = (count, places, 3, self.groups, channels // self.groups)
        q, k, v = self.qkv(x).view(split).permute(2, 0, 3, 4, 1)  # each (N, groups, channels of one, places)
        new = functional.scaled_dot_product_attention(q, k, v, scale=places**-0.5)
        out: Tensor = self.proj(new.permute(0, 3, 1, 2).reshape(x.shape))
        return out


class Block(nn.Module):
    """Convolution, attention (registered as `name`), convolution, MLP."""

    def __init__(self, width: int, name: str, attention: nn.Module) -> None:
        super().__init__()
        self.conv1 = Residual(DepthwiseConv(width))
        self.add_module(name, Residual(attention, nn.LayerNorm(width)))
        self.conv2 = Residual(DepthwiseConv(width))
        self.ffn = Residual(MLP(width), nn.LayerNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) in and out."""
        for part in self.children():  # in the order of registration
            x = part(x)
        return x


class Embed(nn.Module):
    """Strided convolution from one stage to the next, normalised before (`prenorm`) or after it."""

    def __init__(self, inputs: int, width: int, sizes: VisionSizes, stage: int) -> None:
        super().__init__()
        self.prenorm = sizes.prenorm[stage]
        self.proj = nn.Conv2d(inputs, width, sizes.patch[stage], sizes.stride[stage], sizes.padding[stage])
        self.norm = nn.LayerNorm(inputs if self.prenorm else width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, inputs) -> (N, H / stride, W / stride, width)."""
        x = self.norm(x) if self.prenorm else x
        x = self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x if self.prenorm else self.norm(x)


class DaViT(nn.Module):
    """(N, 3, H, W) -> (N, width of the last stage): the normalised mean over all places."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        inputs = (3, *sizes.widths)
        self.convs = nn.ModuleList(
            Embed(inputs[stage], width, sizes, stage) for stage, width in enumerate(sizes.widths)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_pair(sizes, stage) for _ in range(depth))) for stage, depth in enumerate(sizes.depths)
        )
        self.norms = nn.LayerNorm(sizes.widths[-1])

    def forward(self, pixels: Tensor) -> Tensor:
        """One vector per picture."""
        x = pixels.permute(0, 2, 3, 1)
        for embed, blocks in zip(self.convs, self.blocks, strict=True):
            x = blocks(embed(x))
        found: Tensor = self.norms(x.mean(dim=(1, 2)))
        return found


def _pair(sizes: VisionSizes, stage: int) -> nn.Sequential:
    width = sizes.widths[stage]
    spatial = Block(width, "window_attn", WindowAttention(width, sizes.heads[stage], sizes.window))
    channel = Block(width, "channel_attn", ChannelAttention(width, sizes.groups[stage]))
    return nn.Sequential(OrderedDict(spatial_block=spatial, channel_block=channel))


class SelfAttention(nn.Module):
    """Attention among the tokens of a text, under the parameter names of torch's MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (N, T, C); mask (N, 1, 1, T), False for padding."""
        count, length, width = x.shape
        split = (count, length, 3, self.heads, width // self.heads)
        q, k, v = functional.linear(x, self.in_proj_weight, self.in_proj_bias).view(split).permute(2, 0, 3, 1, 4)
        new = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(new)
        return out


class TextLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=1e-12)
        layers = (
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", QuickGELUActivation()),
            ("c_proj", nn.Linear(4 * width, width)),
        )
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (N, T, C), mask (N, 1, 1, T)."""
        x = x + self.attn(self.ln_1(x), mask)
        new: Tensor = self.mlp(self.ln_2(x))
        return x + new


class TextEncoder(nn.Module):
    """(N, T) token ids -> (N, width) at the first token of the highest id, which is the end of the text."""

    def __init__(self, sizes: LanguageSizes) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.context, sizes.width))
        self.resblocks = nn.ModuleList(TextLayer(sizes.width, sizes.heads) for _ in range(sizes.layers))
        self.ln_final = nn.LayerNorm(sizes.width, eps=1e-12)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """mask (N, T): False for padding, which no token looks at, so that its length does not matter."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for layer in self.resblocks:
            x = layer(x, mask[:, None, None, :])
        x = self.ln_final(x)
        last: Tensor = x[torch.arange(len(x), device=x.device), ids.argmax(dim=-1)]
        return last


class PairNet(nn.Module):
    """Both encoders and their projections into one space. `logit_scale` is for training and classification only."""

    def __init__(self, vision: VisionSizes, language: LanguageSizes, width: int) -> None:
        super().__init__()
        self.image_encoder = DaViT(vision)
        self.lang_encoder = TextEncoder(language)
        self.image_projection = nn.Parameter(torch.empty(vision.widths[-1], width))
        self.lang_projection = nn.Parameter(torch.empty(language.width, width))
        self.logit_scale = nn.Parameter(torch.ones([]))
        for projection in (self.image_projection, self.lang_projection):
            nn.init.normal_(projection, std=0.02)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, width) of length 1."""
        return functional.normalize(self.image_encoder(pixels) @ self.image_projection, dim=-1)

    def encode_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) ids and mask -> (N, width) of length 1."""
        return functional.normalize(self.lang_encoder(ids, mask) @ self.lang_projection, dim=-1)
