"""The embedded checkpoint of `similarity`: MedImageInsight's layout at a tiny size, taught on phantom pictures.

Contrastive: of its own caption, the same caption with another side, finding, modality or region, and the captions of
the other pictures, each picture is to find its own, and each caption its picture.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from tokenizers import (  # type: ignore[import-untyped]
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from torch import Tensor
from torch.nn import functional
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from harness.datasets.phantom import PhantomImage
from harness.datasets.phantom.plan import PLAN, Factors, draw_factors, has_side
from harness.datasets.phantom.text import Style, write
from harness.encoders.medimageinsight import MedImageInsight, empty_net, read_config
from harness.encoders.medimageinsight_net import PairNet
from harness.encoders.pair_files import TWIN
from harness.metrics.embedded._training import adamw, descend

SEED = 6151  # of the data: not the seed that the phantom dataset is scored on
PIXELS = 128  # the phantom dataset's default
STYLES: tuple[Style, ...] = ("radiology", "lay")
START, END = "<|startoftext|>", "<|endoftext|>"
FINDINGS = sorted({finding for _, plan in PLAN.values() for findings in plan.values() for finding in findings})
Facts = tuple[str, str, str, str]


@dataclass(frozen=True)
class Recipe:
    """Budget by steps: the same weights on a busy machine."""

    pictures: int = 4000
    steps: int = 1500
    batch: int = 24
    rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    scale: float = 20.0  # inverse temperature; fixed, as `middle` has a meaning only beside it
    middle: float = 0.25  # cosine between right and wrong: right captions come out near 0.4, as of real encoders


def make(folder: Path, steps: int | None) -> str:
    """Write the release folder of a trained encoder, of the sizes of the one that ships.

    Returns how well it separates captions of unseen pictures.
    """
    recipe = Recipe() if steps is None else replace(Recipe(), steps=steps)
    torch.manual_seed(0)
    vocabulary = write_tokenizer(folder / "language_model" / "clip_tokenizer_4.16.2", plain_captions(), 1000)
    shutil.copy(TWIN / "config.yaml", folder)
    net = start(empty_net(read_config(TWIN / "config.yaml"), vocabulary), recipe)
    save(net, folder)
    reader = MedImageInsight(folder, "cpu", torch.float32)
    loss = train(net, reader, recipe)
    save(net, folder)
    count = sum(parameter.numel() for parameter in net.parameters())
    trained = MedImageInsight(folder, "cpu", torch.float32)
    return f"{count:,} parameters, last loss {loss:.3f}; {separation(trained)}"


def start(net: PairNet, recipe: Recipe) -> PairNet:
    """Small embeddings, as CLIP's; torch's own are of size 1, and take long to unlearn."""
    with torch.no_grad():
        net.lang_encoder.token_embedding.weight.normal_(std=0.02)
        net.lang_encoder.positional_embedding.normal_(std=0.02)
        for projection in (net.image_projection, net.lang_projection):
            projection.normal_(std=projection.shape[0] ** -0.5)
        net.logit_scale.fill_(float(np.log(recipe.scale)))
    return net


def save(net: PairNet, folder: Path) -> None:
    """Half precision: half the size in the wheel; it is loaded as float32."""
    (folder / "vision_model").mkdir(exist_ok=True)
    state = {key: value.detach().to(torch.bfloat16) for key, value in net.state_dict().items()}
    save_file(state, folder / "vision_model" / "model.safetensors")


# ---------------------------------------------------------------- words


def plain_captions() -> list[str]:
    """Captions that the embedded tokenizer learns from."""
    rng = np.random.default_rng(SEED)
    return [write(draw_factors(SEED, "train", n), style, rng) for n in range(3000) for style in STYLES]


def write_tokenizer(folder: Path, captions: Sequence[str], size: int) -> int:
    """CLIP's files with merges learnt from captions; returns the size of the vocabulary, about `size`.

    All bytes are in it, within a word and at its end, so that no text has an unknown token. The end has the highest id.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    pattern = Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    tokenizer.train_from_iterator(
        captions, trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    folder.mkdir(parents=True)
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    options = special | {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=1), encoding="utf-8")
    return len(vocabulary)


# ---------------------------------------------------------------- captions that are wrong in one fact


def facts(factors: Factors) -> Facts:
    """Facts that tell a right caption from a wrong one."""
    return factors.modality, factors.region, factors.finding, factors.side


def wrong(factors: Factors, kind: str, rng: np.random.Generator) -> Factors | None:
    """The same factors with another side, finding, modality or region; None where there is no side."""
    modality, region, finding, side = facts(factors)
    if kind == "side":
        return replace(factors, side="left" if side == "right" else "right") if side else None
    if kind == "finding":
        likely = rng.random() < 0.7  # others are never seen in such a picture
        found = _other(PLAN[modality][1][region] if likely else FINDINGS, finding, rng)
        return _sided(replace(factors, finding=found), rng)
    if kind == "modality":
        return _sided(replace(factors, modality=_other(list(PLAN), modality, rng)), rng)
    regions = [name for _, plan in PLAN.values() for name in plan]
    return _sided(replace(factors, region=_other(regions, region, rng)), rng)


def _other(options: Sequence[str], but: str, rng: np.random.Generator) -> str:
    return str(rng.choice([option for option in options if option != but]))


def _sided(factors: Factors, rng: np.random.Generator) -> Factors:
    """A side where the new facts have one, the old one if there was one, and none elsewhere."""
    if not has_side(factors.modality, factors.region, factors.finding):
        return replace(factors, side="")
    return factors if factors.side else replace(factors, side=str(rng.choice(["left", "right"])))


def captions(factors: Factors, kinds: Sequence[str], rng: np.random.Generator) -> list[tuple[str, Facts]]:
    """The right caption first, then wrong ones in the same wording."""
    style, seed = STYLES[int(rng.random() < 0.4)], int(rng.integers(2**32))
    told = [factors, *(wrong(factors, kind, rng) or wrong(factors, "finding", rng) or factors for kind in kinds)]
    return [(write(one, style, np.random.default_rng(seed)), facts(one)) for one in told]


# ---------------------------------------------------------------- training

KINDS = ("side", "finding", "finding", "modality", "region")


def train(net: PairNet, reader: MedImageInsight, recipe: Recipe) -> float:
    """AdamW with a linear rise and cosine decay; returns the mean loss of the last tenth."""
    parameters = [parameter for name, parameter in net.named_parameters() if name != "logit_scale"]
    optimizer = adamw(parameters, recipe.rate, recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, recipe.steps, pct_start=recipe.warmup, cycle_momentum=False
    )
    pictures = (PhantomImage(SEED, "train", n, PIXELS).load() for n in range(recipe.pictures))
    pixels = torch.cat([reader.pixels([one]) for one in track(pictures, "drawing", recipe.pictures, transient=True)])
    drawn = [draw_factors(SEED, "train", n) for n in range(recipe.pictures)]
    rng = np.random.default_rng(SEED)

    def losses() -> Iterator[Tensor]:
        for _ in track(range(recipe.steps), "training", transient=True):
            chosen = rng.choice(recipe.pictures, recipe.batch, replace=False)
            told = [captions(drawn[n], KINDS, rng) for n in chosen]
            yield loss_of(net, reader, pixels[chosen], [facts(drawn[n]) for n in chosen], told, recipe.middle)

    net.train()
    last = descend(losses(), optimizer, schedule)
    net.eval()
    return last


def loss_of(
    net: PairNet,
    reader: MedImageInsight,
    pixels: Tensor,
    shown: Sequence[Facts],
    told: Sequence[Sequence[tuple[str, Facts]]],
    middle: float,
) -> Tensor:
    """Each picture finds its caption among all, each right caption its picture; twins in fact count for neither.

    Which is the nearest says nothing of how near: a third term wants right cosines above `middle` and wrong ones below.
    """
    size = len(told[0])
    texts = [one for row in told for one in row]
    images = net.encode_images(pixels)
    words = net.encode_texts(*reader.tokens([text for text, _ in texts]))
    logits = net.logit_scale.exp() * images @ words.T
    own = torch.arange(len(shown)) * size
    same = torch.tensor([[known == fact for _, fact in texts] for known in shown])
    same[torch.arange(len(shown)), own] = False
    logits = logits.masked_fill(same, float("-inf"))
    to_text = functional.cross_entropy(logits, own)
    to_image = functional.cross_entropy(logits[:, own].T, torch.arange(len(shown)))
    scale = net.logit_scale.exp()
    right = functional.softplus(scale * middle - logits[torch.arange(len(shown)), own])
    wrong_ones = functional.softplus(logits - scale * middle)
    wrong_ones[torch.arange(len(shown)), own] = 0
    return to_text + to_image + right.mean() + wrong_ones.sum(1).mean() / size


def separation(encoder: MedImageInsight, count: int = 400) -> str:
    """Share of pictures whose right caption is nearer than the same one with one wrong fact, on unseen pictures."""
    rng = np.random.default_rng(1)
    drawn = [draw_factors(SEED, "test", n) for n in range(count)]
    pictures = [PhantomImage(SEED, "test", n, PIXELS).load() for n in range(count)]
    images = torch.cat([encoder.images(pictures[n : n + 50]) for n in range(0, count, 50)])
    shares, cosines = [], []
    for kind in ("side", "finding", "modality", "region"):
        told = [(n, captions(one, [kind], rng)) for n, one in enumerate(drawn) if wrong(one, kind, rng)]
        right, false = (encoder.texts([pair[place][0] for _, pair in told]) for place in (0, 1))
        seen = images[[n for n, _ in told]]
        near, far = (seen * right).sum(1), (seen * false).sum(1)
        shares.append(f"{kind} {(near > far).float().mean():.3f} of {len(told)}")
        cosines.append(f"{near.mean():.2f}/{far.mean():.2f}")
    return f"{', '.join(shares)}; mean cosine right/wrong {', '.join(cosines)}"


CHECKPOINTS = {"similarity": make}
