"""What each captioner reads and is taught, token by token: the published format, and golden ids of the twins.

`golden/rendered.json` was written with `python -m tests.test_rendered`, once the texts were the published ones; it
changes only when a twin's tokenizer does.
"""

from __future__ import annotations

import json
from itertools import groupby

import pytest

from harness.contracts import Example
from tests.support.captioners import NAMES, make, picture
from tests.support.commands import ROOT

GOLDEN = ROOT / "tests" / "golden" / "rendered.json"
QUESTION = "Describe this medical image."
CAPTION = "A nodule in the left lung."
VICUNA = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
)
QWEN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>[<|image_pad|> x 16]"
    "<|vision_end|>{q}<|im_end|>\n<|im_start|>assistant\n"
)
# The published prompt formats; [token x n] stands for the places of the picture. Then what is supervised;
# Llama's tokenizers put a blank before it, and behind special tokens, that they take off again at the start only.
FORMATS = {
    "llava_mistral": ("<s> [INST] [<image> x 36]\n{q} [/INST]", "{c}</s>"),
    "llava_vicuna": (f"<s> {VICUNA} USER: [<image> x 36]\n{{q}} ASSISTANT:", "{c}</s>"),
    "llava_15": ("<s> USER: [<image> x 16]\n{q} ASSISTANT:", "{c}</s>"),
    "idefics_9b": (
        "<s> User:<fake_token_around_image><image><fake_token_around_image> {q}<end_of_utterance> \nAssistant:",
        "{c}<end_of_utterance>",
    ),
    "qwen2_vl": (QWEN, "{c}<|im_end|>"),
    "qwen25_vl": (QWEN, "{c}<|im_end|>"),
    # The start, and 16 places whose ids are never looked at.
    "moondream2": ("[<|endoftext|> x 17]\n\nQuestion: {q}\n\nAnswer:", " {c}<|endoftext|>"),
    "smolvlm": (
        "<|im_start|>User:<fake_token_around_image><global-img>[<image> x 16]<fake_token_around_image>"
        "{q}<end_of_utterance>\nAssistant:",
        " {c}<end_of_utterance>",
    ),
    "visiongpt2": ("<|endoftext|>", "{c}<|endoftext|>"),
    "cnn_transformer": ("<|endoftext|>", "{c}<|endoftext|>"),
}


def rendered(name: str) -> dict[str, list[int]]:
    captioner = make(name)
    row = captioner.row(Example((picture(128, 128),), QUESTION))
    return {"prompt": row.ids, "answer": list(captioner.answer(CAPTION, 100).ids)}


def text(name: str, ids: list[int]) -> str:
    """The decoded ids, a run of one token as [token x n]."""
    tokenizer = make(name).tokenizer
    parts = []
    for token, run in groupby(ids):
        count = len(list(run))
        parts += [token] * count if count < 3 else [f"[{tokenizer.decode([token])} x {count}]"]
    whole, ordinary = "", []
    for part in [*parts, ""]:
        if isinstance(part, int):
            ordinary.append(part)
        else:
            whole += tokenizer.decode(ordinary, clean_up_tokenization_spaces=False) + part
            ordinary = []
    return whole


def test_every_captioner_has_a_published_format() -> None:
    assert set(FORMATS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_and_the_answer_are_the_published_ones(name: str) -> None:
    found = rendered(name)
    prompt, answer = (part.format(q=QUESTION, c=CAPTION) for part in FORMATS[name])
    assert text(name, found["prompt"]) == prompt
    assert text(name, found["answer"]) == answer


@pytest.mark.parametrize("name", NAMES)
def test_the_ids_are_the_golden_ones(name: str) -> None:
    assert rendered(name) == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(rendered(name))}" for name in NAMES]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
