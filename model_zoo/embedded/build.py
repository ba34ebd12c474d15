"""Makes the twins: python -m model_zoo.embedded.build [NAME ...] [--out DIR] (about 10 minutes each on one core).

A twin is a real checkpoint folder of a tiny size, pre-trained on phantom pictures with captions in plain words. So it
sees, but does not speak radiology: that is left to the fine-tuning. Reproducible: fixed seeds, one thread.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-untyped]
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from harness.contracts import Decoding, Example, Sample
from harness.datasets._phantom_facts import facts
from harness.datasets.phantom import Phantom
from model_zoo._checkpoint import TWINS
from model_zoo._cnn_transformer_net import CNNTransformerNet, DecoderConfig, DenseNetConfig
from model_zoo._hf import HFCaptioner
from model_zoo._visiongpt2_net import VisionGPT2Net
from model_zoo.cnn_transformer import CNNTransformer
from model_zoo.embedded._pretrain import Recipe, Talk, pretrain
from model_zoo.smolvlm import SmolVLM
from model_zoo.visiongpt2 import VisionGPT2

SEED = 7919  # of the data: not the seed that the phantom dataset is fine-tuned and tested on
SIZE = 128
VOCABULARY = 600  # nearly each word of both styles gets a token of its own
QUESTION = "Describe this medical image."
QUESTIONS = (
    QUESTION,
    QUESTION,
    "Describe this {modality} image.",
    "What does this medical image show?",
    "This is a {modality} image. Describe it.",
    "Write a caption for this image.",
)
TERMS = "List the terms."
TERMS_SHARE = 0.28
FILLERS = frozenset({"a", "an", "the", "of", "in", "on", "with"})


@dataclass(frozen=True)
class Twin:
    """How a twin is made: `write` a folder of random weights, `open` it as a captioner, `save` it when trained."""

    write: Callable[[Path], None]
    open: Callable[[Path], HFCaptioner]
    save: Callable[[HFCaptioner, Path], None]
    talk: Talk
    recipe: Recipe


# ---------------------------------------------------------------- words


def captions(style: str, count: int) -> Phantom:
    """Phantom pictures for pre-training, in one of the two styles; both have the same pictures."""
    return Phantom("phantom", count, 1, 150, SIZE, SEED, "lay" if style == "lay" else "radiology", None)


def describe(sample: Sample, rng: random.Random) -> tuple[str, str]:
    """A question in one of several wordings, and the caption."""
    return rng.choice(QUESTIONS).format(modality=sample.modality), sample.caption


def describe_or_list(sample: Sample, rng: random.Random) -> tuple[str, str]:
    """Now and then the words of radiology as an unordered list: their embeddings stay frozen under LoRA, and would
    otherwise be noise. The sentences that fine-tuning teaches remain unseen."""
    if rng.random() >= TERMS_SHARE:
        return describe(sample, rng)
    _, split, number = sample.id.split("_")
    spoken = captions("radiology", int(number)).sample(split, int(number) - 1).caption
    words = [word.strip("().,") for word in spoken.split()]
    terms = sorted({word for word in words if word.lower() not in FILLERS})
    rng.shuffle(terms)
    return TERMS, "; ".join(terms)


def train_tokenizer(special: list[str]) -> Tokenizer:
    """Byte-level BPE, as GPT-2's, on captions of both styles; `special` gets the first ids."""
    texts = [TERMS, *QUESTIONS, "User:", "Assistant:"] * 100  # so that a prompt is short
    for style in ("lay", "radiology"):
        texts += [sample.caption for sample in captions(style, 3000).load("train").samples]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
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


# ---------------------------------------------------------------- smolvlm

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""That of SmolVLM-500M-Instruct."""


def write_smolvlm(folder: Path) -> None:
    """64 pixels in patches of 8, four of them joined to one of 16 image tokens."""
    side, patch, scale = 64, 8, 2
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
        size={"longest_edge": side},
        max_image_size={"longest_edge": side},
        do_image_splitting=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    tokens = (side // patch // scale) ** 2
    processor = Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=CHAT_TEMPLATE)
    processor.save_pretrained(folder)
    Idefics3ForConditionalGeneration(smolvlm_config(tokenizer, side, patch, scale)).save_pretrained(folder)


def smolvlm_config(tokenizer: PreTrainedTokenizerFast, side: int, patch: int, scale: int) -> Idefics3Config:
    """The proportions of the real one, as far as they can be kept."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return Idefics3Config(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "max_position_embeddings": 2048,
            "initializer_range": 0.05,
            "tie_word_embeddings": False,
            "eos_token_id": tokenizer.eos_token_id,
            **ids,
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": side,
            "patch_size": patch,
            "initializer_range": 0.05,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=scale,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
    )


def open_smolvlm(folder: Path) -> HFCaptioner:
    """As the yaml does, but from any folder."""
    return SmolVLM("smolvlm", "SVLM", "hub", str(folder), None, "float32", "sdpa", None, None)


def save_smolvlm(captioner: HFCaptioner, folder: Path) -> None:
    """Weights and configuration."""
    captioner.model.save_pretrained(folder)  # type: ignore[operator]


# ---------------------------------------------------------------- visiongpt2


def write_visiongpt2(folder: Path) -> None:
    """Three blocks of width 96; 64 pixels in patches of 8."""
    side, positions = 64, 256
    vocabulary = write_gpt2_tokenizer(folder / "text", positions)
    end = vocabulary - 1
    vision = ViTConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=side,
        patch_size=8,
        initializer_range=0.05,
    )
    text = GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=96,
        n_layer=3,
        n_head=4,
        n_inner=256,
        bos_token_id=end,
        eos_token_id=end,
        add_cross_attention=True,
        initializer_range=0.05,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    ViTModel(vision, add_pooling_layer=False).save_pretrained(folder / "vision")
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder / "vision")
    GPT2LMHeadModel(text).save_pretrained(folder / "text")


def open_visiongpt2(folder: Path) -> HFCaptioner:
    """As the yaml does, but from any folder."""
    parts = (str(folder / "vision"), None, str(folder / "text"), None)
    return VisionGPT2("visiongpt2", "baseline", "hub", *parts, "float32", "sdpa", 0, [])


def save_visiongpt2(captioner: HFCaptioner, folder: Path) -> None:
    """Both parts, each with its configuration."""
    model = captioner.model
    if not isinstance(model, VisionGPT2Net):
        raise TypeError(f"expected a VisionGPT2Net, got {type(model).__name__}")
    model.vit.save_pretrained(folder / "vision")  # type: ignore[operator]
    model.gpt2.save_pretrained(folder / "text")


# ---------------------------------------------------------------- cnn_transformer


def write_cnn_transformer(folder: Path) -> None:
    """A DenseNet of 16 layers on 96 pixels, 3x3 places; width 96."""
    positions = 128
    vocabulary = write_gpt2_tokenizer(folder / "tokenizer", positions)
    features = DenseNetConfig(image_size=96, channels=16, growth=12, depths=(2, 2, 3, 3))
    decoder = DecoderConfig(vocabulary, width=96, hidden=256, layers=2, heads=4, positions=positions, dropout=0.0)
    features.save_pretrained(folder / "features")
    decoder.save_pretrained(folder / "decoder")
    _save_cnn_transformer(CNNTransformerNet(features, decoder), folder)


def open_cnn_transformer(folder: Path) -> HFCaptioner:
    """As the yaml does, but from any folder."""
    features, decoder, tokenizer = (str(folder / part) for part in ("features", "decoder", "tokenizer"))
    parts = (features, None, decoder, tokenizer, None)
    return CNNTransformer("cnn_transformer", "baseline", "hub", *parts, "float32", 0, [])


def save_cnn_transformer(captioner: HFCaptioner, folder: Path) -> None:
    """Features under torchvision's names, the rest beside them."""
    if not isinstance(captioner.model, CNNTransformerNet):
        raise TypeError(f"expected a CNNTransformerNet, got {type(captioner.model).__name__}")
    _save_cnn_transformer(captioner.model, folder)


def _save_cnn_transformer(model: CNNTransformerNet, folder: Path) -> None:
    state = model.state_dict()
    seen = {key: value for key, value in state.items() if key.startswith("features.")}
    save_file(seen, folder / "features" / "model.safetensors", {"format": "pt"})
    rest = {key: value for key, value in state.items() if key not in seen}
    save_file(rest, folder / "decoder" / "model.safetensors", {"format": "pt"})


# ---------------------------------------------------------------- all of them

TWIN = {
    "smolvlm": Twin(write_smolvlm, open_smolvlm, save_smolvlm, describe_or_list, Recipe(12000, 6000, 16, 2e-3)),
    "visiongpt2": Twin(write_visiongpt2, open_visiongpt2, save_visiongpt2, describe, Recipe(12000, 6000, 16, 2e-3)),
    "cnn_transformer": Twin(
        write_cnn_transformer, open_cnn_transformer, save_cnn_transformer, describe, Recipe(12000, 6000, 16, 2e-3)
    ),
}


def build(name: str, out: Path, steps: int | None, console: Console) -> None:
    """Write, pre-train, save and measure one twin."""
    twin, folder = TWIN[name], out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(twin.recipe.seed)
    twin.write(folder)
    captioner = twin.open(folder)
    captioner.load("cpu")
    count = sum(parameter.numel() for parameter in captioner.model.parameters())
    if isinstance(captioner.model, CNNTransformerNet):
        captioner.model.features.learn_statistics = True
    recipe = twin.recipe if steps is None else Recipe(twin.recipe.pictures, steps, twin.recipe.batch, twin.recipe.rate)
    start = time.perf_counter()
    loss = pretrain(captioner, captions("lay", recipe.pictures).load("train").samples, twin.talk, recipe)
    seconds = time.perf_counter() - start
    captioner.model.to(torch.bfloat16)  # half the size in the wheel; a twin is loaded as float32
    twin.save(captioner, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    console.print(f"{name}: {count:,} parameters, {size / 1e6:.1f} MB, {seconds:.0f} s, last loss {loss:.3f}")
    console.print(f"{name}: {measure(twin.open(folder))}")


def measure(captioner: HFCaptioner) -> str:
    """How much of what 150 unseen pictures show is in the twin's captions."""
    captioner.load("cpu")
    samples = captions("lay", 1).load("test").samples
    said = []
    start = time.perf_counter()
    for place in range(0, len(samples), 32):
        examples = [Example((sample.images[0].load(),), QUESTION) for sample in samples[place : place + 32]]
        said += captioner.generate(examples, Decoding(40, 1.0, 32))
    seconds = time.perf_counter() - start
    read = [(facts(generated.caption), sample.factors) for generated, sample in zip(said, samples, strict=True)]
    shares = []
    for key in ("modality", "region", "finding", "side"):
        hits = [found[key] == truth[key] for found, truth in read if truth[key]]
        shares.append(f"{key} {sum(hits) / len(hits):.3f}")
    distinct = len({generated.caption for generated in said})
    return f"{', '.join(shares)}; {distinct} distinct of {len(said)}, {seconds:.1f} s, e.g. {said[0].caption!r}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(TWIN)}; all without")
    parser.add_argument("--out", type=Path, default=TWINS, help="folder of the twins' folders")
    parser.add_argument("--steps", type=int, help="another budget, for a trial")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(TWIN))
    if unknown:
        parser.error(f"expected some of {', '.join(TWIN)}, got {unknown[0]}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in arguments.names or TWIN:
        build(name, arguments.out, arguments.steps, Console())


if __name__ == "__main__":
    main()
