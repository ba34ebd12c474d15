"""The twins of both Qwen-VL generations: half a million parameters each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from model_zoo.base.captioner import HFCaptioner
from model_zoo.base.checkpoint import TWINS
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import TEXT, Twin, open_twin
from model_zoo.embedded._words import describe_and_trust, describe_or_list, train_tokenizer
from model_zoo.qwen_vl import Qwen2VL, Qwen25VL, QwenVL

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
NAMES = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
SPECIAL = [f"<|{name}|>" for name in NAMES]
# Larger than the real 14: a phantom of 128 pixels has 8x8 patches, and so 16 image tokens, within the yaml's limits.
PATCHES = {"patch_size": 16, "temporal_patch_size": 2}
MERGE = 2
TOWER = {**PATCHES, "spatial_merge_size": MERGE, "depth": 3, "num_heads": 4, "initializer_range": 0.05}


def write(folder: Path, family: type[QwenVL], **vision: Any) -> None:
    """The proportions of the real one, as far as they can be kept. vision: what its tower has of its own."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(SPECIAL, SPOKEN),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    family.image_processor_class(**PATCHES, merge_size=MERGE).save_pretrained(folder)
    names = ("vision_start", "vision_end", "image", "video")
    ids = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    config = family.config_class(
        text_config=text_config(tokenizer),
        vision_config=TOWER | vision,
        tie_word_embeddings=True,
        **{f"{name}_token_id": number for name, number in zip(names, ids, strict=True)},
    )
    family.model_class(config).save_pretrained(folder)


def text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The language model: 12 rotary frequencies, 2 of time, 5 of rows and 5 of columns."""
    return {
        **TEXT,
        "vocab_size": len(tokenizer),
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


def begin(captioner: HFCaptioner) -> None:
    """Start from Qwen2-VL's twin wherever name and shape agree: it has the same words, and few steps are enough."""
    earlier = open_twin("qwen2_vl", TWINS / "qwen2_vl")
    earlier.load("cpu")
    state = captioner.model.state_dict()
    known = earlier.model.state_dict().items()
    state.update({name: tensor for name, tensor in known if name in state and tensor.shape == state[name].shape})
    captioner.model.load_state_dict(state)


EARLIER = partial(write, family=Qwen2VL, embed_dim=64, hidden_size=TEXT["hidden_size"], mlp_ratio=2)
LATER = partial(
    write,
    family=Qwen25VL,
    window_size=2 * MERGE * PATCHES["patch_size"],
    fullatt_block_indexes=[0, 2],  # and a block between them that sees windows of 2x2 image tokens
    hidden_size=64,
    intermediate_size=96,
    out_hidden_size=TEXT["hidden_size"],
    tokens_per_second=2,
)
CHECKPOINTS = {
    "qwen2_vl": Twin(EARLIER, describe_or_list, Recipe(pictures=6000, steps=3500)),
    "qwen25_vl": Twin(LATER, describe_and_trust, Recipe(pictures=4000, steps=1300, rate=1.5e-3, seed=1), begin),
}
