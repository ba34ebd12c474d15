"""SmolVLM's quick image processor gives the values of transformers', and the benchmark compares like with like."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Idefics3ImageProcessor

from harness.benchmarks import decoding
from harness.contracts import GREY, RequestError
from model_zoo.nets.idefics3_pixels import QuickImageProcessor


def options(edge: int, split: bool) -> dict:
    return {
        "size": {"longest_edge": edge},
        "max_image_size": {"longest_edge": 64},
        "do_image_splitting": split,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    }


def noise(width: int, height: int, mode: str) -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    image = Image.fromarray(np.random.default_rng(width * 1000 + height).integers(0, 256, shape, dtype=np.uint8))
    image = image.convert("RGB")
    image.info[GREY] = mode == "L"
    return image


@given(
    st.integers(3, 300),
    st.integers(3, 300),
    st.sampled_from(["RGB", "L"]),
    st.sampled_from([64, 100, 192]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_values_are_those_of_transformers(width, height, mode, edge, split):
    rows = [[noise(width, height, mode), noise(height, width, "RGB")], [noise(50, 70, "L")]]
    ask = {"return_row_col_info": True, "return_tensors": "pt"}
    theirs = Idefics3ImageProcessor(**options(edge, split))(rows, input_data_format="channels_last", **ask)
    ours = QuickImageProcessor(**options(edge, split))(rows, **ask)
    assert ours["pixel_values"].shape == theirs["pixel_values"].shape
    assert ours["pixel_values"].dtype == theirs["pixel_values"].dtype == torch.float32
    assert torch.allclose(ours["pixel_values"], theirs["pixel_values"], atol=2e-6)
    assert torch.equal(ours["pixel_attention_mask"], theirs["pixel_attention_mask"])
    assert (ours["rows"], ours["cols"]) == (theirs["rows"], theirs["cols"])


@pytest.mark.parametrize("change", [{"do_rescale": False}, {"size": {"longest_edge": 5000}}])
def test_options_under_which_values_would_differ_are_refused(change):
    with pytest.raises(RequestError, match="expected"):
        QuickImageProcessor(**(options(64, True) | change)).check("file")


def test_all_sides_give_all_pictures(tmp_path):
    paths, table = decoding.draw(tmp_path, 3), tmp_path / "table.csv"
    files = decoding.read("table", path=str(table), check="listed", cache=None)
    found = decoding.sides(paths, files, decoding.read("prepared", root=decoding.prepare(table, 64)), 64, 64)
    found.pop("datasets package", None)
    rows = {row["side"]: row for row in decoding.measure(found, 3, 1)}
    assert rows["stock"]["speedup"] == 1
    assert rows["ours"]["largest_difference"] < 0.001
    assert rows["ours, shards"]["mean_difference"] < 5
