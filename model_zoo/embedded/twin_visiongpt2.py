"""VisionGPT2's twin: 0.7 million parameters."""

from __future__ import annotations

from pathlib import Path

from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTImageProcessor, ViTModel

from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import VISION, Twin
from model_zoo.embedded._words import describe_or_read, write_gpt2_tokenizer
from model_zoo.nets.visiongpt2 import VisionGPT2Net


def write(folder: Path) -> None:
    """Three blocks of width 96; 64 pixels in patches of 8."""
    positions = 256
    vocabulary = write_gpt2_tokenizer(folder / "text", positions)
    end = vocabulary - 1
    sizes = {"hidden_size": 96, "intermediate_size": 256, "patch_size": 8, "initializer_range": 0.05}
    vision = ViTConfig(**(VISION | sizes))
    text = GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=96,
        n_layer=3,
        n_head=4,
        n_inner=256,
        bos_token_id=end,
        eos_token_id=end,
        add_cross_attention=True,
        initializer_range=0.05,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    save(VisionGPT2Net(ViTModel(vision, add_pooling_layer=False), GPT2LMHeadModel(text)), folder)
    ViTImageProcessor(size={"height": vision.image_size, "width": vision.image_size}).save_pretrained(folder / "vision")


def save(model: VisionGPT2Net, folder: Path) -> None:
    """Both parts, each with its configuration."""
    model.vit.save_pretrained(folder / "vision")  # type: ignore[operator]
    model.gpt2.save_pretrained(folder / "text")


CHECKPOINTS = {"visiongpt2": Twin(write, describe_or_read, Recipe(pictures=12000, steps=5000), save=save)}
