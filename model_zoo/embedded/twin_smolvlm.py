"""SmolVLM's twin: 0.4 million parameters."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import TEXT, VISION, Twin
from model_zoo.embedded._words import describe_or_list, train_tokenizer

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""That of SmolVLM-500M-Instruct."""
SIDE, PATCH, SCALE = VISION["image_size"], 8, 2


def write(folder: Path) -> None:
    """64 pixels in patches of 8, four of them joined to one of 16 image tokens."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special += ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    special += [f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(special),
        bos_token=special[1],
        eos_token="<end_of_utterance>",
        pad_token=special[2],
        unk_token=special[0],
        additional_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
    )
    images = Idefics3ImageProcessor(
        size={"longest_edge": SIDE},
        max_image_size={"longest_edge": SIDE},
        do_image_splitting=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    tokens = (SIDE // PATCH // SCALE) ** 2
    processor = Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=CHAT_TEMPLATE)
    processor.save_pretrained(folder)
    Idefics3ForConditionalGeneration(config(tokenizer)).save_pretrained(folder)


def config(tokenizer: PreTrainedTokenizerFast) -> Idefics3Config:
    """The proportions of the real one, as far as they can be kept."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return Idefics3Config(
        text_config={
            **TEXT,
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "head_dim": 24,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "eos_token_id": tokenizer.eos_token_id,
            **ids,
        },
        vision_config={**VISION, "patch_size": PATCH, "initializer_range": 0.05},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=SCALE,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
    )


CHECKPOINTS = {"smolvlm": Twin(write, describe_or_list, Recipe(pictures=12000, steps=6000))}
