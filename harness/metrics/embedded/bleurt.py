"""The embedded rater, in BLEURT's layout: 0.6 million parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import sentencepiece
import torch
from bleurt_pytorch import BleurtConfig, BleurtForSequenceClassification
from bleurt_pytorch.bleurt.tokenization_bleurt_sp import BleurtSPTokenizer
from torch import Tensor, nn
from torch.nn import functional

from harness.metrics._text import preprocess
from harness.metrics.embedded._lessons import Lesson, lessons, overlap
from harness.metrics.embedded._training import Recipe, Tutor, train

RECIPE = Recipe(steps=2000, batch=32, rate=1e-3)
VOCABULARY = 700  # nearly each word of the grammar gets a token of its own
TEXTS = 6000
LONGEST = 512
WORDING = 0.1  # weight of the common words; the kept facts have the rest


def make(folder: Path, steps: int | None) -> str:
    """Write vocabulary, configuration and trained weights (bfloat16); returns the loss of the last tenth."""
    recipe = RECIPE if steps is None else replace(RECIPE, steps=steps)
    tokenizer = write_tokenizer(folder, captions(), VOCABULARY)
    config = BleurtConfig(
        vocab_size=len(tokenizer),
        embedding_size=64,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=LONGEST,
        initializer_range=0.05,
    )
    torch.manual_seed(recipe.seed)
    net = BleurtForSequenceClassification(config)
    tutor = Tutor(config.hidden_size)
    both = nn.ModuleList([net, tutor])
    loss = train(both, lambda batch: loss_of(net, tutor, tokenizer, batch), recipe, "bleurt")
    net.to(torch.bfloat16).save_pretrained(folder)
    return f"loss {loss:.3f}"


def captions() -> list[str]:
    """Captions that the vocabulary is made of."""
    return [lesson.reference for lesson in islice(lessons(1), TEXTS)]


def write_tokenizer(folder: Path, captions: Sequence[str], vocabulary: int) -> BleurtSPTokenizer:
    """SentencePiece with the special pieces that BLEURT-20's vocabulary has, on preprocessed and on raw captions."""
    texts = [text for caption in captions for text in (preprocess(caption, "imageclef"), caption) if text]
    file = folder / "spm.model"
    with file.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=writer,
            model_type="bpe",
            vocab_size=vocabulary,
            character_coverage=1.0,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece="[PAD]",
            unk_piece="[UNK]",
            bos_piece="[CLS]",
            eos_piece="[SEP]",
            user_defined_symbols=["[MASK]"],
            num_threads=1,
            minloglevel=2,
        )
    tokenizer = BleurtSPTokenizer(str(file), model_max_length=LONGEST)
    tokenizer.save_pretrained(folder)
    return tokenizer


def rating(lesson: Lesson, pair: tuple[str, str]) -> float:
    """Rating of a pair: mostly the share of the facts that are right, a little how alike the words are."""
    return (1 - WORDING) * lesson.share + WORDING * overlap(*pair)


def loss_of(
    net: BleurtForSequenceClassification, tutor: Tutor, tokenizer: BleurtSPTokenizer, batch: Sequence[Lesson]
) -> Tensor:
    """Squared error of the rating."""
    pairs = [(preprocess(one.reference, "imageclef"), preprocess(one.candidate, "imageclef")) for one in batch]
    inputs = tokenizer([one for one, _ in pairs], [two for _, two in pairs], padding=True, return_tensors="pt")
    found = net.bleurt(**inputs, output_hidden_states=True)
    pooled = found.pooler_output
    ends = (inputs["input_ids"] == tokenizer.sep_token_id).cumsum(dim=1)  # [CLS] A [SEP] B [SEP]
    ratings = torch.tensor([rating(lesson, pair) for lesson, pair in zip(batch, pairs, strict=True)])
    told = tutor.loss(found.hidden_states[1], (ends == 0, ends == 1), pooled, batch)
    return 10 * functional.mse_loss(net.classifier(pooled)[:, 0], ratings) + told


CHECKPOINTS = {"bleurt": make}
