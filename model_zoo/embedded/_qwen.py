"""Twins of both Qwen-VL generations: tokenizer, image processor, proportions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor

from model_zoo.embedded._twin import TEXT
from model_zoo.embedded._words import train_tokenizer

CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""That of Qwen2-VL-2B-Instruct, less the videos."""
SPOKEN = ("system", "\n", "You are a helpful assistant.", "user", "assistant")
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Larger than the real 14: a phantom of 128 pixels has 8x8 patches, and so 16 image tokens, within the yaml's limits.
PATCHES = {"patch_size": 16, "temporal_patch_size": 2}
MERGE = 2


def write(folder: Path, config_class: Any, model_class: Any, **vision: Any) -> None:
    """The proportions of the real one, as far as they can be kept. vision: what its tower has of its own."""
    tokenizer = write_processors(folder)
    tower = {**PATCHES, "spatial_merge_size": MERGE, "depth": 3, "num_heads": 4, "initializer_range": 0.05}
    config = config_class(text_config=text_config(tokenizer), vision_config=tower | vision, **marks(tokenizer))
    model_class(config).save_pretrained(folder)


def write_processors(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template, and the image processor."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(list(SPECIAL), SPOKEN),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessor(**PATCHES, merge_size=MERGE).save_pretrained(folder)
    return tokenizer


def text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The language model: 12 rotary frequencies, 2 of time, 5 of rows and 5 of columns."""
    return {
        **TEXT,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "max_window_layers": 2,
        # Columns have the lowest frequencies. Four columns could not be told apart with the real base of a million.
        "rope_theta": 10.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 5, 5]},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def marks(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The ids of the tokens that stand for pictures."""
    names = ("vision_start", "vision_end", "image_pad", "video_pad")
    start, end, image, video = tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])
    return {
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "image_token_id": image,
        "video_token_id": video,
        "tie_word_embeddings": True,
    }
