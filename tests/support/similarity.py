"""What tests of similarity and of its encoders share: pictures with captions, a checkpoint that may be spoilt."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from harness.contracts import ImageError, Pair
from harness.datasets.phantom import Phantom
from harness.encoders.pair_files import TWIN
from harness.metrics.similarity import Similarity

DEFAULT = Phantom("phantom", train=1, valid=1, test=400, size=128, seed=2025, style="radiology", limit=None)
SAMPLES = DEFAULT.load("test").samples
PAIRS = [Pair(sample.caption, sample.caption, sample.images[0]) for sample in SAMPLES[:6]]

OLD_NAMES = {
    "image_projection": "vision_projection",
    "lang_projection": "text_projection",
    "logit_scale": "logit_scale",
    "lang_encoder.resblocks.1.attn.in_proj_weight": "text.resblocks.1.attn.in_proj_weight",
    "image_encoder.norms.bias": "visual.norms.bias",
    "image_encoder.convs.3.proj.weight": "visual.conv_embeds.3.proj.weight",
    "image_encoder.blocks.2.8.spatial_block.conv1.fn.dw.bias": "image_encoder.main_blocks.2.8.0.cpe.0.proj.bias",
    "image_encoder.blocks.2.0.spatial_block.window_attn.fn.qkv.bias": "visual.main_blocks.2.0.0.attn.qkv.bias",
    "image_encoder.blocks.2.0.spatial_block.window_attn.norm.bias": "visual.main_blocks.2.0.0.norm1.bias",
    "image_encoder.blocks.1.0.spatial_block.conv2.fn.dw.weight": "visual.main_blocks.1.0.0.cpe.1.proj.weight",
    "image_encoder.blocks.1.0.spatial_block.ffn.fn.net.fc1.weight": "visual.main_blocks.1.0.0.mlp.fc1.weight",
    "image_encoder.blocks.1.0.channel_block.channel_attn.fn.proj.bias": "visual.main_blocks.1.0.1.attn.proj.bias",
    "image_encoder.blocks.1.0.channel_block.channel_attn.norm.weight": "visual.main_blocks.1.0.1.norm1.weight",
    "image_encoder.blocks.1.0.channel_block.ffn.norm.weight": "visual.main_blocks.1.0.1.norm2.weight",
}


def release(folder: Path) -> Path:
    """A copy of the embedded checkpoint that may be spoilt, in the folder that the hub's snapshot has it in."""
    folder = folder / "2024.09.27"
    for path in TWIN.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(TWIN)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def weights(release) -> dict[str, torch.Tensor]:
    return load_file(release / "vision_model" / "model.safetensors")


def put(release, state, name="medimageinsigt-v1.0.0.pt", write=save_file) -> None:
    (release / "vision_model" / "model.safetensors").unlink()
    write(state, release / "vision_model" / name)


def metric(checkpoint="embedded", **options) -> Similarity:
    values = {"encoder": "medimageinsight", "scale": 2.5, "clip_at_zero": True, "dtype": "float32", "batch_size": 4}
    return Similarity("similarity", checkpoint=str(checkpoint), **(values | options))


def loaded(checkpoint="embedded", features=None, **options) -> Similarity:
    made = metric(checkpoint, **options)
    made.load("cpu", {} if features is None else features)
    return made


class Broken:
    """A picture whose bytes can be hashed or not, and cannot be decoded."""

    def __init__(self, readable: bool) -> None:
        self.readable = readable

    def load(self):
        raise ImageError("picture cannot be decoded: truncated")

    def digest(self) -> str:
        if not self.readable:
            raise ImageError("file cannot be read: no such file")
        return "0" * 64
