"""CNN-Transformer: DenseNet-121 features (CheXNet's, say) and a small transformer (a baseline, trained in full)."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from safetensors.torch import load_file
from transformers import ViTImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from harness.contracts import RUNTIME
from harness.encoders.checkpoint import read_json
from harness.encoders.weights import fill, read_tensors
from model_zoo.base.baseline import Baseline
from model_zoo.base.checkpoint import TEXT, Source, Weights, read_config, read_tokenizer, weight_files
from model_zoo.base.options import Float, Kind
from model_zoo.nets.cnn_transformer import CNNTransformerNet, DecoderConfig, DenseNetConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

COUNTERS = r".*\.num_batches_tracked"  # of BatchNorm, which some checkpoints lack


class CNNTransformer(Baseline):
    """A decoder over the encoded places of a DenseNet's last feature map.

    features: hub id or folder of a DenseNet with torchvision's key names, or the path of CheXNet's model.pth.tar.
    decoder: a folder, or None for a fresh one of the default sizes, drawn from `init_seed`. The twin has one.
    """

    keeps_keys = False
    regions = (
        (r"features", "vision"),
        (r"project|encoder", "connector"),  # what stands between the DenseNet and the decoder
        (r"decoder|positions", "language"),
        (r"words", "embeddings"),
    )
    tied = True

    def __init__(
        self,
        name: str,
        kind: Kind,
        weights: Weights,
        features: Annotated[str, RUNTIME],
        features_revision: Annotated[str | None, RUNTIME],
        decoder: Annotated[str | None, RUNTIME],
        tokenizer: Annotated[str, RUNTIME],
        tokenizer_revision: Annotated[str | None, RUNTIME],
        dtype: Float,
        init_seed: int,
        schedule: list[dict[str, Any]],
    ) -> None:
        sources = [
            Source(features, features_revision, "features"),
            Source(tokenizer, tokenizer_revision, "tokenizer", TEXT),
        ]
        if decoder is not None or weights == "embedded":
            sources.append(Source(decoder or "", None, "decoder"))
        super().__init__(name, kind, weights, dtype, "sdpa", sources, init_seed, schedule)

    @cached_property
    def configs(self) -> tuple[DenseNetConfig, DecoderConfig]:
        """The sizes of the DenseNet, and of encoder and decoder."""
        features = _densenet_config(self.config_folder("features"))
        if "decoder" in self.sources:
            return features, read_config(self.config_folder("decoder"), DecoderConfig)
        return features, DecoderConfig()

    @cached_property
    def tokenizer(self) -> Any:
        """GPT-2's tokenizer."""
        return read_tokenizer(self.folder("tokenizer"))

    @cached_property
    def image_processor(self) -> Any:
        """ImageNet's mean and deviation at the DenseNet's size."""
        side = self.configs[0].image_size
        return ViTImageProcessor(
            size={"height": side, "width": side}, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD
        )

    def longest_answer(self) -> int:
        """The decoder's positions, less the first token."""
        return self.configs[1].positions - 1

    def architecture(self) -> CNNTransformerNet:
        """The model as its configurations describe it."""
        return CNNTransformerNet(*self.configs)

    def read(self) -> nn.Module:
        """The model with its weights; without a decoder checkpoint its layers are drawn from `init_seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            model = self.architecture()
        features = self.folder("features")
        fill(model.features, read_features(features), features, may_lack=COUNTERS)
        if "decoder" in self.sources:
            decoder = self.folder("decoder")
            fill(model, _tensors(decoder), decoder, may_lack=rf"features\..*|{COUNTERS}")
        filled: nn.Module = model.to(self.compute)
        return filled


def _densenet_config(path: Path) -> DenseNetConfig:
    """Our own sizes, or DenseNet-121's for CheXNet's file and for timm's folders, which do not say them."""
    if path.is_file() or read_json(path / "config.json").get("architecture") == "densenet121":
        return DenseNetConfig()
    config: DenseNetConfig = read_config(path, DenseNetConfig)
    return config


def read_features(path: Path) -> dict[str, Tensor]:
    """The weights of a DenseNet without classifier, under the names of `DenseNet`."""
    tensors = _chexnet(path) if path.is_file() else _tensors(path)
    named = {key.removeprefix("features."): value for key, value in tensors.items()}
    return {key: value for key, value in named.items() if not key.startswith("classifier.")}


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {key: value for file in weight_files(folder) for key, value in load_file(file).items()}


def _chexnet(file: Path) -> dict[str, Tensor]:
    """arnoweng/CheXNet's model.pth.tar: keys of torchvision 0.1 behind `module.densenet121.`."""
    tensors = read_tensors(file, "CheXNet's model.pth.tar")
    named = {key.removeprefix("module.densenet121."): value for key, value in tensors.items()}
    return {re.sub(r"(denselayer\d+)\.(norm|conv)\.([12])\.", r"\1.\2\3.", key): named[key] for key in named}
