"""Similarity by encoders of other packages: transformers and open_clip."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
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

from harness.contracts import Pair, RequestError
from harness.encoders.pair_files import TWIN
from tests.support.similarity import PAIRS, SAMPLES, loaded, metric

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
