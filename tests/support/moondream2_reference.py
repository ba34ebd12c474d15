"""MoonDream2 once more, written out from its published description: keys as on the hub, plain matrices, no cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.support.captioners import TWINS

SIDE, PATCH, WIDTH, HEADS, DEPTH, MLP = 42, 14, 32, 4, 2, 48
WORDS, TEXT_HEADS, TEXT_DEPTH, TEXT_MLP = 40, 2, 3, 56
CONFIG = {
    "architectures": ["Moondream"],
    "model_type": "moondream1",
    "torch_dtype": "float16",
    "auto_map": {"AutoConfig": "configuration_moondream.MoondreamConfig"},
    "text_config": {
        "model_type": "phi",
        "hidden_size": WORDS,
        "intermediate_size": TEXT_MLP,
        "num_hidden_layers": TEXT_DEPTH,
        "num_attention_heads": TEXT_HEADS,
    },
    "vision_config": {
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "image_size": SIDE,
        "patch_size": PATCH,
    },
}


def mlp(inputs: int, hidden: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"fc1": nn.Linear(inputs, hidden), "fc2": nn.Linear(hidden, outputs)})


def two_layers(layers: nn.ModuleDict, x: Tensor) -> Tensor:
    return layers["fc2"](functional.gelu(layers["fc1"](x), approximate="tanh"))


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def heads(joint: Tensor, count: int) -> list[Tensor]:
    """(length, 3 width) -> query, key, value, each (count, length, width / count)."""
    return [third.unflatten(-1, (count, -1)).transpose(0, 1) for third in joint.chunk(3, dim=-1)]


def rotated(x: Tensor) -> Tensor:
    """Rotary positions on the first half of each head, its two quarters being the pairs."""
    size = x.shape[-1] // 2
    angles = torch.arange(x.shape[1])[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)
    a, b, rest = x[..., : size // 2], x[..., size // 2 : size], x[..., size:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin(), rest], dim=-1)


class Reference(nn.Module):
    """Its state has the keys of the published checkpoint."""

    def __init__(self, tiled: bool, vocabulary: int) -> None:
        super().__init__()
        self.tiled = tiled
        norm = nn.LayerNorm
        blocks = [
            nn.ModuleDict(
                {
                    "norm1": norm(WIDTH),
                    "attn": nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)}),
                    "norm2": norm(WIDTH),
                    "mlp": mlp(WIDTH, MLP, WIDTH),
                }
            )
            for _ in range(DEPTH)
        ]
        patches = nn.ModuleDict({"linear": nn.Linear(3 * PATCH**2, WIDTH)})
        visual = nn.ModuleDict({"patch_embed": patches, "blocks": nn.ModuleList(blocks), "norm": norm(WIDTH)})
        visual.register_parameter("pos_embed", nn.Parameter(torch.empty(1, (SIDE // PATCH) ** 2, WIDTH)))
        encoder = nn.ModuleDict({"model": nn.ModuleDict({"visual": visual})})
        projection = nn.ModuleDict({"mlp": mlp(WIDTH * (2 if tiled else 1), 4 * WORDS, WORDS)})
        self.vision_encoder = nn.ModuleDict({"encoder": encoder, "projection": projection})
        layers = [
            nn.ModuleDict(
                {
                    "ln": norm(WORDS),
                    "mixer": nn.ModuleDict({"Wqkv": nn.Linear(WORDS, 3 * WORDS), "out_proj": nn.Linear(WORDS, WORDS)}),
                    "mlp": mlp(WORDS, TEXT_MLP, WORDS),
                }
            )
            for _ in range(TEXT_DEPTH)
        ]
        embd = nn.ModuleDict({"wte": nn.Embedding(vocabulary, WORDS)})
        transformer = nn.ModuleDict({"embd": embd, "h": nn.ModuleList(layers)})
        head = nn.ModuleDict({"ln": norm(WORDS), "linear": nn.Linear(WORDS, vocabulary)})
        self.text_model = nn.ModuleDict({"transformer": transformer, "lm_head": head})
        for name, parameter in self.named_parameters():
            # small where they enter the first norm: there its eps shows, which SigLIP has elsewhere
            nn.init.normal_(parameter, std=0.003 if "embed" in name else 0.3)

    def view(self, pixels: Tensor) -> Tensor:
        """(3, side, side) -> (places, width)."""
        visual = self.vision_encoder["encoder"]["model"]["visual"]
        count = SIDE // PATCH
        rows = [
            pixels[:, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH].flatten()
            for y in range(count)
            for x in range(count)
        ]
        x = visual["patch_embed"]["linear"](torch.stack(rows)) + visual.pos_embed[0]
        for block in visual["blocks"]:
            q, k, v = heads(block["attn"]["qkv"](block["norm1"](x)), HEADS)
            x = x + block["attn"]["proj"](attend(q, k, v, causal=False))
            x = x + two_layers(block["mlp"], block["norm2"](x))
        return visual["norm"](x)

    def look(self, image: Image.Image) -> Tensor:
        """Image tokens of a picture, (places, words)."""
        height, width = size(*image.size) if self.tiled else (SIDE, SIDE)
        resized = np.array(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = (torch.from_numpy(resized).permute(2, 0, 1) / 255 - 0.5) / 0.5
        features = self.view(functional.interpolate(pixels[None], size=(SIDE, SIDE), mode="bilinear")[0])
        if self.tiled and (height, width) == (SIDE, SIDE):
            features = torch.cat([features, features], dim=-1)
        elif self.tiled:
            count = SIDE // PATCH
            bands = []
            for top in range(0, height, SIDE):
                maps = [self.view(pixels[:, top : top + SIDE, x : x + SIDE]) for x in range(0, width, SIDE)]
                bands.append(torch.cat([m.T.reshape(WIDTH, count, count) for m in maps], dim=2))
            stitched = functional.interpolate(torch.cat(bands, dim=1)[None], size=(count, count), mode="bilinear")
            features = torch.cat([features, stitched[0].flatten(1).T], dim=-1)
        return two_layers(self.vision_encoder["projection"]["mlp"], features)

    def forward(self, image: Image.Image, start: int, text: list[int]) -> Tensor:
        """Logits (length, vocabulary) after the first token, the picture and each token of the text."""
        words = self.text_model["transformer"]["embd"]["wte"]
        x = torch.cat([words(torch.tensor([start])), self.look(image), words(torch.tensor(text))])
        for layer in self.text_model["transformer"]["h"]:
            normed = layer["ln"](x)
            q, k, v = heads(layer["mixer"]["Wqkv"](normed), TEXT_HEADS)
            seen = attend(rotated(q), rotated(k), v, causal=True)
            x = x + layer["mixer"]["out_proj"](seen) + two_layers(layer["mlp"], normed)
        head = self.text_model["lm_head"]
        return head["linear"](head["ln"](x))


def size(width: int, height: int) -> tuple[int, int]:
    """(height, width) that a picture is brought to: the published rule for a side of 378, in units of our side."""
    unit, limit = SIDE, 512 * SIDE // 378
    if max(width, height) < limit:
        return unit, unit
    ratio = width / height
    sizes = [(unit, unit), (unit, 2 * unit), (2 * unit, unit), (2 * unit, 2 * unit)]
    return min(sizes, key=lambda s: (abs(s[1] / s[0] - ratio), abs(s[0] - width) + abs(s[1] - height)))


def publish(
    folder: Path, tiled: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[Reference, dict[str, Tensor]]:
    """Write a folder as on the hub, of random weights, and return what computes and what is stored."""
    tokenizer = TWINS / "moondream2"
    for file in ("tokenizer.json", "special_tokens_map.json"):
        shutil.copy(tokenizer / file, folder)
    said = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"tokenizer_class": "CodeGenTokenizer"}))
    vocabulary = json.loads((tokenizer / "config.json").read_text())["text_config"]["vocab_size"]
    config = json.loads(json.dumps(CONFIG))
    config["text_config"]["vocab_size"] = vocabulary
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    reference = Reference(tiled, vocabulary).eval()
    state = {key: value.detach().to(dtype) for key, value in reference.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return reference, state
