"""MoonDream2 from transformers' parts: a SigLIP tower over views of a picture, a projection, and Phi.

The published code (vikhyat/moondream@211cc2f, and @8fa2f2c before there were tiles) computes the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM, PretrainedConfig, PreTrainedModel, SiglipVisionConfig
from transformers import SiglipVisionModel as Siglip
from transformers.models.phi.modeling_phi import PhiAttention

VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 378,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-5,  # torch's default in the published code; SigLIP's own 1e-6 is measurably off
    "vision_use_head": False,
}
"""The published tower: constants of moondream/vision_encoder.py, which the hub's config.json does not repeat."""

END = 50256  # GPT-2's end of text; all other defaults of moondream/configuration_moondream.py are PhiConfig's own


class MoondreamConfig(PretrainedConfig):
    """Sizes of the hub's config.json, and the published ones where it says nothing."""

    model_type = "moondream1"  # of MoonDream2, too
    sub_configs = {"text_config": PhiConfig, "vision_config": SiglipVisionConfig}  # noqa: RUF012 (as in transformers)

    def __init__(
        self,
        text_config: dict[str, Any] | None = None,
        vision_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.text_config = PhiConfig(**({"bos_token_id": END, "eos_token_id": END} | (text_config or {})))
        self.vision_config = SiglipVisionConfig(**(VISION | (vision_config or {})))
        super().__init__(**(kwargs | {"tie_word_embeddings": False}))

    @property
    def places(self) -> int:
        """Image tokens of a picture, whatever its size."""
        side: int = self.vision_config.image_size // self.vision_config.patch_size
        return side**2


class FusedAttention(PhiAttention):
    """Phi's attention with one linear layer for query, key and value, as the published checkpoint has it.

    Phi's own `forward` hands its input to three projections and to nothing else, so it gets the joint projection as
    input, and the three only take their part of it.
    """

    def __init__(self, config: PhiConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        del self.q_proj, self.k_proj, self.v_proj
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
        """As PhiAttention's."""
        return super().forward(self.Wqkv(hidden_states), **kwargs)

    def q_proj(self, joint: Tensor) -> Tensor:
        """Queries: the first third."""
        return joint.chunk(3, dim=-1)[0]

    def k_proj(self, joint: Tensor) -> Tensor:
        """Keys: the second third."""
        return joint.chunk(3, dim=-1)[1]

    def v_proj(self, joint: Tensor) -> Tensor:
        """Values: the last third."""
        return joint.chunk(3, dim=-1)[2]


class Projection(nn.Module):
    """Vision features to word embeddings, (..., features) -> (..., width)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, 4 * width)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Two linear layers."""
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class MoondreamNet(PreTrainedModel):
    """tiled: each place is seen twice, in the whole picture and in its tiles. fused: one Wqkv per language layer."""

    config_class = MoondreamConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: MoondreamConfig, tiled: bool, fused: bool) -> None:
        super().__init__(config)
        self.tiled = tiled
        self.vision_encoder = Siglip(config.vision_config)
        self.projection = Projection(
            config.vision_config.hidden_size * (2 if tiled else 1), config.text_config.hidden_size
        )
        self.text_model = PhiForCausalLM(config.text_config)
        if fused:
            for index, layer in enumerate(self.text_model.model.layers):
                layer.self_attn = FusedAttention(config.text_config, index)
                layer.self_attn.apply(self.text_model._init_weights)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        embeddings: nn.Module = self.text_model.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The language model's."""
        head: nn.Module = self.text_model.get_output_embeddings()
        return head

    def enable_input_require_grads(self) -> None:
        """For checkpointing: in both towers, or adapters in the frozen vision tower would get no gradient."""
        self.text_model.enable_input_require_grads()
        self.vision_encoder.enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        """Undo it."""
        self.text_model.disable_input_require_grads()
        self.vision_encoder.disable_input_require_grads()

    def watch(self, pixel_values: Tensor, tiles: Tensor) -> Tensor:
        """Features of each place, (pictures, places, features).

        pixel_values: the views of all pictures, (views, 3, side, side), of each picture the whole and then its tiles
        row by row. tiles: how many (rows, columns) of them, (pictures, 2).
        """
        seen = self.vision_encoder(pixel_values).last_hidden_state
        if self.tiled:
            views = seen.split((tiles.prod(dim=1) + 1).tolist())
            seen = torch.stack([_twice(own, *grid) for own, grid in zip(views, tiles.tolist(), strict=True)])
        return seen  # type: ignore[no-any-return]

    def look(self, pixel_values: Tensor, tiles: Tensor) -> Tensor:
        """Image tokens (pictures, places, width)."""
        return self.projection(self.watch(pixel_values, tiles))  # type: ignore[no-any-return]

    def embed(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, tiles: Tensor) -> Tensor:
        """Word embeddings (pictures, length, width), image tokens standing after the first token of each row."""
        images = self.look(pixel_values, tiles)
        order = attention_mask.cumsum(dim=1)
        places = attention_mask.bool() & (order > 1) & (order <= images.shape[1] + 1)
        words = self.get_input_embeddings()(input_ids)
        return words.masked_scatter(places[..., None].expand_as(words), images.to(words.dtype))  # type: ignore[no-any-return]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, tiles: Tensor) -> Any:
        """Logits (pictures, length, vocabulary) as `.logits`; what the ids at image places are does not matter."""
        words = self.embed(input_ids, attention_mask, pixel_values, tiles)
        return self.text_model(inputs_embeds=words, attention_mask=attention_mask, use_cache=False)

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, tiles: Tensor, **options: Any
    ) -> Tensor:
        """Prompt and new ids. As in the published code, a repetition penalty does not look at the prompt."""
        words = self.embed(input_ids, attention_mask, pixel_values, tiles)
        new = self.text_model.generate(inputs_embeds=words, attention_mask=attention_mask, **options)
        return torch.cat([input_ids, new], dim=1)


def _twice(views: Tensor, rows: int, columns: int) -> Tensor:
    """The whole beside its stitched tiles, shrunk to as many places; (views, places, C) -> (places, 2 C).

    Bilinear shrinking to a half, as published, is the mean of neighbours; later repository code says so itself.
    """
    whole, parts = views[0], views[1:]
    if not len(parts):
        return torch.cat([whole, whole], dim=-1)
    side = round(parts.shape[1] ** 0.5)
    stitched = parts.reshape(rows, columns, side, side, -1).transpose(1, 2)
    shrunk = stitched.reshape(side, rows, side, columns, -1).mean(dim=(1, 3))
    return torch.cat([whole, shrunk.flatten(0, 1)], dim=-1)
