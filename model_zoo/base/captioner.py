"""Base class of all captioners: labels, padding, greedy generation, checkpoints. Families hold differences."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import CompileConfig, GenerationConfig

from harness.contracts import IGNORED, Answer, Decoding, Example, Generated, Region, RequestError, Seen, Site, Stage
from model_zoo._found import whereabouts
from model_zoo.base.checkpoint import (
    CONFIG,
    TWINS,
    Source,
    Weights,
    digest,
    read_config,
    read_image_processor,
    read_model,
    read_tokenizer,
    resolve,
)
from model_zoo.base.options import Attention, CheckpointOptions, Dtype, Kind
from model_zoo.base.quantise import Scheme, bnb_config, check, fits, quantise, takes, widths

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image
    from torch import Tensor, nn


class HFCaptioner(ABC):
    """Base of all captioners. A family says how a prompt and its pictures become a `Seen`, and what its modules are.

    The processor sees one example at a time, so that no example can change another one. `pad_id` only fills places:
    masks and labels go by length, since several families pad with their stop token.
    """

    name: str
    kind: Kind
    weights: Weights
    dtype: Dtype
    attention: Attention
    sources: dict[str, Source]
    """The checkpoints by part; one alone is the part ""."""
    device = "cpu"
    prompted: bool = True
    lead: ClassVar[str] = ""
    """Text between the prompt and the answer, tokenised with the answer."""
    sites: Mapping[str, Site] = {}
    keeps_keys: ClassVar[bool] = True
    """Whether generation keeps keys and values: else nothing of it can be static or compiled."""
    regions: ClassVar[tuple[tuple[str, Region], ...]] = ()
    """(pattern over the start of a parameter's name, region); the first match counts."""
    schedule: tuple[Stage, ...] = ()
    model: nn.Module

    @property
    def scheme(self) -> Scheme | None:
        """Scheme by which language layers are quantised; None when they are not."""
        return self.dtype if self.dtype in ("nf4", "int8") else None

    @property
    def compute(self) -> torch.dtype:
        """The dtype of all weights that are not quantised, and of all computing.

        bf16 and not fp16: some real models overflow or give NaN in fp16. A twin runs on a CPU, where fp32 is faster.
        """
        half = self.dtype == "bfloat16" or (self.dtype != "float32" and self.weights == "hub")
        return torch.bfloat16 if half else torch.float32

    # ------------------------------------------------------------ what a family says

    @property
    @abstractmethod
    def tied(self) -> bool:
        """Whether the output head shares its weight with the token embeddings; it then counts as embeddings."""

    @abstractmethod
    def architecture(self) -> nn.Module:
        """The model as the checkpoint's configuration describes it, on the current default device."""

    @abstractmethod
    def read(self) -> nn.Module:
        """The model with its weights: `pretrained`, or a native one on the CPU, whose layers `load` quantises."""

    @cached_property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""

    @property
    def stops(self) -> tuple[int, ...]:
        """Token ids that end a caption, the first of which is trained: the end of a text."""
        return (self.tokenizer.eos_token_id,)

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """Any id inside the vocabulary."""

    @abstractmethod
    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """Prompt ids with the image tokens expanded, and vision tensors whose first axis may be concatenated."""

    @property
    def unreached(self) -> tuple[str, ...]:
        """Modules whose output is not used. LoRA may adapt them, as published counts do, but they get no gradient."""
        return ()

    def longest_answer(self) -> int | None:
        """Number of answer ids that the model has positions for; None where nothing but memory sets a limit."""
        return None

    # ------------------------------------------------------------ checkpoint

    def folder(self, part: str = "") -> Path:
        """The local folder of one of the captioner's checkpoints, complete."""
        return resolve(self.name, self.weights, self.sources[part])

    def config_folder(self, part: str = "") -> Path:
        """The same with at least its config.json: enough to count the parameters of a model nobody has downloaded."""
        return resolve(self.name, self.weights, self.sources[part], only=CONFIG)

    def digest(self) -> str:
        """Hex sha256 of the checkpoint's files; of several parts, over their names and digests."""
        parts = {r.part: digest(self.folder(r.part), r.files) for r in self.sources.values()}
        if len(parts) == 1:
            return next(iter(parts.values()))
        return hashlib.sha256("\n".join(f"{part} {value}" for part, value in parts.items()).encode()).hexdigest()

    def found(self) -> tuple[str, str]:
        """For `capbench list`: what is found of the embedded twin and of the published checkpoint, nothing is read."""
        parts = list(self.sources.values())
        twin = all((TWINS / self.name / part.part).is_dir() for part in parts)
        hubs = [f"{part.hub}: {whereabouts(part.hub, part.revision)}" for part in parts if part.hub]
        return "yes" if twin else "none", "; ".join(hubs)

    def skeleton(self) -> nn.Module:
        """The architecture on the meta device, without weights. Built once: do not change it."""
        return self._skeleton

    @cached_property
    def _skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return self.architecture()

    def load(self, device: str) -> None:
        """Read the checkpoint into `model`."""
        # Trainer wants to know which of several devices quantised weights lie on.
        self.device = f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device
        model = self.read()
        if self.scheme is not None:
            names = self.quantisable()
            quantise(model, self.scheme, self.compute, names, self.device)
            check(model, self.scheme, names, self.name)
        # One that from_pretrained has quantised is in its place and refuses to be moved.
        placed = getattr(model, "is_quantized", False)
        self.model = (model if placed else model.to(self.device)).eval()

    def quantisable(self) -> dict[str, int]:
        """The linear layers of the language region that the scheme takes, with their numbers of inputs."""
        language = {n: width for n, width in widths(self.skeleton()).items() if self.region(n) == "language"}
        return {name: width for name, width in language.items() if self.scheme is None or takes(self.scheme, width)}

    def pretrained(self, cls: Any, config: Any) -> Any:
        """The checkpoint's model as transformers reads it, quantised on the way where `dtype` says so."""
        bits = None
        if self.scheme is not None:
            ready = {name for name, width in self.quantisable().items() if fits(self.scheme, width)}
            bits = bnb_config(self.scheme, self.compute, kept=widths(self.skeleton()).keys() - ready)
        model = read_model(cls, self.folder(), config, self.compute, self.attention, bits=bits, device=self.device)
        return without_generation_defaults(model)

    def region(self, module: str) -> Region:
        """The region of a module or parameter, by its full name."""
        for pattern, region in self.regions:
            if re.match(rf"(?:{pattern})(?:\.|$)", module):
                return "embeddings" if region == "head" and self.tied else region
        raise RequestError(
            f"{self.name}: no region is known for the module {module!r}; add it to {type(self).__name__}"
        )

    # ------------------------------------------------------------ text

    def answer(self, caption: str, limit: int) -> Answer:
        """Token ids of caption and stop token. At most `limit` ids: a longer caption is cut and gets no stop token."""
        longest = self.longest_answer()
        limit = limit if longest is None else min(limit, longest)
        text = caption.strip()
        # A caption that spells a special token is text like any other.
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        ids = list(self.tokenizer(self.lead + text, **plain)["input_ids"]) if text else []
        ids.append(self.stops[0])
        return Answer(tuple(ids[:limit]), cut=len(ids) > limit)

    def row(self, example: Example) -> Seen:
        """What has been seen before, or else `encode`, after a look at the question.

        A special token in it would be taken for a picture or for the end.
        """
        if example.seen is not None:
            return example.seen
        hidden = next((token for token in self.tokenizer.all_special_tokens if token in example.prompt), None)
        if self.prompted and hidden is not None:
            raise RequestError(f"{self.name}: expected a prompt of plain words, got the special token {hidden!r} in it")
        return self.encode(example.images, example.prompt)

    # ------------------------------------------------------------ batches

    def collate(self, examples: Sequence[Example], limit: int) -> dict[str, Tensor]:
        """A right-padded training batch with `labels`: the answer's ids, -100 elsewhere."""
        captions = [_caption(self.name, example) for example in examples]
        return self.batch([self.row(example) for example in examples], captions, limit)

    def batch(self, rows: Sequence[Seen], captions: Sequence[str], limit: int) -> dict[str, Tensor]:
        """`collate` for rows that are encoded already."""
        answers = [list(self.answer(caption, limit).ids) for caption in captions]
        sequences = [[*row.ids, *answer] for row, answer in zip(rows, answers, strict=True)]
        labels = [[IGNORED] * len(row.ids) + answer for row, answer in zip(rows, answers, strict=True)]
        width = max(map(len, sequences))
        return {
            "input_ids": torch.tensor([ids + [self.pad_id] * (width - len(ids)) for ids in sequences]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences]),
            "labels": torch.tensor([ids + [IGNORED] * (width - len(ids)) for ids in labels]),
            **self.merge(rows),
        }

    def prompts(self, rows: Sequence[Seen]) -> dict[str, Tensor]:
        """A left-padded batch of prompts, for generation."""
        width = max(len(row.ids) for row in rows)
        return {
            # The fill is masked, but a repetition penalty looks at all ids: each row's own first id adds none to them.
            "input_ids": torch.tensor([[row.ids[0]] * (width - len(row.ids)) + [*row.ids] for row in rows]),
            "attention_mask": torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows]),
            **self.merge(rows),
        }

    def merge(self, rows: Sequence[Seen]) -> dict[str, Tensor]:
        """Vision tensors of a batch: joined on the first axis, the others (tiles) zero-padded to the largest."""
        return {name: self._join([row.tensors[name] for row in rows]) for name in rows[0].tensors}

    def _join(self, tensors: list[Tensor]) -> Tensor:
        largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        padded = []
        for tensor in tensors:
            full = tensor.new_zeros(tensor.shape[0], *largest)
            full[tuple(slice(size) for size in tensor.shape)] = tensor
            padded.append(full)
        joined = torch.cat(padded)
        return joined.to(self.compute) if joined.is_floating_point() else joined

    def using_features(self, batch: dict[str, Tensor]) -> AbstractContextManager[None]:
        """For captioners whose tower can be left out (see `TowerCached`); here a batch always holds pictures."""
        del batch
        return nullcontext()

    # ------------------------------------------------------------ generation

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> list[Generated]:
        """One caption per example, greedy; the examples are one batch.

        Under int8 each is a batch of its own: LLM.int8() looks for large activations over the whole batch, so that
        captions would depend on their neighbours.
        """
        if self.scheme == "int8" and len(examples) > 1:
            return [made for example in examples for made in self.generate([example], decoding)]
        batch = self.prompts([self.row(example) for example in examples])
        device = next(self.model.parameters()).device
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        with inference(self.model), self.using_features(inputs):
            output = self.model.generate(**inputs, generation_config=self.generation_config(decoding))  # type: ignore[operator]
        return [self.caption(ids) for ids in output[:, batch["input_ids"].shape[1] :].tolist()]

    def generation_config(self, decoding: Decoding) -> GenerationConfig:
        """Greedy decoding with every option that matters said, whatever the checkpoint recommends."""
        longest = self.longest_answer()
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=decoding.repetition_penalty,
            max_new_tokens=decoding.max_new_tokens if longest is None else min(decoding.max_new_tokens, longest),
            eos_token_id=list(self.stops),
            pad_token_id=self.pad_id,
            **(_key_options(decoding.kv_cache, self.device) if self.keeps_keys else {}),
        )

    def caption(self, ids: Sequence[int]) -> Generated:
        """Caption that the generated token ids spell, up to the first stop token."""
        end = next((place for place, token in enumerate(ids) if token in self.stops), None)
        kept = ids[:end]
        caption = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Generated(caption.strip(), tokens=len(kept), truncated=end is None)


@dataclass(eq=False)
class CheckpointCaptioner(CheckpointOptions, HFCaptioner):
    """A captioner that is one checkpoint. What of it transformers knows by itself is said here."""

    config_class: ClassVar[Any]
    model_class: ClassVar[Any]
    image_processor_class: ClassVar[Any]

    def __post_init__(self) -> None:
        """Name the one checkpoint."""
        self.sources = {"": Source(self.hub, self.revision)}

    @cached_property
    def config(self) -> Any:
        """The checkpoint's configuration."""
        return read_config(self.config_folder(), self.config_class)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        return read_tokenizer(self.folder())

    @cached_property
    def image_processor(self) -> Any:
        """The checkpoint's image processor."""
        return read_image_processor(self.image_processor_class, self.folder())

    @property
    def pad_id(self) -> int:
        """The configuration's padding id."""
        return int(self.config.pad_token_id)

    @property
    def tied(self) -> bool:
        """What config.json says."""
        return bool(self.config.tie_word_embeddings)

    def architecture(self) -> nn.Module:
        """The model as config.json describes it."""
        model: nn.Module = self.model_class(self.config)
        return model

    def read(self) -> nn.Module:
        """The model with its weights."""
        model: nn.Module = self.pretrained(self.model_class, self.config)
        return model


def _key_options(kind: str, device: str) -> dict[str, Any]:
    """Of GenerationConfig. transformers compiles the step by itself wherever keys are static on a CUDA device."""
    if kind == "dynamic":
        return {}
    options: dict[str, Any] = {"cache_implementation": "static", "disable_compile": kind != "compiled"}
    if kind == "compiled":
        # CUDA's graphs are what makes it worth while there; elsewhere they only warn.
        config = CompileConfig(mode="reduce-overhead" if device.startswith("cuda") else "default")
        config._compile_all_devices = True  # else on CUDA only
        options["compile_config"] = config
    return options


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients; afterwards the model is in the mode it was in, for captions during training."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _caption(name: str, example: Example) -> str:
    if example.caption is None:
        raise RequestError(f"{name}: expected a caption to train on, got an example without one")
    return example.caption


def only_image(name: str, images: Sequence[Image.Image]) -> Image.Image:
    """The picture of a captioner that takes exactly one."""
    if len(images) != 1:
        raise RequestError(f"{name}: expected one picture per sample, got {len(images)}; choose another model for them")
    return images[0]


def without_generation_defaults(model: Any) -> Any:
    """Forget the checkpoint's generation_config.json: transformers lets it override options that are passed."""
    model.generation_config = GenerationConfig()
    return model
