"""MedImageInsight checkpoints: what is read, what is refused by name, pixels and words."""

import pickle

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPTokenizer,
)

from harness.contracts import Pair, RequestError
from harness.encoders.medimageinsight import MedImageInsight
from harness.encoders.pair_files import TWIN
from tests.support import similarity
from tests.support.similarity import OLD_NAMES, PAIRS, SAMPLES, loaded, metric, put, weights


@pytest.fixture
def release(tmp_path):
    return similarity.release(tmp_path)


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
