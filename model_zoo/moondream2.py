"""MoonDream2: a SigLIP tower that also looks at tiles, a projection, and Phi. Built here: the hub's code is not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from PIL import Image
from torch.nn.functional import interpolate

from harness.contracts import RequestError, Seen
from model_zoo.base.captioner import only_image, without_generation_defaults
from model_zoo.base.sites import usual_sites
from model_zoo.base.tower import PIXELS, TowerCaptioner
from model_zoo.nets.moondream2 import MoondreamConfig, MoondreamNet
from model_zoo.nets.moondream2_keys import fill

if TYPE_CHECKING:
    from torch import Tensor, nn

Layout = Literal["early", "later"]

LANGUAGE = r"text_model\.model\.layers\.\d+"
VISION = r"vision_encoder\.vision_model\.encoder\.layers\.\d+"
GRIDS = ((1, 1), (1, 2), (2, 1), (2, 2))  # (rows, columns) of tiles
QUESTION = 128  # positions kept for the question, so that a long answer does not reach beyond what was trained


@dataclass(eq=False)
class Moondream2(TowerCaptioner):
    """The MoonDream2 of 2024: what is on the hub from 2025-01 on has the same name and another architecture.

    layout: "early" for revisions before 2024-05-20, one view of 378 x 378 pixels; "later" adds up to four tiles.
    fused_qkv: whether query, key and value of a language layer are one matrix (as published) or three, to LoRA.
    """

    layout: Layout
    fused_qkv: bool

    config_class = MoondreamConfig
    tower = "vision_encoder"
    entrance = ("", "look")
    lead = " "
    tied = False
    sites = usual_sites(
        LANGUAGE,
        VISION,
        qkv=rf"{LANGUAGE}\.self_attn\.([qkv]_proj|Wqkv)",
        o=rf"{LANGUAGE}\.self_attn\.dense",
        mlp=rf"{LANGUAGE}\.mlp\.fc[12]",
        connector=r"projection\.fc[12]",
        head=r"text_model\.lm_head",
        embeddings=r"text_model\.model\.embed_tokens",
    )
    regions = (
        (r"vision_encoder", "vision"),
        (r"projection", "connector"),
        (r"text_model\.model\.embed_tokens", "embeddings"),
        (r"text_model\.lm_head", "head"),
        (r"text_model", "language"),
    )

    @cached_property
    def config(self) -> MoondreamConfig:
        """The checkpoint's configuration, the published sizes where it says nothing."""
        config: MoondreamConfig = super().config
        if "HfMoondream" in (config.architectures or ()):
            raise RequestError(
                f"{self.config_folder()}: expected the MoonDream2 of 2024, got a revision of 2025 or later, which is "
                "another network under the same name; set model.revision=2024-08-26"
            )
        return config

    @property
    def pad_id(self) -> int:
        """Padding with the stop token, as in the published code."""
        return self.stops[0]

    def longest_answer(self) -> int:
        """The language model's positions, less the first token, the picture and the room for a question."""
        return int(self.config.text_config.max_position_embeddings) - 1 - self.config.places - QUESTION

    def architecture(self) -> MoondreamNet:
        """The model as configuration and layout describe it."""
        return MoondreamNet(self.config, tiled=self.layout == "later", fused=self.fused_qkv)

    def read(self) -> nn.Module:
        """The model with its weights."""
        self.config._attn_implementation = self.attention
        with init_empty_weights():  # no second copy of the weights, but real buffers: no file holds those
            net = self.architecture()
        fill(net, self.folder(), self.compute)
        without_generation_defaults(net.text_model)
        return net

    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """Ids with a place-holder per image token, pixel_values (views, 3, side, side) and tiles (1, 2)."""
        image = only_image(self.name, images)
        text = self.tokenizer(f"\n\nQuestion: {prompt}\n\nAnswer:", add_special_tokens=False)["input_ids"]
        start = self.tokenizer.bos_token_id
        views, grid = picture_views(image, self.config.vision_config.image_size, tiled=self.layout == "later")
        vision = {"pixel_values": views, "tiles": torch.tensor([grid])}
        return Seen([start] * (1 + self.config.places) + list(text), vision)

    def watch(self, inputs: dict[str, Tensor]) -> Tensor:
        """(1, places, features) of one row."""
        model: Any = self.model
        features: Tensor = model.watch(inputs[PIXELS], inputs["tiles"])
        return features

    def replay(self, features: Tensor, *arguments: Any) -> Any:
        """Image tokens (pictures, places, width), as the projection makes them."""
        return self.model.get_submodule("projection")(features)


def picture_views(image: Image.Image, side: int, tiled: bool) -> tuple[Tensor, tuple[int, int]]:
    """The whole picture and its tiles, (views, 3, side, side) from -1 to 1, and how many (rows, columns) of tiles."""
    rows, columns = _grid(*image.size, side) if tiled else (1, 1)
    resized = image.convert("RGB").resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 127.5 - 1
    if rows * columns == 1:
        return pixels, (0, 0)
    tiles = [tile for band in pixels.chunk(rows, dim=2) for tile in band.chunk(columns, dim=3)]
    return torch.cat([interpolate(pixels, size=(side, side), mode="bilinear"), *tiles]), (rows, columns)


def _grid(width: int, height: int, side: int) -> tuple[int, int]:
    """(rows, columns) of tiles: closest aspect ratio, then size; one view for a picture below 512 of 378 pixels."""
    if max(width, height) < side * 512 // 378:
        return 1, 1

    def distance(grid: tuple[int, int]) -> tuple[float, int]:
        rows, columns = grid[0] * side, grid[1] * side
        # Rows against width, as the checkpoint was trained; it decides only between ratios that are equally close.
        return abs(columns / rows - width / height), abs(rows - width) + abs(columns - height)

    return min(GRIDS, key=distance)
