"""MedImageInsight: the port against plain formulas, published sizes and names."""

import json
import math

import pytest
import torch
from torch.nn import functional

from harness.encoders.medimageinsight import current_key, empty_net
from harness.encoders.medimageinsight_net import LanguageSizes, PairNet, VisionSizes
from tests.support.similarity import OLD_NAMES

PUBLISHED = {  # config.yaml of lion-ai/MedImageInsights, release 2024.09.27: what the port reads of it
    "IMAGE_ENCODER": {
        "NAME": "davit_v1",
        "IMAGE_SIZE": [480, 480],
        "IMAGE_MEAN": [0.485, 0.456, 0.406],
        "IMAGE_STD": [0.229, 0.224, 0.225],
        "SPEC": {
            "DROP_RATE": 0.1,
            "DROP_PATH_RATE": 0.2,
            "PATCH_SIZE": [7, 3, 3, 3],
            "PATCH_STRIDE": [4, 2, 2, 2],
            "PATCH_PADDING": [3, 1, 1, 1],
            "PATCH_PRENORM": [False, True, True, True],
            "DIM_EMBED": [256, 512, 1024, 2048],
            "NUM_HEADS": [8, 16, 32, 64],
            "NUM_GROUPS": [8, 16, 32, 64],
            "DEPTHS": [1, 1, 9, 1],
            "WINDOW_SIZE": 12,
            "ENABLE_CHECKPOINT": True,
        },
    },
    "LANG_ENCODER": {
        "NAME": "transformer",
        "TOKENIZER": "clip",
        "CONTEXT_LENGTH": 77,
        "WIDTH": 1024,
        "HEADS": 16,
        "LAYERS": 16,
        "AUTOGRESSIVE": False,
    },
    "UNICL_MODEL": {"DIM_PROJECTION": 1024},
    "AUG": {"INTERPOLATION": "bicubic"},
    "TEST": {"CENTER_CROP": False},
}


# ---------------------------------------------------------------- the port


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def published() -> PairNet:
    with torch.device("meta"):
        return empty_net(PUBLISHED, 49408)


def test_published_totals(published):
    """360M, 252M and 3M (arXiv 2410.06542, section 2.2)."""
    assert count(published.image_encoder) == 360_636_416
    assert count(published.lang_encoder) == 252_214_272
    assert published.image_projection.numel() + published.lang_projection.numel() == 3_145_728


def test_names_and_shapes_fill_the_published_file_to_the_byte(published):
    """medimageinsigt-v1.0.0.pt is a safetensors file of 2,464,060,700 bytes (its git-lfs pointer, sha256 5eeda63b...).

    Its header spells every name and shape: one weight too many, or another name of another length, and the sum differs.
    """
    header, place = {}, 0
    for name, value in sorted(published.state_dict().items()):
        end = place + 4 * value.numel()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [place, end]}
        place = end
    length = len(json.dumps(header, separators=(",", ":")))
    assert 8 + math.ceil(length / 8) * 8 + place == 2_464_060_700


VISION = VisionSizes(
    (7, 3), (4, 2), (3, 1), (False, True), widths=(8, 12), heads=(2, 3), groups=(4, 2), depths=(1, 2), window=3
)
LANGUAGE = LanguageSizes(vocabulary=30, context=9, width=8, heads=2, layers=2)


@pytest.fixture(scope="module")
def tiny() -> PairNet:
    torch.manual_seed(3)
    net = PairNet(VISION, LANGUAGE, 6).eval()
    for parameter in net.parameters():  # biases and norms too
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def norm(x, state, name, eps):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attend(q, k, v, scale):
    """(tokens, width of one head) each."""
    weights = torch.exp(q @ k.T * scale)
    return weights / weights.sum(-1, keepdim=True) @ v


def convolve(picture, state, name):
    """(H, W, C), place by place, with zeros around the picture."""
    height, width, _ = picture.shape
    kernel, out = state[f"{name}.weight"], torch.zeros_like(picture)
    for y in range(height):
        for x in range(width):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        out[y, x] += picture[y + dy, x + dx] * kernel[:, 0, dy + 1, dx + 1]
    return out + state[f"{name}.bias"]


def attend_windows(x, state, name, heads, side):
    height, width, channels = x.shape
    out = torch.zeros_like(x)
    for top in range(0, height, side):
        for left in range(0, width, side):
            window = torch.zeros(side, side, channels)
            part = x[top : top + side, left : left + side]
            window[: part.shape[0], : part.shape[1]] = part
            q, k, v = linear(window.reshape(-1, channels), state, f"{name}.qkv").chunk(3, dim=1)
            size = channels // heads
            found = [attend(*(t[:, h * size : (h + 1) * size] for t in (q, k, v)), size**-0.5) for h in range(heads)]
            new = linear(torch.cat(found, 1), state, f"{name}.proj").view(side, side, channels)
            out[top : top + side, left : left + side] = new[: part.shape[0], : part.shape[1]]
    return out


def attend_channels(x, state, name, groups):
    places, channels = x.shape[0] * x.shape[1], x.shape[2]
    q, k, v = linear(x.reshape(places, channels), state, f"{name}.qkv").chunk(3, dim=1)
    size = channels // groups
    found = [attend(*(t[:, g * size : (g + 1) * size].T for t in (q, k, v)), places**-0.5).T for g in range(groups)]
    return linear(torch.cat(found, 1), state, f"{name}.proj").view(x.shape)


def plain_image(state, pixels):
    """One picture (3, H, W), with the names of the published weights."""
    x = None
    for stage, width in enumerate(VISION.widths):
        name = f"image_encoder.convs.{stage}"
        if VISION.prenorm[stage]:
            pixels = norm(x, state, f"{name}.norm", 1e-5).permute(2, 0, 1)
        x = functional.conv2d(
            pixels[None],
            state[f"{name}.proj.weight"],
            state[f"{name}.proj.bias"],
            VISION.stride[stage],
            VISION.padding[stage],
        )[0].permute(1, 2, 0)
        if not VISION.prenorm[stage]:
            x = norm(x, state, f"{name}.norm", 1e-5)
        for depth in range(VISION.depths[stage]):
            for kind in ("spatial", "channel"):
                name = f"image_encoder.blocks.{stage}.{depth}.{kind}_block"
                x = x + convolve(x, state, f"{name}.conv1.fn.dw")
                if kind == "spatial":
                    part = f"{name}.window_attn"
                    seen = norm(x, state, f"{part}.norm", 1e-5)
                    x = x + attend_windows(seen, state, f"{part}.fn", VISION.heads[stage], VISION.window)
                else:
                    part = f"{name}.channel_attn"
                    seen = norm(x, state, f"{part}.norm", 1e-5)
                    x = x + attend_channels(seen, state, f"{part}.fn", VISION.groups[stage])
                x = x + convolve(x, state, f"{name}.conv2.fn.dw")
                hidden = linear(norm(x, state, f"{name}.ffn.norm", 1e-5), state, f"{name}.ffn.fn.net.fc1")
                hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
                x = x + linear(hidden, state, f"{name}.ffn.fn.net.fc2")
        assert x.shape[2] == width
    vector = norm(x.reshape(-1, x.shape[2]).mean(0), state, "image_encoder.norms", 1e-5) @ state["image_projection"]
    return vector / vector.norm()


def plain_text(state, ids):
    """One text without padding."""
    name = "lang_encoder"
    x = torch.stack(
        [
            state[f"{name}.token_embedding.weight"][i] + state[f"{name}.positional_embedding"][n]
            for n, i in enumerate(ids)
        ]
    )
    for layer in range(LANGUAGE.layers):
        name = f"lang_encoder.resblocks.{layer}"
        seen = norm(x, state, f"{name}.ln_1", 1e-12)
        q, k, v = (seen @ state[f"{name}.attn.in_proj_weight"].T + state[f"{name}.attn.in_proj_bias"]).chunk(3, dim=1)
        size = LANGUAGE.width // LANGUAGE.heads
        heads = [
            attend(*(t[:, h * size : (h + 1) * size] for t in (q, k, v)), size**-0.5) for h in range(LANGUAGE.heads)
        ]
        x = x + linear(torch.cat(heads, 1), state, f"{name}.attn.out_proj")
        hidden = linear(norm(x, state, f"{name}.ln_2", 1e-12), state, f"{name}.mlp.c_fc")
        x = x + linear(hidden / (1 + torch.exp(-1.702 * hidden)), state, f"{name}.mlp.c_proj")
    last = norm(x, state, "lang_encoder.ln_final", 1e-12)[ids.index(max(ids))]
    vector = last @ state["lang_projection"]
    return vector / vector.norm()


def test_image_encoder_equals_the_plain_formulas(tiny):
    """29 x 50 pixels: 8 x 13 and 4 x 7 places, so that windows of 3 x 3 are cut on both sides."""
    pixels = torch.randn(2, 3, 29, 50, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = tiny.encode_images(pixels)
        for vector, picture in zip(ours, pixels, strict=True):
            torch.testing.assert_close(vector, plain_image(tiny.state_dict(), picture), atol=1e-5, rtol=0)


def test_text_encoder_equals_the_plain_formulas_with_any_padding(tiny):
    texts = [[27, 3, 29], [27, 5, 9, 4, 11, 29], [27, 29]]
    for length in (6, 9):
        ids = torch.tensor([text + [29] * (length - len(text)) for text in texts])
        mask = torch.tensor([[place < len(text) for place in range(length)] for text in texts])
        with torch.no_grad():
            ours = tiny.encode_texts(ids, mask)
        for vector, text in zip(ours, texts, strict=True):
            torch.testing.assert_close(vector, plain_text(tiny.state_dict(), text), atol=1e-5, rtol=0)


def test_old_names_become_todays_and_todays_stay(published):
    expected = published.state_dict()
    for today, old in OLD_NAMES.items():
        assert today in expected
        assert current_key(old) == today
    assert all(current_key(key) == key for key in expected)
