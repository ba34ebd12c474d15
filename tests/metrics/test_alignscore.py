"""AlignScore against a literal nli_sp, its checkpoint files, and what the embedded checkpoint can tell."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaModel, RobertaTokenizerFast

from harness.contracts import RequestError
from harness.metrics import alignscore as module
from harness.metrics._alignscore_net import AlignNet, config_of, read
from harness.metrics._sentences import splitter
from harness.metrics.alignscore import EMBEDDED, AlignScore, only_first
from tests.support.metric_data import NAMES, REFERENCES, build, numbers, pair
from tests.support.phantom_edits import KINDS, shares

SPLIT = splitter()
TOKENIZER = RobertaTokenizerFast.from_pretrained(EMBEDDED)
LONG = " ".join(REFERENCES)  # of about 900 words


class Published(nn.Module):
    """The published model, written anew from its description, with the head that scoring never needs."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        config = RobertaConfig(
            vocab_size=len(TOKENIZER),
            hidden_size=width,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=width // 64,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            initializer_range=0.2,
        )
        self.base_model = RobertaModel(config)
        self.mlm_head = RobertaForMaskedLM(config).lm_head
        self.bin_layer = nn.Linear(width, 2)
        self.tri_layer = nn.Linear(width, 3)
        self.reg_layer = nn.Linear(width, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, inputs):
        found = self.base_model(**inputs)
        self.mlm_head(found.last_hidden_state)
        return self.tri_layer(self.dropout(found.pooler_output))


def literal(model: Published, context: str, claim: str) -> float:
    """nli_sp step by step: one pair at a time, padded to 512."""
    sentences = SPLIT(context) or [""]
    size = max(len(sentences) // (len(context.strip().split()) // 350 + 1), 1)
    chunks = [" ".join(sentences[start : start + size]) for start in range(0, len(sentences), size)]
    claims = SPLIT(claim)
    matrix = torch.zeros(len(chunks), len(claims))
    for row, chunk in enumerate(chunks):
        for column, sentence in enumerate(claims):
            options = {"padding": "max_length", "max_length": 512, "return_tensors": "pt"}
            try:
                inputs = TOKENIZER(chunk, sentence, truncation="only_first", **options)
            except Exception as error:  # what the tokenizer raises has no other type
                if "too short" not in str(error):
                    raise
                inputs = TOKENIZER(chunk, sentence, truncation=True, **options)
            assert inputs["input_ids"].shape == (1, 512)
            with torch.no_grad():
                matrix[row, column] = torch.softmax(model(inputs), dim=-1)[0, 0]
    return float(matrix.max(dim=0).values.mean())


@pytest.fixture(scope="module")
def published() -> Published:
    torch.manual_seed(0)
    return Published().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, published):
    """A checkpoint as it is published: a Lightning file without configuration, the tokenizer elsewhere."""
    root = tmp_path_factory.mktemp("published")
    state = {**published.state_dict(), "base_model.embeddings.position_ids": torch.arange(514)[None]}
    torch.save({"state_dict": state, "epoch": 2, "optimizer_states": [{"lr": 1e-5}]}, root / "AlignScore-base.ckpt")
    return root


def metric_of(checkpoint: object, tokenizer: object = EMBEDDED, dtype: str = "float32", batch: int = 8) -> AlignScore:
    return AlignScore("a", str(checkpoint), tokenizer and str(tokenizer), dtype, batch)


def loaded(*arguments, **options) -> AlignScore:
    metric = metric_of(*arguments, **options)
    metric.load("cpu", {})
    return metric


@pytest.fixture(scope="module")
def tiny(folder) -> AlignScore:
    return loaded(folder / "AlignScore-base.ckpt")


def some_pairs() -> list[tuple[str, str]]:
    """300 of ordinary length, and some whose chunks or sentences are too long."""
    pairs = [(one, two) for shift in range(6) for one, two in zip(REFERENCES, rotated(shift), strict=True)]
    endless = "the left lung is clear and " * 120
    extra = [(LONG, REFERENCES[0]), (LONG, LONG), (endless, REFERENCES[1]), (REFERENCES[1], endless)]
    return [*pairs, *extra, (endless, endless), ("", REFERENCES[2]), ("\x00", "Röntgen 胸部 🩻."), ("...", "?! .")]


def rotated(shift: int) -> list[str]:
    return REFERENCES[shift * 7 :] + REFERENCES[: shift * 7]


def test_it_equals_a_literal_nli_sp(tiny, published):
    pairs = some_pairs()
    assert len(pairs) >= 300
    expected = [literal(published, *texts) for texts in pairs]
    ours = numbers(tiny.score([pair(*texts) for texts in pairs], []))[:, 1]
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.std(expected) > 0.02, "a model that says the same of everything proves nothing"


def test_each_distinct_pair_of_sentences_is_read_once_and_the_longest_first(tiny, monkeypatch):
    shapes, forward = [], AlignNet.forward

    def noted(net, **inputs):
        shapes.append(inputs["input_ids"].shape)
        return forward(net, **inputs)

    monkeypatch.setattr(AlignNet, "forward", noted)
    monkeypatch.setattr(tiny, "batch_size", 2)
    candidate = "CT of the chest. MRI of the head. CT of the chest."
    tiny.score([pair(LONG, candidate), pair(LONG, "MRI of the head."), pair("CT.", candidate)], [])
    count = len(LONG.split()) // 350 + 1
    chunks = -(-len(SPLIT(LONG)) // (len(SPLIT(LONG)) // count))
    assert sum(rows for rows, _ in shapes) == 2 * chunks + 2
    lengths = [length for _, length in shapes]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 40, "no padding to the longest of all"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (600, 100, (408, 100)),
        (300, 400, (108, 400)),
        (100, 508, (100, 408)),
        (2, 507, (1, 507)),
        (600, 600, (254, 254)),
    ],
)
def test_the_chunk_is_cut_unless_the_sentence_leaves_no_room(first, second, expected):
    assert only_first(first, second, 508) == expected


def test_cuts_are_counted_by_pairs_of_chunk_and_sentence(tiny):
    endless = "Word " * 600
    candidate = f"A film. {endless}."
    scores = tiny.score([pair("CT.", "CT."), pair("CT.", candidate), pair(endless, candidate)], [])
    assert [score.values["truncated"] for score in scores] == [0, 1, 2]


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [("CT.", "", 0.0), ("", "", 1.0), ("CT.", " ", 0.0), (" ", "\u2028\n", 0.0), (" ", "", 0.0)],
)
def test_rulings_on_texts_without_a_sentence(tiny, reference, candidate, expected):
    (score,) = tiny.score([pair(reference, candidate)], [])
    assert score.values == {"truncated": 0.0, "score": expected}


def test_an_empty_reference_is_the_models_to_judge(tiny, published):
    (score,) = tiny.score([pair("", "CT of the chest.")], [])
    assert score.values["score"] == pytest.approx(literal(published, "", "CT of the chest."), abs=1e-6)


def test_what_is_no_text_or_no_number_fails_with_a_reason(tiny, monkeypatch):
    scores = tiny.score([pair("CT", "half \ud83d"), pair("\udc00", "CT"), pair("CT", "CT")], [])
    assert [score.values == {} for score in scores] == [True, True, False]
    assert "candidate: character 5" in scores[0].reason
    assert "reference: character 0" in scores[1].reason
    monkeypatch.setattr(
        AlignNet, "forward", lambda net, **inputs: torch.full((len(inputs["input_ids"]),), float("nan"))
    )
    (score,) = tiny.score([pair("CT", "MRI")], [])
    assert (score.values, score.reason) == ({}, "the model gave nan")


def test_five_thousand_words_are_scored():
    long = " ".join((f"{LONG} " * 8).split()[:5000])
    metric = loaded("embedded", None)
    for score in metric.score([pair(REFERENCES[0], long), pair(long, REFERENCES[0])], []):
        assert 0 < score.values["score"] < 1


def test_bfloat16_is_an_option_that_changes_values_a_little(folder, tiny):
    pairs = [pair(one, two) for one, two in some_pairs()[:40]]
    half = loaded(folder / "AlignScore-base.ckpt", dtype="bfloat16")
    gap = np.abs(numbers(half.score(pairs, []))[:, 1] - numbers(tiny.score(pairs, []))[:, 1])
    assert 0 < gap.max() < 0.1


# Read off once from NLTK 3.10 with the original files of its data package punkt_tab.
GOLDEN = {
    "Fig. 1. CT of the chest. No. 3 (arrow).": ["Fig.", "1.", "CT of the chest.", "No.", "3 (arrow)."],
    "Dr. X, vs. T2.5 e.g. this. I.v. contrast.": ["Dr. X, vs. T2.5 e.g.", "this.", "I.v.", "contrast."],
    'See?? Yes!! "Quote." He said.': ["See??", "Yes!!", '"Quote."', "He said."],
    "approx. 3 cm.\nNew line.": ["approx.", "3 cm.", "New line."],
    "mass . second .": ["mass .", "second ."],
    "a. b. c": ["a. b. c"],
    "Seen on CT. Normal otherwise.": ["Seen on CT. Normal otherwise."],  # Punkt knows Ct. as Connecticut
    "...": ["..."],
    "\x00": ["\x00"],
    " \u2028": [],
    "": [],
}


def test_sentences_are_those_of_nltk():
    assert {text: SPLIT(text) for text in GOLDEN} == GOLDEN


# ---------------------------------------------------------------- checkpoints


def test_ckpt_safetensors_and_a_folder_give_the_same(folder, published, tiny, tmp_path):
    state = {key: value.contiguous().clone() for key, value in published.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    published.base_model.config.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    pairs = [pair(one, two) for one, two in some_pairs()[:10]]
    expected = numbers(tiny.score(pairs, []))
    for checkpoint, tokenizer in ((tmp_path, None), (tmp_path / "model.safetensors", EMBEDDED)):
        np.testing.assert_array_equal(numbers(loaded(checkpoint, tokenizer).score(pairs, [])), expected)


def test_the_published_sizes_are_read_from_the_weights(tmp_path):
    for layers, width in ((12, 768), (24, 1024)):
        config = RobertaConfig(
            vocab_size=50265, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
            intermediate_size=4 * width, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
        )  # fmt: skip
        with torch.device("meta"):
            state = AlignNet(config).state_dict()
        assert config_of(tmp_path / "none.ckpt", state).to_diff_dict() == config.to_diff_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("tri_layer.bias"), "lacks key tri_layer.bias"),
        (lambda state: state.pop("base_model.embeddings.word_embeddings.weight"), "lacks key base_model.embed"),
        (lambda state: state.update({"quad_layer.bias": torch.zeros(4)}), "has the unknown key quad_layer.bias"),
        (
            lambda state: state.update({"reg_layer.weight": torch.zeros(2, 2)}),
            r"reg_layer.weight has the shape \(2, 2\), its size .* says \(1, ",
        ),
        (lambda state: state.clear(), "found neither"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(published, tmp_path, change, message):
    state = dict(published.state_dict())
    change(state)
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    with pytest.raises(RequestError, match=message):
        loaded(tmp_path / "model.ckpt")


class Trap:
    def __reduce__(self):
        return (print, ("gotcha",))


def test_a_file_that_could_run_code_or_is_cut_off_is_refused(tmp_path, folder, capsys):
    torch.save({"state_dict": Trap()}, tmp_path / "trap.ckpt")
    whole = (folder / "AlignScore-base.ckpt").read_bytes()
    (tmp_path / "torn.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{")
    for name in ("trap.ckpt", "torn.ckpt", "torn.safetensors"):
        with pytest.raises(RequestError, match="cannot be read safely"):
            read(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_a_config_of_another_model_is_refused(tmp_path, folder):
    (tmp_path / "model.ckpt").symlink_to(folder / "AlignScore-base.ckpt")
    RobertaConfig(hidden_size=64, num_attention_heads=1, num_hidden_layers=2).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=r"is the config\.json beside it another model's"):
        read(tmp_path / "model.ckpt")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RequestError, match="not valid JSON"):
        read(tmp_path / "model.ckpt")


def test_what_is_missing_is_named_with_a_remedy(folder, tmp_path):
    absent = metric_of("yzha/AlignScore/AlignScore-base.ckpt", None)
    assert absent.missing().endswith("hf download yzha/AlignScore AlignScore-base.ckpt")
    for ask in (absent.signature, lambda: absent.load("cpu", {})):
        with pytest.raises(RequestError, match="hf download yzha/AlignScore"):
            ask()
    assert "hf download nobody/none" in metric_of("nobody/none").missing()
    assert "neither a file" in metric_of(tmp_path).missing()
    wordless = metric_of(folder / "AlignScore-base.ckpt", None)
    assert "set metric.a.tokenizer" in wordless.missing()


def test_a_file_of_a_hub_repository_is_found_in_the_cache(folder, monkeypatch):
    cache = {"yzha/AlignScore": folder, "roberta-base": EMBEDDED}
    monkeypatch.setattr(module, "folder_of", cache.get)
    assert metric_of("yzha/AlignScore/AlignScore-base.ckpt", "roberta-base").missing() is None
    assert metric_of("yzha/AlignScore/AlignScore-large.ckpt", "roberta-base").missing() is not None


def test_signature_follows_content_and_options_not_paths(folder, tmp_path):
    file = folder / "AlignScore-base.ckpt"
    base = metric_of(file).signature()
    copy = tmp_path / file.name
    copy.symlink_to(file)
    assert metric_of(copy, batch=1).signature() == base
    assert metric_of(file, dtype="bfloat16").signature() != base
    words = shutil.copytree(EMBEDDED, tmp_path / "words")
    assert metric_of(file, words).signature() == base
    (words / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<s>"}))
    assert metric_of(file, words).signature() != base


# ---------------------------------------------------------------- the embedded checkpoint


def test_the_embedded_one_runs_quietly(capfd, caplog):
    assert "alignscore" in NAMES
    metric = build("alignscore")
    with caplog.at_level("INFO"):
        metric.load("cpu", {})
        metric.score([pair("word " * 600, "word " * 700), pair("CT", "</s> <pad> <mask>")], [])
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedded_one_tells_a_changed_fact(metrics, kind):
    same, paraphrase = shares(metrics["alignscore"], kind)
    assert same >= 0.9
    assert paraphrase >= 0.9


def test_the_embedded_one_is_small():
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) < 3e6
