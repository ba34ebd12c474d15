"""BLEURT against the bleurt-pytorch library, its checkpoint files, and what the embedded checkpoint can tell."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bleurt_pytorch import BleurtConfig, BleurtForSequenceClassification
from bleurt_pytorch.bleurt.tokenization_bleurt_sp import BleurtSPTokenizer
from safetensors.torch import load_file, save_file

from harness.contracts import RequestError
from harness.metrics._cross_encoder import longest_first
from harness.metrics._text import preprocess
from harness.metrics.bleurt import EMBEDDED, Bleurt
from tests.support.metric_data import NAMES, REFERENCES, build, numbers, pair
from tests.support.phantom_edits import KINDS, shares

TOKENIZER = BleurtSPTokenizer.from_pretrained(EMBEDDED)
WORDS = " ".join(REFERENCES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of the published layout with random weights, whose values differ from pair to pair."""
    root = tmp_path_factory.mktemp("bleurt")
    TOKENIZER.save_pretrained(root)
    config = BleurtConfig(
        vocab_size=len(TOKENIZER), embedding_size=32, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    BleurtForSequenceClassification(config).save_pretrained(root)
    return root


def metric_of(checkpoint: object, clean: str = "none", dtype: str = "float32", batch: int = 8) -> Bleurt:
    return Bleurt("b", str(checkpoint), clean, dtype, batch)


def loaded(*arguments, **options) -> Bleurt:
    metric = metric_of(*arguments, **options)
    metric.load("cpu", {})
    return metric


@pytest.fixture(scope="module")
def tiny(folder) -> Bleurt:
    return loaded(folder)


def some_pairs() -> list[tuple[str, str]]:
    pairs = [(one, two) for shift in range(6) for one, two in zip(REFERENCES, rotated(shift), strict=True)]
    long = [(WORDS, REFERENCES[0]), (REFERENCES[0], WORDS), (WORDS, WORDS), (WORDS, WORDS[100:])]
    return [*pairs, *long, ("", REFERENCES[1]), (REFERENCES[1], ""), ("\x00", "Röntgen 胸部 🩻."), ("[SEP] a", "[PAD]")]


def rotated(shift: int) -> list[str]:
    return REFERENCES[shift * 7 :] + REFERENCES[: shift * 7]


@pytest.mark.parametrize("clean", ["none", "imageclef"])
def test_it_equals_the_library_called_pair_by_pair(folder, clean):
    model = BleurtForSequenceClassification.from_pretrained(folder).eval()
    pairs = some_pairs()
    assert len(pairs) >= 300
    expected = []
    for texts in pairs:
        sides = [[preprocess(text, clean)] for text in texts]
        inputs = TOKENIZER(*sides, padding="longest", truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            expected.append(float(model(**inputs).logits.flatten()))
    ours = numbers(loaded(folder, clean).score([pair(*texts) for texts in pairs], []))[:, 1]
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.std(expected) > 0.02, "a model that says the same of everything proves nothing"


def test_each_distinct_pair_is_read_once_and_the_longest_first(tiny, monkeypatch):
    shapes, forward = [], BleurtForSequenceClassification.forward

    def noted(net, **inputs):
        shapes.append(inputs["input_ids"].shape)
        return forward(net, **inputs)

    monkeypatch.setattr(BleurtForSequenceClassification, "forward", noted)
    distinct = [pair(one, two) for one, two in zip(REFERENCES, rotated(1), strict=True)]
    tiny.score([*distinct, *distinct[::-1]], [])
    assert sum(rows for rows, _ in shapes) == len(distinct)
    lengths = [length for _, length in shapes]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < lengths[0] / 2


def test_the_cut_is_that_of_the_library(capfd):
    for first, second in ((600, 100), (100, 600), (300, 300), (254, 256), (255, 255), (600, 601)):
        sides = [list(range(first)), list(range(second))]
        one, two, _ = TOKENIZER.truncate_sequences(*sides, num_tokens_to_remove=first + second - 509)
        assert longest_first(first, second, 509) == (len(one), len(two))


def test_cut_sides_are_counted(tiny):
    long = "a " * 400
    scores = tiny.score([pair("a", "a"), pair("a", long * 2), pair(long, long), pair("a " * 60, long)], [])
    assert [score.values["truncated"] for score in scores] == [0, 1, 2, 0]


def test_rulings_on_empty_texts(tiny):
    scores = tiny.score([pair("", ""), pair("CT", ""), pair("", "CT")], [])
    assert scores[0].values == {"truncated": 0.0, "score": 1.0}
    assert scores[1].values["score"] != scores[2].values["score"]
    assert not {0.0, 1.0} & {score.values["score"] for score in scores[1:]}, "the model judges one empty text"


def test_what_is_no_text_or_no_number_fails_with_a_reason(tiny, monkeypatch):
    scores = tiny.score([pair("CT", "half \ud83d"), pair("\udc00", "CT"), pair("CT", "CT")], [])
    assert [score.values == {} for score in scores] == [True, True, False]
    assert "candidate: character 5" in scores[0].reason
    said = SimpleNamespace(logits=torch.full((1, 1), float("inf")))
    monkeypatch.setattr(BleurtForSequenceClassification, "forward", lambda net, **inputs: said)
    (score,) = tiny.score([pair("CT", "MRI")], [])
    assert (score.values, score.reason) == ({}, "the model gave inf")


def test_bfloat16_is_an_option_that_changes_values_a_little(folder, tiny):
    pairs = [pair(one, two) for one, two in some_pairs()[:40]]
    half = numbers(loaded(folder, dtype="bfloat16").score(pairs, []))[:, 1]
    gap = np.abs(half - numbers(tiny.score(pairs, []))[:, 1])
    assert 0 < np.median(gap) < 0.1, "large random weights: single values may be off by more"


# ---------------------------------------------------------------- checkpoints


def test_what_is_missing_is_named_with_a_remedy(folder, tmp_path):
    for checkpoint in ("lucadiliello/BLEURT-20-D12", tmp_path):
        metric = metric_of(checkpoint)
        assert metric.missing().endswith(f"hf download {checkpoint}")
        for ask in (metric.signature, lambda metric=metric: metric.load("cpu", {})):
            with pytest.raises(RequestError, match="hf download"):
                ask()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    assert "expected a BLEURT-20 checkpoint with spm.model" in metric_of(tmp_path).missing()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("classifier.bias"), "lacks key classifier.bias"),
        (lambda state: state.update({"classifier.scale": torch.ones(1)}), "has the unknown key classifier.scale"),
        (lambda state: state.update({"classifier.bias": torch.ones(3)}), "classifier.bias has another shape than"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(folder, tmp_path, change, message):
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).symlink_to(path)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RequestError, match=message):
        loaded(tmp_path)


def test_a_published_bin_file_is_read(folder, tmp_path, tiny):
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).symlink_to(path)
    state = load_file(folder / "model.safetensors")
    state.pop("bleurt.embeddings.position_ids", None)  # no weight; newer exports leave it out
    torch.save(state, tmp_path / "pytorch_model.bin")
    one = [pair(REFERENCES[0], REFERENCES[1])]
    np.testing.assert_allclose(numbers(loaded(tmp_path).score(one, [])), numbers(tiny.score(one, [])), atol=1e-5)


def test_signature_follows_content_and_options_not_paths(folder, tmp_path):
    base = metric_of(folder).signature()
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert metric_of(tmp_path, batch=1).signature() == base
    assert len({base, metric_of(folder, "imageclef").signature(), metric_of(folder, dtype="bfloat16").signature()}) == 3
    (tmp_path / "spm.model").unlink()
    (tmp_path / "spm.model").write_bytes((folder / "spm.model").read_bytes() + b"\x00")
    assert metric_of(tmp_path).signature() != base


# ---------------------------------------------------------------- the embedded checkpoint


def test_the_embedded_one_runs_quietly(capfd, caplog):
    assert "bleurt" in NAMES
    metric = build("bleurt")
    with caplog.at_level("INFO"):
        metric.load("cpu", {})
        metric.score([pair("word " * 600, "word " * 700), pair("CT", "[SEP] [PAD] [MASK]")], [])
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedded_one_tells_a_changed_fact(metrics, kind):
    same, paraphrase = shares(metrics["bleurt"], kind)
    assert same >= 0.9
    assert paraphrase >= 0.9


def test_the_embedded_one_is_small():
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) < 3e6
