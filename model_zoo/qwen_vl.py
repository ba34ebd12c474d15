"""Qwen2-VL and Qwen2.5-VL: a vision tower for any picture size, a merger of 2x2 patches and a Qwen2 language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from PIL import Image
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

from harness.contracts import RequestError, Seen, Site
from harness.encoders.checkpoint import read_json
from model_zoo.base.sites import usual_sites
from model_zoo.base.tower import PIXELS, TowerCaptioner

if TYPE_CHECKING:
    from torch import Tensor

LANGUAGE = r"model\.language_model\.layers\.\d+"
VISION = r"model\.visual\.blocks\.\d+"
THINNEST = 200  # the image processor refuses a picture whose longer side is more than so many times the shorter one


@dataclass(eq=False)
class QwenVL(TowerCaptioner):
    """Base of both generations. The processor classes would need torchvision: image processor and tokenizer do not.

    min_pixels, max_pixels: a picture is resized to an area between the two; (patch * merge)^2 pixels are one token.
    A picture thinner than 200:1 gets black bars along its longer sides, since the vision tower knows no such shape.
    """

    min_pixels: int
    max_pixels: int

    image_processor_class = Qwen2VLImageProcessor
    tower = "model.visual"
    entrance = (tower, "forward")
    sites = usual_sites(
        LANGUAGE,
        VISION,
        v_qkv=rf"{VISION}\.attn\.qkv",
        v_o=rf"{VISION}\.attn\.proj",
        v_mlp=rf"{VISION}\.mlp\.(fc[12]|(gate|up|down)_proj)",
        connector=r"model\.visual\.merger\.mlp\.[02]",
        embeddings=r"model\.language_model\.embed_tokens",
    ) | {"head": Site("lm_head", "embeddings")}  # tied in both checkpoints
    regions = (
        (r"model\.visual\.merger", "connector"),
        (r"model\.visual", "vision"),
        (r"model\.language_model\.embed_tokens", "embeddings"),
        (r"model\.language_model", "language"),
        (r"lm_head", "head"),
    )

    def __post_init__(self) -> None:
        """Check the range of areas."""
        super().__post_init__()
        if not 0 < self.min_pixels <= self.max_pixels:
            raise RequestError(
                f"{self.name}: expected 0 < min_pixels <= max_pixels, got {self.min_pixels} and {self.max_pixels}"
            )

    @cached_property
    def config(self) -> Any:
        """The checkpoint's configuration."""
        config = super().config
        # Both levels are asked for it; a disagreement would leave a random head.
        config.text_config.tie_word_embeddings = config.tie_word_embeddings
        return config

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer, with the chat template for pictures."""
        tokenizer = super().tokenizer
        older = self.folder() / "chat_template.json"  # beside older checkpoints; only a processor would read it
        if older.is_file():
            tokenizer.chat_template = read_json(older)["chat_template"]
        return tokenizer

    @property
    def stops(self) -> tuple[int, ...]:
        """The end of a turn, as in the chat template, and the end of a text."""
        return tuple(self.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))

    @property
    def pad_id(self) -> int:
        """The end of a text."""
        return self.stops[1]

    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """Chat-template ids, pixel_values (patches, patch values) of all pictures and image_grid_thw (pictures, 3)."""
        vision = self.image_processor(
            [widened(image) for image in images],
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            # A picture of 3 rows would be taken for one of 3 channels.
            input_data_format="channels_last",
            return_tensors="pt",
        )
        tokens = (vision["image_grid_thw"].prod(1) // self.image_processor.merge_size**2).tolist()
        keys = ("pixel_values", "image_grid_thw")
        return Seen(self._expanded(self._chat(len(images), prompt), tokens), {key: vision[key] for key in keys})

    def _chat(self, images: int, prompt: str) -> list[int]:
        content = [{"type": "image"}] * images + [{"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _expanded(self, ids: list[int], tokens: list[int]) -> list[int]:
        """The ids with each picture's one mark repeated for all its tokens."""
        mark, counts = self.config.image_token_id, iter(tokens)
        if ids.count(mark) != len(tokens):
            raise RequestError(
                f"{self.name}: expected a chat template with one image token ({mark}) per picture, "
                f"got {ids.count(mark)} for {len(tokens)}; use the checkpoint's own chat_template and tokenizer"
            )
        return [token for i in ids for token in ([i] * next(counts) if i == mark else [i])]

    def watch(self, inputs: dict[str, Tensor]) -> Tensor:
        """(patches, width) of one row, as the merger gets them, in the order of the patches."""
        kept: list[Tensor] = []
        visual, grid = self.model.get_submodule(self.tower), inputs["image_grid_thw"]
        with visual.get_submodule("merger").register_forward_pre_hook(lambda _, given: kept.append(given[0])):
            visual(inputs[PIXELS], grid_thw=grid)
        return self.in_order(kept[0], grid)

    def in_order(self, features: Tensor, grid: Tensor) -> Tensor:
        """Features in the order of the patches: here they are."""
        del grid
        return features

    def replay(self, features: Tensor, *arguments: Any) -> Any:
        """Image tokens (tokens, width), as the merger makes them."""
        return self.model.get_submodule("model.visual.merger")(features)

    def places(self, size: tuple[int, int]) -> int:
        """The area after resizing, in tokens."""
        side = self.image_processor.patch_size * self.image_processor.merge_size
        return int(min(max(size[0] * size[1], self.min_pixels), self.max_pixels) // side**2)


class Qwen2VL(QwenVL):
    """Qwen2VLForConditionalGeneration, as Qwen/Qwen2-VL-2B-Instruct stores it."""

    config_class = Qwen2VLConfig
    model_class = Qwen2VLForConditionalGeneration


class Qwen25VL(QwenVL):
    """Qwen2_5_VLForConditionalGeneration, as Qwen/Qwen2.5-VL-3B-Instruct stores it: most vision blocks see windows."""

    config_class = Qwen2_5_VLConfig
    model_class = Qwen2_5_VLForConditionalGeneration

    def in_order(self, features: Tensor, grid: Tensor) -> Tensor:
        """Out of the order of the windows, in which the blocks work and the merger is called."""
        visual: Any = self.model.get_submodule(self.tower)
        windows, _ = visual.get_window_index(grid)
        groups = features.view(len(windows), -1, features.shape[-1])
        return groups[windows.argsort()].flatten(0, 1)


def widened(image: Image.Image) -> Image.Image:
    """The picture, centred between black bars when it is too thin for the image processor."""
    least = math.ceil(max(image.size) / THINNEST)
    if min(image.size) >= least:
        return image
    width, height = (max(side, least) for side in image.size)
    wide = Image.new("RGB", (width, height))
    wide.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return wide
