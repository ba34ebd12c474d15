"""AlignScore's network (Zha et al. 2023, arXiv 2305.16739) and its published checkpoint layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import RobertaConfig, RobertaModel

from harness.contracts import RequestError
from harness.encoders.checkpoint import read_json
from harness.encoders.weights import fill, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

# The word predictor of the pre-training, which scores nothing, and a buffer of older transformers versions.
UNUSED = re.compile(r"mlm_head\..*|base_model\.embeddings\.position_ids")
EMBEDDINGS = "base_model.embeddings."
LAYER = "base_model.encoder.layer."
HEAD_WIDTH = 64  # of every published RoBERTa: 12 heads of 768 (base), 16 of 1024 (large)


class AlignNet(nn.Module):
    """RoBERTa with pooler, and the three heads on it. Trained with dropout, which scoring leaves out."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.base_model = RobertaModel(config)
        self.bin_layer = nn.Linear(config.hidden_size, 2)
        self.tri_layer = nn.Linear(config.hidden_size, 3)
        self.reg_layer = nn.Linear(config.hidden_size, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch,) probabilities in float32 that the claim is aligned; the other two classes: neutral, contradict."""
        found = self.base_model(input_ids=input_ids, attention_mask=attention_mask)
        logits: Tensor = self.tri_layer(found.pooler_output)
        return logits.float().softmax(dim=-1)[:, 0]


def read(file: Path) -> AlignNet:
    """The network with the weights of a .ckpt (under "state_dict"), .bin or .safetensors file, in float32.

    Its sizes come from a RoBERTa config.json beside the file, or else from the weights themselves.
    Raises RequestError for a file that cannot be read safely, and for a key that is missing, left over or of another
    shape.
    """
    found = read_tensors(file, "AlignScore's weights", mmap=True)  # the published files hold an optimizer's state, too
    tensors = {key: value.float() for key, value in found.items() if not UNUSED.fullmatch(key)}
    net = AlignNet(config_of(file, tensors))
    fill(net, tensors, file, "its size (or is the config.json beside it another model's?)")
    return net


def config_of(file: Path, tensors: dict[str, Tensor]) -> RobertaConfig:
    """Raises RequestError when the weights are not RoBERTa's."""
    beside = file.with_name("config.json")
    if beside.is_file():
        values = read_json(beside)
        if values.get("model_type") == "roberta":
            config: RobertaConfig = RobertaConfig.from_dict(values)
            return config
    names = [f"{EMBEDDINGS}{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    names.append(f"{LAYER}0.intermediate.dense.weight")
    lacking = set(names) - tensors.keys()
    if lacking:
        raise RequestError(f"{file}: expected AlignScore's weights, but the file lacks key {min(lacking)}")
    words, positions, types, inner = (tensors[name].shape[0] for name in names)
    width = tensors[names[0]].shape[1]
    layers = {key.removeprefix(LAYER).split(".")[0] for key in tensors if key.startswith(LAYER)}
    return RobertaConfig(
        vocab_size=words,
        max_position_embeddings=positions,
        type_vocab_size=types,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len(layers),
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
