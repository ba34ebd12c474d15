"""Similarity: the port against plain formulas, published sizes and names, what is encoded, what cannot be scored."""

import json
import math
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from harness.contracts import ImageError, Pair, RequestError
from harness.datasets.phantom import Phantom
from harness.datasets.phantom.lexicon import FINDING, MODALITY
from harness.datasets.phantom.plan import PLAN
from harness.encoders.medimageinsight import MedImageInsight, current_key, empty_net
from harness.encoders.medimageinsight_net import LanguageSizes, PairNet, VisionSizes
from harness.encoders.pair_files import TWIN
from harness.metrics.embedded import pair_encoder
from harness.metrics.similarity import Similarity
from tests.support.metric_data import build

DEFAULT = Phantom("phantom", train=1, valid=1, test=400, size=128, seed=2025, style="radiology", limit=None)
SAMPLES = DEFAULT.load("test").samples
DEFAULT_AND_MORE = Phantom("phantom", train=1, valid=1, test=1200, size=128, seed=2025, style="radiology", limit=None)

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


# ---------------------------------------------------------------- the files

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


def test_old_names_become_todays_and_todays_stay(published):
    expected = published.state_dict()
    for today, old in OLD_NAMES.items():
        assert today in expected
        assert current_key(old) == today
    assert all(current_key(key) == key for key in expected)


@pytest.fixture
def release(tmp_path):
    """A copy of the embedded checkpoint that may be spoilt, in the folder that the hub's snapshot has it in."""
    folder = tmp_path / "2024.09.27"
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


PAIRS = [Pair(sample.caption, sample.caption, sample.images[0]) for sample in SAMPLES[:6]]


@pytest.mark.parametrize("write", [save_file, torch.save], ids=["safetensors", "pickle"])
def test_published_file_name_in_either_format_and_old_names(release, write):
    state = {OLD_NAMES.get(key, key): value for key, value in weights(release).items()}
    put(release, state, write=write)
    assert loaded(release.parent).score(PAIRS, []) == loaded().score(PAIRS, [])


def test_a_port_with_another_tokenizer_folder_is_found(release):
    folder = release / "language_model"
    (folder / "clip_tokenizer_4.16.2").rename(folder / "clip_tokenizer_v4162")
    assert loaded(release).score(PAIRS[:1], []) == loaded().score(PAIRS[:1], [])


class Harm:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def spoil_with(release, text):
    (release / "vision_model" / "model.safetensors").write_bytes(text)


def drop(release):
    state = weights(release)
    del state["image_encoder.norms.bias"]
    put(release, state)


def edit(release, section, key, value):
    config = yaml.safe_load((release / "config.yaml").read_text())
    (config[section] if section else config)[key] = value
    (release / "config.yaml").write_text(yaml.safe_dump(config))


FAULTS = {
    "lacks key image_encoder.norms.bias": drop,
    "unknown key image_encoder.head.weight": lambda r: put(
        r, weights(r) | {"image_encoder.head.weight": torch.zeros(2)}
    ),
    r"logit_scale has the shape \(2,\), config.yaml says \(\)": lambda r: put(
        r, weights(r) | {"logit_scale": torch.zeros(2)}
    ),
    "two keys stand for the same weight": lambda r: put(r, weights(r) | {"vision_projection": torch.zeros(2)}),
    r"cannot be read safely \(UnpicklingError\)": lambda r: put(
        r, {"a": Harm()}, write=lambda state, path: path.write_bytes(pickle.dumps(state))
    ),
    r"cannot be read safely \(SafetensorError\)": lambda r: spoil_with(
        r, b"version https://git-lfs.github.com/spec/v1"
    ),
    "expected a dictionary of tensors": lambda r: put(r, {"step": 3, "model": {}}, write=torch.save),
    "expected LANG_ENCODER.AUTOGRESSIVE False, got True": lambda r: edit(r, "LANG_ENCODER", "AUTOGRESSIVE", True),
    "expected TEST.CENTER_CROP False, got True": lambda r: edit(r, "TEST", "CENTER_CROP", True),
    "expected the size 'CONTEXT_LENGTH'": lambda r: edit(r, None, "LANG_ENCODER", {}),
    "expected a section IMAGE_ENCODER": lambda r: (r / "config.yaml").write_text("just text"),
    "not valid YAML": lambda r: (r / "config.yaml").write_text("a: [1"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_spoilt_checkpoint_is_refused_by_name(release, message):
    FAULTS[message](release)
    with pytest.raises(RequestError, match=message):
        loaded(release)


@pytest.mark.parametrize("part", ["config.yaml", "vision_model", "language_model"])
def test_a_missing_part_is_named_with_a_remedy(release, part):
    (release / part).rename(release / "elsewhere")
    made = metric(release)
    assert "hf download" in made.missing()
    assert "vision_model" in made.missing()
    for use in (made.signature, lambda: made.load("cpu", {})):
        with pytest.raises(RequestError, match="hf download"):
            use()


def test_what_is_not_here_is_said_before_anything_is_loaded():
    assert "hf download lion-ai/MedImageInsights" in metric("lion-ai/MedImageInsights").missing()
    assert "hf download google/medsiglip-448" in metric("google/medsiglip-448", encoder="transformers").missing()
    with pytest.raises(RequestError, match="expected medimageinsight for the embedded checkpoint"):
        metric(encoder="transformers")


def test_signature_has_what_changes_a_value_and_nothing_else(release):
    base = metric().signature()
    assert metric(release, batch_size=1).signature() == base
    others = [metric(scale=1.0), metric(clip_at_zero=False), metric(dtype="bfloat16")]
    edit(release, "IMAGE_ENCODER", "IMAGE_SIZE", [32, 32])
    others.append(metric(release))
    assert len({base, *(other.signature() for other in others)}) == 5


# ---------------------------------------------------------------- pixels and words


@pytest.fixture(scope="module")
def embedded() -> MedImageInsight:
    return MedImageInsight(TWIN, "cpu", torch.float32)


def test_pictures_are_squashed_and_normalised_as_published(embedded):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 90, 3), np.uint8))
    small = np.asarray(picture.resize(embedded.size, Image.Resampling.BICUBIC), np.float32) / 255
    expected = (small - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    found = embedded.pixels([picture])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "RGBA"])
def test_any_mode_is_read_as_rgb(embedded, mode):
    picture = SAMPLES[0].images[0].load().convert(mode)
    torch.testing.assert_close(embedded.images([picture]), embedded.images([picture.convert("RGB")]))


def test_tokens_are_those_of_the_published_call(embedded):
    texts = ["CT of the chest", "word " * 200, "Röntgen 5×3 cm"]
    ids, mask = embedded.tokens(texts)
    tokenizer = CLIPTokenizer.from_pretrained(TWIN / "language_model" / "clip_tokenizer_4.16.2")
    whole = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    assert torch.equal(ids, whole["input_ids"])
    assert torch.equal(mask, whole["attention_mask"].bool())
    assert (ids == ids.max()).float().argmax(1).tolist() == [len(row[row]) - 1 for row in mask], "reads at the end"
    assert torch.equal(embedded.tokens(["ct OF THE chest"])[0], embedded.tokens(texts[:1])[0])


def test_texts_that_do_not_fit_are_counted(embedded):
    made = loaded()
    fits = "x " * 75
    assert len(embedded.tokenizer.tokenize(fits)) == 75
    image = SAMPLES[0].images[0]
    short, full, cut = made.score([Pair("r", text, image) for text in ("CT", fits, fits + "x")], [])
    assert [score.values["truncated"] for score in (short, full, cut)] == [0.0, 0.0, 1.0]
    assert full.values["cosine"] == cut.values["cosine"]


# ---------------------------------------------------------------- scores


def test_scale_and_clipping():
    image, texts = SAMPLES[0].images[0], [sample.caption for sample in SAMPLES[:40]]
    pairs = [Pair("r", text, image) for text in texts]
    features = {}
    clipped, plain = (loaded(features=features, clip_at_zero=clip, scale=3.0) for clip in (True, False))
    for one, two in zip(clipped.score(pairs, []), plain.score(pairs, []), strict=True):
        cosine = one.values["cosine"]
        assert cosine == two.values["cosine"]
        assert one.values["similarity"] == pytest.approx(3 * max(cosine, 0))
        assert two.values["similarity"] == pytest.approx(3 * cosine)
    assert min(score.values["similarity"] for score in plain.score(pairs, [])) < 0


def test_the_default_is_what_imageclef_computes(metrics):
    (score,) = metrics["similarity"].score(PAIRS[:1], [])
    assert score.values["similarity"] == pytest.approx(2.5 * max(score.values["cosine"], 0))
    encoder = MedImageInsight(TWIN, "cpu", torch.float32)
    picture, text = encoder.images([PAIRS[0].image.load()])[0], encoder.texts([PAIRS[0].candidate])[0]
    assert score.values["cosine"] == pytest.approx(float(picture @ text), abs=1e-6)


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


@pytest.mark.parametrize(
    ("image", "reason"),
    [(None, "no picture"), (Broken(readable=True), "truncated"), (Broken(readable=False), "no such file")],
)
def test_a_picture_that_cannot_be_looked_at_gives_a_reason_and_no_value(metrics, image, reason):
    good, bad, empty = metrics["similarity"].score([PAIRS[0], Pair("CT", "CT", image), Pair("CT", "", image)], [])
    assert good.values
    assert not bad.values
    assert not empty.values
    assert reason in bad.reason
    assert reason in empty.reason


@pytest.mark.parametrize(("reference", "candidate", "value"), [("CT", "", 0.0), ("", "", 1.0)])
def test_empty_candidates_are_ruled(metrics, reference, candidate, value):
    (score,) = metrics["similarity"].score([Pair(reference, candidate, SAMPLES[0].images[0])], [])
    assert score.values == {"truncated": 0.0, "cosine": value, "similarity": value}


def test_an_empty_reference_does_not_matter(metrics):
    image = SAMPLES[0].images[0]
    one, two = metrics["similarity"].score([Pair("", "CT", image), Pair("MRI", "CT", image)], [])
    assert one == two


def test_vectors_that_are_not_finite_give_a_reason(release):
    state = weights(release)
    state["image_projection"][0, 0] = float("nan")
    put(release, state)
    (score,) = loaded(release).score(PAIRS[:1], [])
    assert not score.values
    assert "not finite" in score.reason


class Counting:
    """An encoder that notes what it was given."""

    def __init__(self, encoder) -> None:
        self.encoder, self.pictures, self.read = encoder, [], []

    def images(self, pictures):
        self.pictures.append(len(pictures))
        return self.encoder.images(pictures)

    def texts(self, texts):
        self.read.append(list(texts))
        return self.encoder.texts(texts)

    def cut(self, text):
        return self.encoder.cut(text)


class Noting:
    """A picture that counts how often it is decoded."""

    decoded = 0

    def __init__(self, image) -> None:
        self.image = image

    def load(self):
        Noting.decoded += 1
        return self.image.load()

    def digest(self):
        return self.image.digest()


def counted(features, **options) -> tuple[Similarity, Counting]:
    made = loaded(features=features, **options)
    made._vectors.encoder = Counting(made._vectors.encoder)
    return made, made._vectors.encoder


def test_each_distinct_picture_and_text_is_encoded_once_and_never_again():
    Noting.decoded = 0
    pairs = [Pair("r", sample.caption, Noting(sample.images[0])) for sample in SAMPLES[:10] * 3]
    features: dict[str, bytes] = {}
    first, seen = counted(features)
    scores = first.score(pairs, [])
    assert seen.pictures == [2] * 5, "no more pictures at a time than a CPU takes, nor than batch_size"
    assert sorted(text for batch in seen.read for text in batch) == sorted({pair.candidate for pair in pairs})
    assert Noting.decoded == 10
    assert {len(value) for value in features.values()} == {4 * 64}, "float32"

    second, seen = counted(features, scale=1.0)  # another command, the same encoder
    other = [Pair("r", "another system's caption", pair.image) for pair in pairs]
    assert [score.values["cosine"] for score in second.score(pairs, [])] == [s.values["cosine"] for s in scores]
    second.score(other, [])
    assert seen.pictures == []
    assert seen.read == [["another system's caption"]]
    assert Noting.decoded == 10


def test_other_arithmetic_does_not_take_over_kept_vectors():
    features: dict[str, bytes] = {}
    exact = loaded(features=features).score(PAIRS, [])
    made, seen = counted(features, dtype="bfloat16")
    rough = made.score(PAIRS, [])
    assert sum(seen.pictures) == len(PAIRS)
    for one, two in zip(exact, rough, strict=True):
        assert one.values["cosine"] != two.values["cosine"]
        assert one.values["cosine"] == pytest.approx(two.values["cosine"], abs=0.05)


def test_a_picture_that_failed_is_tried_again():
    features: dict[str, bytes] = {}
    made = loaded(features=features)
    made.score([Pair("r", "CT", Broken(readable=True))], [])
    assert len(features) == 1, "the text"


# ---------------------------------------------------------------- other encoders


def tiny_clip(folder, model, processor) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(TWIN / "language_model" / "clip_tokenizer_4.16.2")
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)


def clip(vocabulary=1100):
    text = {"vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 20, "eos_token_id": 1040, "bos_token_id": 1039}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    return text, vision


@pytest.fixture
def clip_folder(tmp_path):
    torch.manual_seed(0)
    text, vision = clip()
    size = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    tiny_clip(tmp_path / "clip", model, CLIPImageProcessor(**size))
    return tmp_path / "clip"


@pytest.fixture
def siglip_folder(tmp_path):
    torch.manual_seed(0)
    text, vision = clip()
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    tiny_clip(tmp_path / "siglip", model, SiglipImageProcessor(size={"height": 32, "width": 32}))
    return tmp_path / "siglip"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_models_of_transformers_score_as_they_do_themselves(kind, request):
    folder = request.getfixturevalue(f"{kind}_folder")
    model = (CLIPModel if kind == "clip" else SiglipModel).from_pretrained(folder).eval()
    processor = (CLIPImageProcessor if kind == "clip" else SiglipImageProcessor).from_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    scores = loaded(folder, encoder="transformers").score(PAIRS, [])
    for pair, score in zip(PAIRS, scores, strict=True):  # alone, as a user of the model would call it
        text = tokenizer(pair.candidate, padding="max_length", max_length=20, truncation=True, return_tensors="pt")
        with torch.no_grad():
            found = model(pixel_values=processor(pair.image.load(), return_tensors="pt")["pixel_values"], **text)
        cosine = float(functional.cosine_similarity(found.image_embeds, found.text_embeds))
        assert score.values["cosine"] == pytest.approx(cosine, abs=2e-6)
        long = len(tokenizer(pair.candidate)["input_ids"]) > 20
        assert score.values["truncated"] == float(long)


def test_transformers_checkpoints_are_refused_by_name(clip_folder, tmp_path):
    state = load_file(clip_folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, clip_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"lacks key visual_projection\.weight"):
        loaded(clip_folder, encoder="transformers")

    (clip_folder / "preprocessor_config.json").unlink()
    with pytest.raises(RequestError, match=r"expected model, tokenizer and preprocessor_config\.json"):
        loaded(clip_folder, encoder="transformers")

    text, _ = clip()
    config = BertConfig(**{key: value for key, value in text.items() if not key.endswith("token_id")})
    tiny_clip(tmp_path / "bert", BertModel(config), CLIPImageProcessor())
    with pytest.raises(RequestError, match="expected a model of pictures and texts such as CLIP or SigLIP"):
        loaded(tmp_path / "bert", encoder="transformers")


def test_the_preparation_of_pictures_is_part_of_the_signature(clip_folder):
    before = metric(clip_folder, encoder="transformers").signature()
    file = clip_folder / "preprocessor_config.json"
    file.write_text(file.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))
    assert metric(clip_folder, encoder="transformers").signature() != before


class OpenClipTokenizer:
    context_length = 6

    def __call__(self, texts):
        rows = [[ord(character) for character in text[:6]] for text in texts]
        return torch.tensor([row + [0] * (6 - len(row)) for row in rows])


def test_open_clip_is_called_as_documented(tmp_path, monkeypatch):
    """No open_clip here: a stand-in with the documented calls. The vectors are made up."""
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.setattr("harness.encoders.checkpoint.find_spec", lambda name: None)
    assert "pip install 'open_clip_torch>=3.0'" in metric(tmp_path, encoder="open_clip").missing()

    def create(name, device):
        assert name == f"local-dir:{tmp_path}"
        model = SimpleNamespace(
            eval=lambda: None,
            encode_image=lambda pixels: pixels.flatten(1)[:, :6],
            encode_text=lambda ids: ids.float(),
        )
        return model, lambda picture: torch.from_numpy(np.asarray(picture, np.float32))

    stand_in = SimpleNamespace(create_model_from_pretrained=create, get_tokenizer=lambda name: OpenClipTokenizer())
    monkeypatch.setitem(sys.modules, "open_clip", stand_in)
    monkeypatch.setattr("harness.encoders.checkpoint.find_spec", lambda name: object())
    monkeypatch.setattr("harness.encoders.pairs.version", lambda name: "3.0")
    short, long = loaded(tmp_path, encoder="open_clip").score(
        [Pair("r", text, SAMPLES[0].images[0]) for text in ("CT", "CT of the chest")], []
    )
    pixels = torch.from_numpy(np.asarray(SAMPLES[0].images[0].load(), np.float32)).flatten()[:6]
    ids = OpenClipTokenizer()(["CT"])[0].float()
    assert short.values["cosine"] == pytest.approx(float(functional.cosine_similarity(pixels, ids, dim=0)), abs=1e-6)
    assert (short.values["truncated"], long.values["truncated"]) == (0.0, 1.0)


# ---------------------------------------------------------------- the embedded checkpoint


def test_the_embedded_checkpoint_is_small_and_its_words_are_those_of_the_command(tmp_path):
    assert sum(path.stat().st_size for path in TWIN.rglob("*") if path.is_file()) < 2_500_000
    pair_encoder.write_tokenizer(tmp_path / "words", pair_encoder.plain_captions(), 1000)
    for path in (tmp_path / "words").iterdir():
        assert path.read_bytes() == (TWIN / "language_model" / "clip_tokenizer_4.16.2" / path.name).read_bytes()
    assert yaml.safe_load((TWIN / "config.yaml").read_text()) == pair_encoder.CONFIG
    assert DEFAULT.sample("test", 0).images[0].seed != pair_encoder.SEED


def test_training_is_reproducible(embedded):
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        recipe = pair_encoder.Recipe(pictures=8, steps=4, batch=4)
        net = pair_encoder.start(empty_net(pair_encoder.CONFIG, embedded.tokenizer.vocab_size), recipe)
        pair_encoder.train(net, embedded, recipe)
        states.append(net.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def swapped(caption: str, lexicon: dict[str, tuple[str, ...]], of: str, to: str) -> str:
    """The caption with one term for another: a test of its own, not the training's way of making wrong captions."""
    for word in sorted(lexicon[of], key=len, reverse=True):
        place = caption.lower().find(word.lower())
        if place >= 0:
            return caption[:place] + lexicon[to][0] + caption[place + len(word) :]
    raise AssertionError(f"{of} is not in {caption!r}")


def other_side(sample, rng) -> str:
    side = sample.factors["side"]
    return sample.caption.replace(side, {"left": "right", "right": "left"}[side])


def other_finding(sample, rng) -> str:
    """Any of the others, seen in such pictures or not."""
    finding = sample.factors["finding"]
    to = rng.choice([name for name in FINDING["radiology"] if name not in (finding, "none")])
    return swapped(sample.caption, FINDING["radiology"], finding, to)


def likely_finding(sample, rng) -> str:
    """Another one that such pictures have too."""
    options = PLAN[sample.modality][1][sample.factors["region"]]
    to = [name for name in options if name not in (sample.factors["finding"], "none")]
    return swapped(sample.caption, FINDING["radiology"], sample.factors["finding"], rng.choice(to)) if to else ""


def other_modality(sample, rng) -> str:
    to = rng.choice([name for name in MODALITY["radiology"] if name != sample.modality])
    return swapped(sample.caption, MODALITY["radiology"], sample.modality, to)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [("side", other_side), ("finding", other_finding), ("finding", likely_finding), ("modality", other_modality)],
)
def test_a_true_caption_beats_the_same_one_with_one_wrong_fact(metrics, kind, spoil):
    """On pictures that were not trained on, with the seed that users score."""
    rng = np.random.default_rng(0)
    spoilt = [(sample, spoil(sample, rng)) for sample in SAMPLES if sample.factors[kind] not in ("", "none")]
    true, false = compared(metrics["similarity"], [(sample, wrong) for sample, wrong in spoilt if wrong])
    assert (true > false).mean() >= 0.9


def compared(metric, spoilt) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of 150 true captions and of what became of them."""
    assert len(spoilt) >= 150
    sides = ([(s.caption, s) for s, _ in spoilt[:150]], [(wrong, s) for s, wrong in spoilt[:150]])
    scores = (metric.score([Pair("r", text, s.images[0]) for text, s in side], []) for side in sides)
    true, false = (np.array([score.values["cosine"] for score in side]) for side in scores)
    return true, false


BLIND = {
    "size": (r"\b(small|large)\b", lambda m: {"small": "large", "large": "small"}[m[1]]),
    "arrow": (r"\b(white|red|yellow|blue) arrow", lambda m: f"{'red' if m[1] == 'white' else 'white'} arrow"),
    "no": (r" (showing|shows|demonstrating|reveals|with) (an?) ", r" \1 no "),
}


@pytest.mark.parametrize("kind", BLIND)
def test_what_it_cannot_see_is_as_documented(metrics, kind):
    """The true caption wins no more often than a coin that is thrown 150 times may."""
    samples = DEFAULT_AND_MORE.load("test").samples
    spoilt = [(sample, re.sub(*BLIND[kind], sample.caption)) for sample in samples]
    true, false = compared(
        metrics["similarity"], [(sample, wrong) for sample, wrong in spoilt if wrong != sample.caption]
    )
    assert (true > false).mean() < 0.65
    assert abs(true - false).mean() < 0.04


def test_yaml_defaults():
    made = build("similarity")
    assert (made.scale, made.clip_at_zero, made.checkpoint.dtype, made.values[-1]) == (
        2.5,
        True,
        "float32",
        "similarity",
    )
