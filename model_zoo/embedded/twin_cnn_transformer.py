"""CNN-Transformer's twin: 0.6 million parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from model_zoo.base.captioner import HFCaptioner
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import Twin
from model_zoo.embedded._words import describe_or_read, write_gpt2_tokenizer
from model_zoo.nets.cnn_transformer import CNNTransformerNet, DecoderConfig, DenseNetConfig


def write(folder: Path) -> None:
    """A DenseNet of 16 layers on 96 pixels, 3x3 places; width 96."""
    positions = 128
    vocabulary = write_gpt2_tokenizer(folder / "tokenizer", positions)
    features = DenseNetConfig(image_size=96, channels=16, growth=12, depths=(2, 2, 3, 3))
    decoder = DecoderConfig(
        vocab_size=vocabulary, width=96, hidden=256, layers=2, heads=4, positions=positions, dropout=0.0
    )
    features.save_pretrained(folder / "features")
    decoder.save_pretrained(folder / "decoder")
    save(CNNTransformerNet(features, decoder), folder)


def begin(captioner: HFCaptioner) -> None:
    """From nothing, BatchNorm's statistics are part of what is learnt."""
    net: Any = captioner.model
    net.features.learn_statistics = True


def save(model: CNNTransformerNet, folder: Path) -> None:
    """Features under torchvision's names, the rest beside them."""
    state = model.state_dict()
    seen = {key: value for key, value in state.items() if key.startswith("features.")}
    save_file(seen, folder / "features" / "model.safetensors", {"format": "pt"})
    rest = {key: value for key, value in state.items() if key not in seen}
    save_file(rest, folder / "decoder" / "model.safetensors", {"format": "pt"})


CHECKPOINTS = {"cnn_transformer": Twin(write, describe_or_read, Recipe(pictures=12000, steps=4500), begin, save)}
