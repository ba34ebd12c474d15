"""How the public ImageCLEFmedical evaluators call the metrics, written anew from their description.

taubsity/clef-caption-evaluation@ce13086 and its 2026 successor: one pair per call, references read again for each
system, AlignScore padded to 512 tokens with its unused head, one picture at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.benchmarks._checkpoints import Aligner
from harness.contracts import Pair
from harness.metrics._text import preprocess

Calls = Callable[[Sequence[Pair]], list[float]]
"""Pairs of one system in file order -> their values."""


def _clean(text: str) -> str:
    return preprocess(text, "imageclef")


def bertscore(folder: Path, references: Sequence[str], layer: int, device: str) -> Calls:
    """bert-score's scorer, one pair per call, idf over the references."""
    from bert_score import BERTScorer

    clean = [_clean(text) for text in references]
    scorer = BERTScorer(str(folder), num_layers=layer, idf=True, idf_sents=clean, nthreads=0, device=device)
    scorer._tokenizer.model_max_length = 512

    def run(pairs: Sequence[Pair]) -> list[float]:
        return [float(scorer.score([_clean(one.candidate)], [_clean(one.reference)])[2]) for one in pairs]

    return run


def rouge1() -> Calls:
    """rouge-score, pair by pair."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1"], use_stemmer=False)

    def run(pairs: Sequence[Pair]) -> list[float]:
        found = [scorer.score(_clean(one.reference), _clean(one.candidate)) for one in pairs]
        return [float(one["rouge1"].fmeasure) for one in found]

    return run


def bleurt(folder: Path, device: str) -> Calls:
    """bleurt-pytorch in batches of eight in file order, as in 2026."""
    from bleurt_pytorch import BleurtForSequenceClassification
    from bleurt_pytorch.bleurt.tokenization_bleurt_sp import BleurtSPTokenizer

    model = BleurtForSequenceClassification.from_pretrained(folder).eval().to(device)
    tokenizer = BleurtSPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def run(pairs: Sequence[Pair]) -> list[float]:
        values: list[float] = []
        for start in range(0, len(pairs), 8):
            batch = pairs[start : start + 8]
            sides = ([_clean(one.reference) for one in batch], [_clean(one.candidate) for one in batch])
            inputs = tokenizer(*sides, padding="longest", truncation=True, max_length=512, return_tensors="pt")
            values += model(**inputs.to(device)).logits.flatten().tolist()
        return values

    return run


def alignscore(folder: Path, device: str) -> Calls:
    """One sentence pair per forward pass, padded to 512 tokens, the language-model head computed and thrown away."""
    from transformers import RobertaTokenizerFast

    from harness.metrics._alignscore_net import config_of
    from harness.metrics._sentences import splitter

    file = folder / "AlignScore-base.ckpt"
    state = torch.load(file, weights_only=True)["state_dict"]
    model = Aligner(config_of(file, state)).eval()
    model.load_state_dict(state)
    model.to(device)
    tokenizer = RobertaTokenizerFast.from_pretrained(folder)
    split = splitter()

    @torch.no_grad()
    def one(chunk: str, sentence: str) -> float:
        inputs = tokenizer(
            chunk, sentence, padding="max_length", truncation="only_first", max_length=512, return_tensors="pt"
        ).to(device)
        found = model.base_model(**inputs)
        model.mlm_head(found.last_hidden_state)
        return float(torch.softmax(model.tri_layer(found.pooler_output), dim=-1)[0, 0])

    def run(pairs: Sequence[Pair]) -> list[float]:
        values = []
        for pair in pairs:
            context = " ".join(split(pair.reference) or [""])  # under 350 words: one chunk
            sentences = [one(context, sentence) for sentence in split(pair.candidate)]
            values.append(sum(sentences) / len(sentences) if sentences else 0.0)
        return values

    return run


def similarity(folder: Path, device: str) -> Calls:
    """One picture and one text per call, the text padded to 77 tokens, both encoded again for each system."""
    from harness.encoders.medimageinsight import MedImageInsight

    model = MedImageInsight(folder, device, torch.float32)

    @torch.inference_mode()
    def run(pairs: Sequence[Pair]) -> list[float]:
        values = []
        for pair in pairs:
            assert pair.image is not None
            inputs = model.tokenizer(
                [pair.candidate], padding="max_length", max_length=model.context, truncation=True, return_tensors="pt"
            ).to(device)
            text = model.net.encode_texts(inputs["input_ids"], inputs["attention_mask"].bool())
            values.append(float((model.images([pair.image.load()]) * text).sum()))
        return values

    return run


def umls_f1() -> Calls:
    """MedCAT's own `get_entities` on both texts of every pair."""
    from harness.metrics import _medcat
    from harness.metrics.umls_f1 import EMBEDDED

    cat = _medcat.build(EMBEDDED)

    def concepts(text: str) -> set[str]:
        kept: list[Mapping[str, Any]] = []
        found = cat.get_entities(text).get("entities", {}).values()
        # It keeps some names that overlap longer ones with this tokenizer; its documentation says that it does not.
        for entity in sorted(found, key=lambda entity: entity["start"] - entity["end"]):
            if all(entity["end"] <= other["start"] or other["end"] <= entity["start"] for other in kept):
                kept.append(entity)
        return {entity["cui"] for entity in kept}

    def run(pairs: Sequence[Pair]) -> list[float]:
        values = []
        for pair in pairs:
            left, right = (concepts(text) for text in (pair.reference, pair.candidate))
            values.append(2 * len(left & right) / (len(left) + len(right)) if left or right else 0.0)
        return values

    return run
