"""The decoding benchmark compares like with like: its fast way to pixel values gives those of transformers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Idefics3ImageProcessor

from harness.benchmarks import decoding
from harness.benchmarks._pixels import Pixels, normalised, opened


def processor(pixels: Pixels) -> Idefics3ImageProcessor:
    return Idefics3ImageProcessor(
        size={"longest_edge": pixels.longest_edge},
        max_image_size={"longest_edge": pixels.tile},
        do_image_splitting=pixels.split,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def stock(image: Image.Image, pixels: Pixels) -> torch.Tensor:
    found = processor(pixels)([[image.convert("RGB")]], input_data_format="channels_last", return_tensors="pt")
    return found["pixel_values"][0]


def noise(width: int, height: int, mode: str) -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(width * 1000 + height).integers(0, 256, shape, dtype=np.uint8))


@given(
    st.integers(5, 300),
    st.integers(5, 300),
    st.sampled_from(["RGB", "L"]),
    st.sampled_from([64, 100, 192]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_values_are_those_of_transformers(width, height, mode, edge, split):
    image, pixels = noise(width, height, mode), Pixels(edge, 64, split)
    ours, theirs = normalised(pixels(image)), stock(image, pixels)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == torch.float32
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_draft_is_close_and_only_taken_of_much_larger_pictures(tmp_path, mode):
    image = noise(40, 30, mode).resize((400, 300), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.jpg", quality=95)
    assert opened(tmp_path / "a.jpg", 64).size == (100, 75)
    assert opened(tmp_path / "a.jpg", 256).size == (400, 300)
    exact, quick = (Pixels(64, 64, split=True)(opened(tmp_path / "a.jpg", draft)) for draft in (None, 64))
    apart = (exact.int() - quick.int()).abs().float()
    assert 0 < apart.mean() < 2


def test_all_sides_give_all_pictures(tmp_path):
    paths = decoding.draw(tmp_path, 3)
    pixels = Pixels(64, 64, split=True)
    shards = decoding.prepared(tmp_path, 64)
    found = decoding.sides(paths, shards, pixels)
    found.pop("datasets package", None)
    rows = {row["side"]: row for row in decoding.measure(found, 3, 1)}
    assert rows["stock"]["speedup"] == 1
    assert rows["ours"]["largest_difference"] < 0.001
    assert rows["ours, draft"]["mean_difference"] < 5
    assert rows["ours, shards"]["mean_difference"] < 5
