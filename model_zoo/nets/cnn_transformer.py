"""DenseNet features, a small transformer encoder over their places, and a transformer decoder that writes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class DenseNetConfig(PretrainedConfig):
    """Sizes of a DenseNet, DenseNet-121's where none is given."""

    model_type = "densenet"
    image_size: int = 224
    channels: int = 64
    growth: int = 32
    depths: Sequence[int] = (6, 12, 24, 16)

    @property
    def features(self) -> int:
        """Channels of the last feature map."""
        channels = self.channels
        for place, depth in enumerate(self.depths):
            channels += depth * self.growth
            channels //= 1 if place == len(self.depths) - 1 else 2
        return channels


class DecoderConfig(PretrainedConfig):
    """Sizes of encoder and decoder; those that stand here give the published total of 48 million parameters."""

    model_type = "cnn_transformer"
    vocab_size: int = 50257
    width: int = 512
    hidden: int = 2048
    layers: int = 2
    heads: int = 8
    positions: int = 128
    dropout: float = 0.1


class DenseLayer(nn.Module):
    """Bottleneck and 3x3 convolution whose result is appended to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels + growth, H, W)."""
        new = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(new)))], dim=1)


class DenseNet(nn.Sequential):
    """The convolutional part of a DenseNet with torchvision's key names; (N, 3, H, W) -> (N, features, H/32, W/32).

    BatchNorm uses its stored statistics in training too, so that neither the size of a micro-batch nor a frozen
    block's drifting statistics change what is learnt. `learn_statistics` is for training from nothing.
    """

    def __init__(self, config: DenseNetConfig) -> None:
        growth, channels = config.growth, config.channels
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(channels),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        for block, depth in enumerate(config.depths, start=1):
            layers = [(f"denselayer{i + 1}", DenseLayer(channels + growth * i, growth)) for i in range(depth)]
            parts[f"denseblock{block}"] = nn.Sequential(OrderedDict(layers))
            channels += growth * depth
            if block < len(config.depths):
                parts[f"transition{block}"] = _transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        parts["relu5"] = nn.ReLU()  # torchvision applies it outside of `features`
        super().__init__(parts)
        self.learn_statistics = False

    def train(self, mode: bool = True) -> DenseNet:
        """As usual, but for BatchNorm."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = mode and self.learn_statistics
        return self


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


class CNNTransformerNet(PreTrainedModel, GenerationMixin):
    """Generates without a cache: two layers over at most 128 positions are quicker recomputed than kept."""

    config_class = DecoderConfig
    main_input_name = "input_ids"

    def __init__(self, features: DenseNetConfig, config: DecoderConfig) -> None:
        super().__init__(config)
        width, sizes = config.width, (config.width, config.heads, config.hidden, config.dropout)
        self.features = DenseNet(features)
        self.project = nn.Linear(features.features, width)
        self.encoder = nn.ModuleList(nn.TransformerEncoderLayer(*sizes, batch_first=True) for _ in range(config.layers))
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(*sizes, batch_first=True) for _ in range(config.layers))
        self.words = nn.Embedding(config.vocab_size, width)  # also the output layer (tied)
        self.positions = nn.Embedding(config.positions, width)
        for embedding in (self.words, self.positions):
            nn.init.normal_(embedding.weight, std=width**-0.5)

    def look(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, H, W) -> the encoded places of the feature map, (N, places, width)."""
        maps: Tensor = self.features(pixel_values)
        x: Tensor = self.project(maps.flatten(2).transpose(1, 2)) + _places(maps, self.config.width)
        for layer in self.encoder:
            x = layer(x)
        return x

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        memory: Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits (N, length, vocabulary), from pictures or from what `look` made of them.

        The mask is not needed: padding is on the right, where nothing looks.
        """
        if pixel_values is not None:
            memory = self.look(pixel_values)
        if memory is None:
            raise ValueError("expected pixel_values or memory, got neither")
        length = input_ids.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=memory.device, dtype=memory.dtype)
        x = self.words(input_ids) + self.positions.weight[:length]
        for layer in self.decoder:
            x = layer(x, memory, tgt_mask=causal, tgt_is_causal=True)
        return CausalLMOutput(logits=nn.functional.linear(x, self.words.weight))

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, memory: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Tensor]:
        """The whole text so far at each step."""
        return {"input_ids": input_ids, "memory": memory}

    def generate(self, input_ids: Tensor, pixel_values: Tensor, **options: Any) -> Any:
        """The usual generation; the pictures are encoded once."""
        return super().generate(input_ids, memory=self.look(pixel_values), use_cache=False, **options)


def _places(maps: Tensor, width: int) -> Tensor:
    """Sines and cosines of row and column, (1, H*W, width): half of the channels each, without parameters."""
    rows, columns = maps.shape[2:]
    quarter = width // 4
    rates = torch.exp(torch.arange(quarter, device=maps.device) * (-math.log(100.0) / quarter))

    def waves(count: int) -> Tensor:
        angles = torch.arange(count, device=maps.device)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    vertical = waves(rows)[:, None].expand(-1, columns, -1)
    horizontal = waves(columns)[None].expand(rows, -1, -1)
    return torch.cat([vertical, horizontal], dim=2).flatten(0, 1)[None].to(maps.dtype)
