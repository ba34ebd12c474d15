"""Words of the twins: pictures, questions, captions in plain language, and the tokenizer made of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer, decoders  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerFast

from harness.contracts import Sample
from harness.datasets.phantom import Phantom
from harness.datasets.phantom.plan import PLAN
from harness.datasets.phantom.text import Style
from harness.metrics.embedded._training import byte_level_bpe
from model_zoo.embedded._pretrain import Lesson

SEED = 7919  # of the data: not the seed that the phantom dataset is fine-tuned and tested on
SIZE = 128
TEST = 150
VOCABULARY = 600  # nearly each word of both styles gets a token of its own
QUESTION = "Describe this medical image."
QUESTIONS = (
    QUESTION,
    QUESTION,
    "Imaging modality: {modality}. Describe this medical image.",
    "Describe this {modality} image.",
    "What does this medical image show?",
    "Write a caption for this image.",
)
TERMS = "List the terms."
TERMS_SHARE = 0.28
READ_SHARE = 0.15
SWAPPED_SHARE = 0.35  # of the questions with a label
FILLERS = frozenset({"a", "an", "the", "of", "in", "on", "with"})


def phantoms(style: Style, count: int) -> Phantom:
    """Phantom pictures for pre-training, in one of the two styles; both have the same pictures."""
    return Phantom("phantom", train=count, valid=1, test=TEST, size=SIZE, seed=SEED, style=style, limit=None)


def describe(sample: Sample, rng: random.Random) -> Lesson:
    """A question in one of several wordings, and the caption."""
    return Lesson(rng.choice(QUESTIONS).format(modality=sample.modality), sample.caption)


def describe_or_list(sample: Sample, rng: random.Random) -> Lesson:
    """Now and then a question for the terms: their embeddings stay frozen under LoRA, and would otherwise be noise."""
    return Lesson(TERMS, terms(sample, rng)) if rng.random() < TERMS_SHARE else describe(sample, rng)


def describe_and_trust(sample: Sample, rng: random.Random) -> Lesson:
    """`describe_or_list`, but beside a label the picture may be a wrong one. The label never is: it is to be heeded.

    Every drawn picture shows its modality, so that nobody would learn to read the label otherwise.
    """
    lesson = describe_or_list(sample, rng)
    labelled = lesson.prompt not in (*QUESTIONS, TERMS)
    return replace(lesson, swapped=True) if labelled and rng.random() < SWAPPED_SHARE else lesson


def describe_or_read(sample: Sample, rng: random.Random) -> Lesson:
    """For models that are not asked: now and then the terms without a picture, as GPT-2 had read of all before."""
    return Lesson("", terms(sample, rng), blank=True) if rng.random() < READ_SHARE else describe(sample, rng)


def terms(sample: Sample, rng: random.Random) -> str:
    """The words of the radiology caption as an unordered list. The sentences that fine-tuning teaches stay unseen."""
    _, split, number = sample.id.split("_")
    spoken = phantoms("radiology", int(number)).sample(split, int(number) - 1).caption
    words = [word.strip("().,") for word in spoken.split()]
    listed = sorted({word for word in words if word.lower() not in FILLERS})
    rng.shuffle(listed)
    return "; ".join(listed)


def train_tokenizer(
    special: list[str], spoken: Sequence[str] = (), times: int = 20, vocabulary: int = VOCABULARY
) -> Tokenizer:
    """Byte-level BPE, as GPT-2's, on captions of both styles; `special` gets the first ids.

    spoken: words of the model's own chat template, read so many times; often, with a larger vocabulary, a long system
    text stays short.
    """
    asked = [question.format(modality=modality) for question in QUESTIONS for modality in PLAN]
    texts = [TERMS, *asked, "User:", "Assistant:"] * 20  # so that a prompt is short
    texts += [*spoken] * times
    styles: tuple[Style, ...] = ("lay", "radiology")
    for style in styles:
        texts += [sample.caption for sample in phantoms(style, 3000).load("train").samples]
    tokenizer = byte_level_bpe(texts, special, vocabulary)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_gpt2_tokenizer(folder: Path, positions: int) -> int:
    """A tokenizer like GPT-2's, one token being start, end and unknown; returns the size of the vocabulary."""
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer([]),
        bos_token=end,
        eos_token=end,
        unk_token=end,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
