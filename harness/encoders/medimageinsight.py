"""MedImageInsight from its published files: sizes, weights under old or new names, pixels and tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from PIL import Image
from transformers import CLIPTokenizer

from harness.contracts import RequestError
from harness.encoders.medimageinsight_net import LanguageSizes, PairNet, VisionSizes
from harness.encoders.pair_files import tokenizer_folder, weight_file
from harness.encoders.weights import fill, read_tensors
from harness.machine.bfloat16 import inference

if TYPE_CHECKING:
    from torch import Tensor

EXPECTED: dict[str, dict[str, Any]] = {
    "IMAGE_ENCODER": {"NAME": "davit_v1"},
    "IMAGE_ENCODER.SPEC": {"CONV_AT_ATTN": True, "CONV_AT_FFN": True, "DYNAMIC_SCALE": True, "STANDPARAM": True},
    "LANG_ENCODER": {"NAME": "transformer", "TOKENIZER": "clip", "AUTOGRESSIVE": False},
    "AUG": {"INTERPOLATION": "bicubic"},
    "TEST": {"CENTER_CROP": False},
}
"""What the port computes; a config that says otherwise is refused. `AUTOGRESSIVE` is spelt so."""

VISION = (
    *("PATCH_SIZE", "PATCH_STRIDE", "PATCH_PADDING", "PATCH_PRENORM", "DIM_EMBED", "NUM_HEADS", "NUM_GROUPS", "DEPTHS"),
    "WINDOW_SIZE",
)
LANGUAGE = ("CONTEXT_LENGTH", "WIDTH", "HEADS", "LAYERS")
"""Keys of the sizes, in the order of `VisionSizes` and of `LanguageSizes` behind the vocabulary."""

_TOP = {"visual": "image_encoder", "text": "lang_encoder"}
_PROJECTIONS = {"vision_projection": "image_projection", "text_projection": "lang_projection"}
_OLD_BLOCK = re.compile(r"main_blocks\.(\d+)\.(\d+)\.([01])\.(cpe\.0\.proj|cpe\.1\.proj|attn|mlp|norm1|norm2)\.")
_PARTS = {
    "cpe.0.proj": "conv1.fn.dw",
    "attn": "{attention}.fn",
    "norm1": "{attention}.norm",
    "cpe.1.proj": "conv2.fn.dw",
    "mlp": "ffn.fn.net",
    "norm2": "ffn.norm",
}


class MedImageInsight:
    """Vectors of pictures and texts in one space."""

    def __init__(self, release: Path, device: str, dtype: torch.dtype) -> None:
        tokens, weights = tokenizer_folder(release), weight_file(release)
        if tokens is None or weights is None:
            raise RequestError(f"{release}: expected language_model/ and vision_model/; get the checkpoint again")
        config = read_config(release / "config.yaml")
        # The slow tokenizer, as in the published code. It cleans texts with ftfy where that is installed.
        self.tokenizer = CLIPTokenizer.from_pretrained(str(tokens), local_files_only=True)
        self.net = read_net(config, self.tokenizer.vocab_size, weights).to(device, dtype).eval()
        image = config["IMAGE_ENCODER"]
        self.size: tuple[int, int] = tuple(image["IMAGE_SIZE"])  # width, height: how the published code reads it
        self.mean, self.std = (
            torch.tensor(image[name], device=device).view(1, 3, 1, 1) for name in ("IMAGE_MEAN", "IMAGE_STD")
        )
        self.context: int = config["LANG_ENCODER"]["CONTEXT_LENGTH"]
        self.device, self.dtype = device, dtype

    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, width), of length 1: squashed to one size with bicubic interpolation, nothing is cropped."""
        with inference(self.dtype, torch.device(self.device)):
            return self.net.encode_images(self.pixels(pictures)).float().cpu()

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, width), of length 1."""
        with inference(self.dtype, torch.device(self.device)):
            return self.net.encode_texts(*self.tokens(texts)).float().cpu()

    def cut(self, text: str) -> bool:
        """Whether the text has more tokens than the encoder reads."""
        return len(self.tokenizer.tokenize(text)) > self.context - 2

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, 3, H, W)."""
        squashed = [picture.convert("RGB").resize(self.size, Image.Resampling.BICUBIC) for picture in pictures]
        stack = torch.from_numpy(np.stack([np.asarray(picture) for picture in squashed]))
        values = stack.to(self.device).permute(0, 3, 1, 2).float() / 255
        return ((values - self.mean) / self.std).to(self.dtype)

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (N, T). Padded to the longest of them: the mask makes it equal to the 77 of the original."""
        found = self.tokenizer(
            list(texts), padding="longest", max_length=self.context, truncation=True, return_tensors="pt"
        )
        return found["input_ids"].to(self.device), found["attention_mask"].bool().to(self.device)


def read_config(file: Path) -> dict[str, Any]:
    """The release's config.yaml. Raises RequestError when it is broken or describes something else."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: not valid YAML ({error}); get the checkpoint again") from error
    for path, expected in EXPECTED.items():
        section = _section(config, path, file)
        for key, value in expected.items():
            if section.get(key, value) != value:
                raise RequestError(
                    f"{file}: expected {path}.{key} {value!r}, got {section[key]!r}, which is not ported"
                )
    return dict(config)


def _section(config: Any, path: str, file: Path) -> Mapping[str, Any]:
    for name in path.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping):
        raise RequestError(
            f"{file}: expected a section {path}, found none; give the folder of a MedImageInsight release"
        )
    return config


def empty_net(config: Mapping[str, Any], vocabulary: int) -> PairNet:
    """The network that a config describes, with random weights. Raises RequestError when a size is missing."""
    try:
        spec, words = config["IMAGE_ENCODER"]["SPEC"], config["LANG_ENCODER"]
        vision = VisionSizes(*(spec[key] for key in VISION))
        language = LanguageSizes(vocabulary, *(words[key] for key in LANGUAGE))
        return PairNet(vision, language, config["UNICL_MODEL"]["DIM_PROJECTION"])
    except KeyError as error:
        raise RequestError(f"config.yaml: expected the size {error}, found none; get the checkpoint again") from error


def read_net(config: Mapping[str, Any], vocabulary: int, file: Path) -> PairNet:
    """The network with its weights, every key accounted for."""
    with torch.device("meta"):  # memory for one copy of the weights, and no time for random ones
        net = empty_net(config, vocabulary)
    fill(net, read_weights(file), file, "config.yaml", assign=True)
    return net


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors under today's names. The published `.pt` is a safetensors file; a real pickle is read safely or not."""
    state = read_tensors(file, "safetensors or a pickled dictionary of tensors")
    named = {current_key(key): value for key, value in state.items()}
    if len(named) != len(state):
        raise RequestError(f"{file}: two keys stand for the same weight; get the checkpoint again")
    return named


def current_key(key: str) -> str:
    """Today's name of a weight that older files call otherwise."""
    if key in _PROJECTIONS:
        return _PROJECTIONS[key]
    top, dot, rest = key.partition(".")
    key = _TOP.get(top, top) + dot + rest
    return _OLD_BLOCK.sub(_new_block, key.replace("conv_embeds.", "convs."))


def _new_block(match: re.Match[str]) -> str:
    stage, depth, turn, part = match.groups()
    block, attention = (("spatial_block", "window_attn"), ("channel_block", "channel_attn"))[int(turn)]
    return f"blocks.{stage}.{depth}.{block}.{_PARTS[part].format(attention=attention)}."
