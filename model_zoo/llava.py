"""LLaVA: a CLIP vision tower, a two-layer projector and a Llama or Mistral language model. 1.6 looks at tiles, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
)
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from harness.contracts import RequestError, Seen
from model_zoo.base.language import LanguageCaptioner
from model_zoo.base.sites import usual_sites

if TYPE_CHECKING:
    from torch import Tensor

IMAGE = "<image>"
LANGUAGE = r"model\.language_model\.layers\.\d+"
VISION = r"model\.vision_tower\.vision_model\.encoder\.layers\.\d+"


@dataclass(eq=False)
class LlavaFamily(LanguageCaptioner):
    """Base of LLaVA 1.5 and 1.6. The tokenizers put the blank before an answer themselves: `lead` stays empty.

    template: the prompt, with {images} (an image token and a line break each) and {question}.
    """

    template: str

    processor_class: ClassVar[Any]
    tower = "model.vision_tower"
    language = "model.language_model"
    entrance = (tower, "forward")
    sites = usual_sites(
        LANGUAGE,
        VISION,
        connector=r"model\.multi_modal_projector\.linear_[12]",
        embeddings=r"model\.language_model\.embed_tokens",
    )
    regions = (
        (r"model\.vision_tower", "vision"),
        (r"model\.(multi_modal_projector|image_newline)", "connector"),
        (r"model\.language_model\.embed_tokens", "embeddings"),
        (r"model\.language_model", "language"),
        (r"lm_head", "head"),
    )

    @property
    def unreached(self) -> tuple[str, ...]:
        """CLIP's layers behind the one that is read (-2: the last one), and its last norm."""
        layers = self.config.vision_config.num_hidden_layers
        read = range(layers + 1)[self.config.vision_feature_layer]  # 0 is the embedding
        vision = "model.vision_tower.vision_model"
        return (*(f"{vision}.encoder.layers.{layer}" for layer in range(read, layers)), f"{vision}.post_layernorm")

    @cached_property
    def processor(self) -> Any:
        """Image processor and tokenizer; how many image tokens a picture takes is said by the model's configuration."""
        return self.processor_class(
            self.image_processor,
            self.tokenizer,
            patch_size=self.config.vision_config.patch_size,
            vision_feature_select_strategy=self.config.vision_feature_select_strategy,
            num_additional_image_tokens=1,  # CLIP's class token; without it, one image token too few
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer. Some files do not list the image token as special: no question may spell it."""
        tokenizer = super().tokenizer
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_additional_special_tokens=False)
        found, expected = tokenizer.convert_tokens_to_ids(IMAGE), self.config.image_token_id
        if found != expected:
            raise RequestError(
                f"{self.folder()}: expected the token {IMAGE} with the id {expected} of config.json, "
                f"the tokenizer gives {found}; get a checkpoint whose files belong together"
            )
        return tokenizer

    @property
    def tied(self) -> bool:
        """Untied in all published checkpoints."""
        return bool(self.config.text_config.tie_word_embeddings)

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding id: 32001, added to Llama's vocabulary."""
        return int(self.tokenizer.pad_token_id)

    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """Prompt ids with the image tokens of each picture, and what the image processor makes of the pictures."""
        batch = self.processor(
            text=[self.template.format(images=f"{IMAGE}\n" * len(images), question=prompt)],
            images=list(images),
            # A picture of 3 rows would be taken for one of 3 channels.
            images_kwargs={"input_data_format": "channels_last"},
            return_tensors="pt",
        )
        vision = {key: torch.as_tensor(batch[key]) for key in ("pixel_values", "image_sizes") if key in batch}
        return Seen(batch["input_ids"][0].tolist(), vision)

    def watch(self, inputs: dict[str, Tensor]) -> Tensor:
        """(tiles, 1, patches, width) of the layer that is read; the second axis makes them pass for pixels."""
        kept: list[Tensor] = []

        def keep(module: Any, arguments: Any, output: Any) -> None:
            kept.append(output.hidden_states[self.config.vision_feature_layer])

        model: Any = self.model.get_submodule("model")
        with model.vision_tower.register_forward_hook(keep):
            model.get_image_features(**inputs)  # knows which of the tiles are fillers
        return kept[0][:, None]

    def replay(self, features: Tensor, *arguments: Any) -> Any:
        """CLIP's output, as far as it is read."""
        return SimpleNamespace(hidden_states={self.config.vision_feature_layer: features[:, 0]})


@dataclass(eq=False)
class Llava(LlavaFamily):
    """LlavaForConditionalGeneration (1.5): pixel_values (pictures, 3, height, width).

    square: what is done to a picture that is not square. "pad" adds borders of the mean colour, "crop" cuts the ends.
    """

    square: Literal["crop", "pad"]

    config_class = LlavaConfig
    model_class = LlavaForConditionalGeneration
    processor_class = LlavaProcessor
    image_processor_class = CLIPImageProcessor  # shortest edge to the size of the tower, then the centre of that size

    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """Prompt ids and pixels as the family makes them, of square pictures."""
        if self.square == "pad":
            mean = self.processor.image_processor.image_mean
            images = [padded(image, tuple(int(255 * part) for part in mean)) for image in images]
        return super().encode(images, prompt)


class LlavaNext(LlavaFamily):
    """LlavaNextForConditionalGeneration (1.6): pixel_values (pictures, tiles, 3, height, width) and image_sizes."""

    config_class = LlavaNextConfig
    model_class = LlavaNextForConditionalGeneration
    processor_class = LlavaNextProcessor
    image_processor_class = LlavaNextImageProcessor  # the whole, and tiles of the grid that fits best

    def places(self, size: tuple[int, int]) -> int:
        """As if no tile were cut: what is sorted by it needs no more."""
        vision = self.config.vision_config
        tiles = image_size_to_num_patches(size[::-1], self.config.image_grid_pinpoints, vision.image_size)
        return int(tiles * (vision.image_size // vision.patch_size) ** 2)


def padded(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The picture in the middle of a square (expand2square of haotian-liu/LLaVA)."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
