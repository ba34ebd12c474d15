"""VisionGPT2: a ViT and GPT-2 in lockstep, joined by new cross-attention layers (a baseline, trained in full).

After the public design shreydan/VisionGPT2@4c50488, without its mistakes: GPT-2's pre-MLP norm stays where it belongs,
training text starts with the token that generation starts with, and pictures are neither flipped nor rotated.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTImageProcessor, ViTModel

from harness.contracts import RUNTIME, RequestError
from model_zoo.base.baseline import Baseline
from model_zoo.base.captioner import without_generation_defaults
from model_zoo.base.checkpoint import Source, Weights, read_config, read_image_processor, read_model, read_tokenizer
from model_zoo.base.options import Attention, Float, Kind
from model_zoo.nets.visiongpt2 import VisionGPT2Net

if TYPE_CHECKING:
    from torch import nn

NEW = r"transformer\.h\.\d+\.(crossattention|ln_cross_attn)\..*"
UNUSED = r"(vit\.)?(layernorm|pooler)\..*|classifier\..*"


class VisionGPT2(Baseline):
    """GPT-2 block i reads the output of ViT block i; the picture enters by cross-attention.

    init_seed: of the cross-attention, where the text checkpoint has none.
    """

    regions = (
        (r"vit", "vision"),
        (r"gpt2\.transformer\.wte", "embeddings"),
        (r"gpt2\.transformer", "language"),  # cross-attention too, as IDEFICS' counts as language layers
        (r"gpt2\.lm_head", "head"),
    )

    def __init__(
        self,
        name: str,
        kind: Kind,
        weights: Weights,
        vision: Annotated[str, RUNTIME],
        vision_revision: Annotated[str | None, RUNTIME],
        text: Annotated[str, RUNTIME],
        text_revision: Annotated[str | None, RUNTIME],
        dtype: Float,
        attention: Annotated[Attention, RUNTIME],
        init_seed: int,
        schedule: list[dict[str, Any]],
    ) -> None:
        sources = [Source(vision, vision_revision, "vision"), Source(text, text_revision, "text")]
        super().__init__(name, kind, weights, dtype, attention, sources, init_seed, schedule)

    @cached_property
    def configs(self) -> tuple[Any, Any]:
        """The configurations of ViT and GPT-2, which must fit each other."""
        vision = read_config(self.config_folder("vision"), ViTConfig)
        text = read_config(self.config_folder("text"), GPT2Config)
        shapes = [(vision.num_hidden_layers, vision.hidden_size), (text.n_layer, text.n_embd)]
        if shapes[0] != shapes[1]:
            raise RequestError(
                f"{self.name}: expected a ViT and a GPT-2 of as many blocks and the same width, got (blocks, width) "
                f"{shapes[0]} and {shapes[1]}; choose another pair"
            )
        text.add_cross_attention = True
        return vision, text

    @cached_property
    def tokenizer(self) -> Any:
        """GPT-2's tokenizer."""
        return read_tokenizer(self.folder("text"))

    @cached_property
    def image_processor(self) -> Any:
        """The checkpoint's own."""
        return read_image_processor(ViTImageProcessor, self.folder("vision"))

    @property
    def tied(self) -> bool:
        """GPT-2's head is its embedding."""
        return bool(self.configs[1].tie_word_embeddings)

    def longest_answer(self) -> int:
        """GPT-2's positions, less the first token."""
        return int(self.configs[1].n_positions) - 1

    def architecture(self) -> nn.Module:
        """The model as the two config.json describe it."""
        vision, text = self.configs
        return VisionGPT2Net(ViTModel(vision, add_pooling_layer=False), GPT2LMHeadModel(text))

    def read(self) -> nn.Module:
        """The model with its weights; cross-attention that no checkpoint holds is drawn from `init_seed`."""
        vision, text = self.configs
        kind = (self.compute, self.attention)
        vit = read_model(ViTModel, self.folder("vision"), vision, *kind, UNUSED, UNUSED, add_pooling_layer=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            gpt2 = read_model(GPT2LMHeadModel, self.folder("text"), text, *kind, may_lack=NEW)
        return VisionGPT2Net(vit, without_generation_defaults(gpt2))
