"""The embedded entailment model, in AlignScore's layout: 0.6 million parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import RobertaConfig, RobertaTokenizerFast

from harness.metrics._alignscore_net import AlignNet
from harness.metrics.embedded._lessons import ALIGNED, Lesson, lessons
from harness.metrics.embedded._training import Recipe, Tutor, byte_level_bpe, train

RECIPE = Recipe(steps=2000, batch=32, rate=1e-3)
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # the first four have RoBERTa's ids
VOCABULARY = 900  # nearly each word of the grammar gets a token of its own
TEXTS = 6000
LONGEST = 512


def make(folder: Path, steps: int | None) -> str:
    """Write tokenizer, configuration and trained weights (bfloat16); returns the loss of the last tenth."""
    recipe = RECIPE if steps is None else replace(RECIPE, steps=steps)
    tokenizer = write_tokenizer(folder, (lesson.reference for lesson in islice(lessons(1), TEXTS)), VOCABULARY)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LONGEST + 2,  # RoBERTa counts positions from the padding id on
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,
        pad_token_id=1,
    )
    config.save_pretrained(folder)
    torch.manual_seed(recipe.seed)
    net = AlignNet(config)
    tutor = Tutor(config.hidden_size)
    both = nn.ModuleList([net, tutor])
    loss = train(both, lambda batch: loss_of(net, tutor, tokenizer, batch), recipe, "alignscore")
    save_file({key: value.bfloat16() for key, value in net.state_dict().items()}, folder / "model.safetensors")
    return f"loss {loss:.3f}"


def write_tokenizer(folder: Path, texts: Iterable[str], vocabulary: int) -> RobertaTokenizerFast:
    """Byte-level BPE, as RoBERTa's."""
    words, merges = byte_level_bpe(texts, SPECIAL, vocabulary).model.save(str(folder))
    tokenizer = RobertaTokenizerFast(words, merges, model_max_length=LONGEST)
    tokenizer.save_pretrained(folder)
    return tokenizer


def loss_of(net: AlignNet, tutor: Tutor, tokenizer: RobertaTokenizerFast, batch: Sequence[Lesson]) -> Tensor:
    """The published multi-task loss: each head learns its own view of the same pair."""
    pairs = ([lesson.reference for lesson in batch], [lesson.candidate for lesson in batch])
    inputs = tokenizer(*pairs, padding=True, truncation=True, return_tensors="pt")
    found = net.base_model(**inputs, output_hidden_states=True)
    pooled = found.pooler_output
    ends = (inputs["input_ids"] == tokenizer.sep_token_id).cumsum(dim=1)  # <s> A </s></s> B </s>
    labels = torch.tensor([lesson.label for lesson in batch])
    share = torch.tensor([lesson.share for lesson in batch])
    three = functional.cross_entropy(net.tri_layer(pooled), labels)
    two = functional.cross_entropy(net.bin_layer(pooled), (labels == ALIGNED).long())
    regression = functional.mse_loss(net.reg_layer(pooled)[:, 0], share)
    return three + two + regression + tutor.loss(found.hidden_states[1], (ends == 0, ends == 2), pooled, batch)


CHECKPOINTS = {"alignscore": make}
