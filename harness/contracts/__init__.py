"""The shared nouns (dataclasses) and roles (Protocols). Imports the standard library only.

Plug-ins and stages meet here and nowhere else: a stage gets plug-ins as arguments, a plug-in knows no stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

RUNTIME = "runtime"
"""Marks a value that cannot change captions or scores: ``workers: Annotated[int, RUNTIME]``.

Whatever a plug-in's constructor takes is identity (part of the hashes) unless it carries this mark, so that a
forgotten mark costs a repeated computation and never a wrong reuse.
"""

SPLITS = ("train", "valid", "test")
REGIONS = ("vision", "connector", "language", "head", "embeddings")
Region = Literal["vision", "connector", "language", "head", "embeddings"]
UNKNOWN = "unknown"
GREY = "grey"
"""Key of a decoded picture's `info`: true where its three channels are known to be alike, so that one says all."""


class CapBenchError(Exception):
    """Something went wrong that the message explains: what was expected, what came, what to do."""


class RequestError(CapBenchError):
    """The request itself is wrong (a name, an option, a file): exit code 2, nothing was run."""


class Refused(RequestError):
    """A combination that has no meaning, such as LoRA on a baseline's untrained decoder. Documented, not a failure."""


class ImageError(CapBenchError):
    """A picture cannot be read. Carries the reason, never the patient."""


# ---------------------------------------------------------------- data


class ImageSource(Protocol):
    """Where a picture comes from; nothing is read before `load`."""

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB. Raises ImageError when it cannot be decoded."""

    def digest(self) -> str:
        """Hex sha256 of the bytes the picture is made from. Raises ImageError when they cannot be read."""


@dataclass(frozen=True)
class Sample:
    """One row of a dataset: its picture(s) and the reference text.

    `factors`: what else is known of it (facts of a drawn picture; licence, attribution, raw_caption of a real one).
    """

    id: str
    images: tuple[ImageSource, ...]
    caption: str
    split: str
    modality: str = UNKNOWN
    concepts: tuple[str, ...] = ()
    factors: Mapping[str, str] = field(default_factory=dict)
    task: str = "caption"


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used, and why. Counted and written down, never dropped in silence."""

    id: str
    reason: str


@dataclass(frozen=True)
class Split:
    """The usable samples of one split, in a fixed order, and the ledger of the others."""

    name: str
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 over ids, captions, modalities and picture bytes: what a caption or a fit can depend on."""
        return fingerprint((sample, [image.digest() for image in sample.images]) for sample in self.samples)


def fingerprint(rows: Iterable[tuple[Sample, Sequence[str]]]) -> str:
    """Hex sha256 over samples and the digests of their pictures."""
    total = hashlib.sha256()
    for sample, digests in rows:
        for text in (sample.id, sample.caption, sample.modality, *sample.concepts, *digests, ""):
            raw = text.encode()
            total.update(len(raw).to_bytes(8, "little") + raw)
    return total.hexdigest()


class Dataset(Protocol):
    """A source of samples. Constructors are cheap; `load` reads."""

    name: str

    def load(self, split: str) -> Split:
        """Samples of "train", "valid" or "test", in the same order each time. Raises RequestError on a wrong file."""


@runtime_checkable
class Stored(Protocol):
    """An image source that can give the encoded bytes: `capbench data check` then tells format and colour mode."""

    def open(self) -> BinaryIO:
        """The picture as stored, from its first byte. Raises ImageError when it cannot be read."""


# ---------------------------------------------------------------- prompts


class ModalitySource(Protocol):
    """Where the modality label of the prompt comes from (the data, a classifier, nowhere)."""

    name: str

    def labels(self, samples: Sequence[Sample]) -> list[str | None]:
        """One label per sample, None where there is none to give."""


@runtime_checkable
class Checkpointed(Protocol):
    """A plug-in that reads a checkpoint: its content, not where it lies, is part of what a run is known by."""

    def digest(self) -> str:
        """Hex sha256 of the files that are read. Raises RequestError when there are none."""


class ModalityClassifier(Checkpointed, Protocol):
    """What `capbench modality fit` trains for a modality source to read. Its digest is that of the first weights."""

    name: str

    def steps(self, count: int) -> int:
        """Updates that a fit on so many samples takes."""

    def fit(
        self, samples: Sequence[Sample], classes: Sequence[str], seed: int, device: str, advance: Callable[[int], None]
    ) -> None:
        """Train to tell the classes apart; `advance` is called with each update. Raises ImageError."""

    def logits(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Of the trained classifier [samples, classes], on the CPU. Raises ImageError."""

    def save(self, folder: Path, temperature: float) -> None:
        """Write a folder that the modality source reads; its confidences are those of logits / temperature."""


class PromptStyle(Protocol):
    """What a captioner is asked. How a model spells it (chat template) is the captioner's business."""

    name: str

    def text(self, sample: Sample, modality: str | None) -> str:
        """The question for one sample."""


@dataclass(frozen=True)
class Query:
    """A sample with its rendered question: what fit and generate work on.

    `label`: the modality that the question names.
    """

    sample: Sample
    prompt: str
    label: str | None = None


# ---------------------------------------------------------------- captioners


@dataclass(frozen=True)
class Site:
    """A part of a model: a pattern for `re.fullmatch` over module names, and the region it is counted in."""

    pattern: str
    region: Region


@dataclass(frozen=True)
class Stage:
    """Progressive fine-tuning: from this share of the steps on (0 to 1), the modules of these patterns train."""

    start: float
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """A question and its pictures as a captioner keeps them: prompt ids, and tensors by name."""

    ids: Sequence[int]
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Example:
    """What a captioner sees: decoded pictures, the question and, in training, the answer.

    seen: what stands in the place of pictures and question when a `TowerCached` captioner has seen them before.
    """

    images: tuple[Image.Image, ...]
    prompt: str
    caption: str | None = None
    seen: Seen | None = None


@dataclass(frozen=True)
class Generated:
    """One caption; `truncated` when it reached max_new_tokens before the stop token."""

    caption: str
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Answer:
    """The supervised token ids of one caption; `cut` when the caption was longer than the limit allowed."""

    ids: tuple[int, ...]
    cut: bool


class Captioner(Protocol):
    """The wrapper around a model. `load` fills `model`; everything before it is cheap.

    `sites` maps site names to modules for the LoRA strategies; `schedule` is the unfreezing plan of `full`.
    An empty one means that the strategies which need it refuse the captioner.
    """

    name: str
    kind: Literal["LVLM", "SVLM", "baseline"]
    sites: Mapping[str, Site]
    schedule: tuple[Stage, ...]
    prompted: bool
    model: nn.Module

    def digest(self) -> str:
        """Hex sha256 of the checkpoint's files. Raises RequestError when the checkpoint cannot be found."""

    def found(self) -> tuple[str, str]:
        """For `capbench list`: what is found of the embedded twin and of the published checkpoint, nothing is read."""

    def skeleton(self) -> nn.Module:
        """The architecture on the meta device, without weights."""

    def load(self, device: str) -> None:
        """Read the checkpoint into `model`."""

    def region(self, module: str) -> Region:
        """The region a module name belongs to."""

    def answer(self, caption: str, limit: int) -> Answer:
        """Token ids of caption and stop token. At most `limit` ids: a longer caption is cut and gets no stop token."""

    def collate(self, examples: Sequence[Example], limit: int) -> dict[str, torch.Tensor]:
        """A right-padded training batch with `labels`: the answer's ids, -100 elsewhere."""

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> list[Generated]:
        """One caption per example, greedy, independent of the batch it is in."""


Speak = Callable[[Sequence[Example], "Decoding"], list[Generated]]
"""One caption per example, greedy: `Captioner.generate`, or another engine's."""


@runtime_checkable
class TowerCached(Protocol):
    """A captioner whose vision tower need not see a picture twice, as long as no strategy touches the tower.

    What is kept is what the tower gives, the input of the connector: connector and language model may be trained.
    tower: the name of the module in which the tower lies.
    """

    tower: str

    def look(self, example: Example) -> Seen:
        """Prompt ids and pixels of one example, as the processor makes them. Works before `load`."""

    def see(self, looked: Seen) -> Seen:
        """The same with the tower's output in the place of the pixels, on the CPU."""

    def given(self, batch: dict[str, torch.Tensor]) -> AbstractContextManager[None]:
        """Makes a batch of examples that have been seen ready for the model, in place; within it the tower is left out.

        A batch of pictures is left as it is.
        """


@runtime_checkable
class Exportable(Protocol):
    """A captioner whose language model another engine can run: it gives embedded prompts and takes token ids back."""

    @property
    def stops(self) -> tuple[int, ...]:
        """Token ids that end a caption."""

    def unexportable(self) -> str | None:
        """Why its language model cannot leave it as it is now; None when it can."""

    def export(self, folder: Path) -> None:
        """Write the language model, merged, as a transformers checkpoint of its own."""

    def embed(self, example: Example) -> torch.Tensor:
        """Pictures and question as the language model gets them: (places, width)."""

    def give_up_language(self) -> None:
        """Free the memory of the language layers; `embed` works on."""

    def caption(self, ids: Sequence[int]) -> Generated:
        """What the generated token ids say."""


@runtime_checkable
class Measured(Protocol):
    """A captioner whose pictures take more or fewer places, so that batches of rows alike waste least."""

    def places(self, size: tuple[int, int]) -> int:
        """About how many places a picture of (width, height) takes in a prompt; reads settings, no weights."""


# ---------------------------------------------------------------- controls


@dataclass(frozen=True)
class Said:
    """What a control says of one sample: a caption, or None and the reason. `facts` join the sample's journal row."""

    caption: str | None
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Control(Protocol):
    """Captions without a captioner: what a score is worth is what a captioner gains over these.

    `speaks` is false of the one that leaves the captioner its word. Constructors are cheap.
    """

    name: str
    speaks: bool

    def digest(self) -> str:
        """Hex sha256 of the checkpoint it looks with, "" without one. Raises RequestError when it cannot be found."""

    def learn(self, train: Sequence[Sample], device: str, features: MutableMapping[str, bytes]) -> Mapping[str, Any]:
        """Take in the training samples; what of that belongs into the manifest. `features`: as for metrics."""

    def say(self, samples: Sequence[Sample]) -> list[Said]:
        """One answer per sample, independent of the others."""


# ---------------------------------------------------------------- strategies


@dataclass(frozen=True)
class Plan:
    """A strategy resolved against one captioner: explicit module names, counts, options.

    adapted: modules that get LoRA; trained: modules trained in full; counts: trainable parameters per region;
    params_added: parameters that the strategy adds to the model (LoRA's own); schedule: (share of the steps, modules
    that train from then on), for progressive fine-tuning.
    """

    strategy: str
    params_total: int
    counts: Mapping[str, int]
    params_added: int = 0
    adapted: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    schedule: tuple[tuple[float, tuple[str, ...]], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def params_trained(self) -> int:
        """Trainable parameters over all regions, tied weights counted once."""
        return sum(self.counts.values())

    @property
    def params_trained_pct(self) -> float:
        """Percent of the model's parameters and those that the strategy adds, as published counts have it."""
        return 100 * self.params_trained / max(self.params_total + self.params_added, 1)  # a control has none


class Strategy(Protocol):
    """How a captioner is adapted."""

    name: str
    trains: bool
    learning_rate: float

    def plan(self, captioner: Captioner) -> Plan:
        """Resolve against the captioner's skeleton. Raises Refused, or RequestError when a site matches nothing."""

    def attach(self, captioner: Captioner, plan: Plan) -> nn.Module:
        """Make the loaded model trainable as planned and return it (peft wraps it)."""

    def save(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Write what was trained as safetensors."""

    def load(self, model: nn.Module, plan: Plan, folder: Path) -> None:
        """Put saved weights into an attached model and prove that they arrived. Raises CapBenchError."""

    def merge(self, model: nn.Module) -> None:
        """Fold what was added into the captioner's own weights, in place. Raises Refused where that loses precision."""

    def unfreeze(self, model: nn.Module, plan: Plan, share: float) -> None:
        """Called when the fit enters a new stage of the plan's schedule, with the share of the steps done (0 to 1)."""


# ---------------------------------------------------------------- metrics


@dataclass(frozen=True)
class Pair:
    """What a metric compares."""

    reference: str
    candidate: str
    image: ImageSource | None = None


@dataclass(frozen=True)
class Score:
    """The values of one pair by name ("f1", ...); a failed one has no values and a reason."""

    values: Mapping[str, float]
    reason: str = ""


class Metric(Protocol):
    """A per-sample metric. `values` names what `score` returns, the headline last; a protocol picks one of them.

    `needs` says what of a pair it looks at beside the candidate: "reference", "image", and "corpus" where a value
    depends on the references of the whole split.
    """

    name: str
    values: tuple[str, ...]
    needs: frozenset[str]
    higher_is_better: bool

    def missing(self) -> str | None:
        """Why the metric cannot run here and the command that helps; None when all is there. Cheap."""

    def signature(self) -> str:
        """Name, version, options and checkpoint digest in one line: what a value depends on besides its texts."""

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read checkpoints, into a shallow copy that ends with the scoring. `features` outlives the command: what was
        computed from one text or picture, by the hex digest of that content and of all that it depends on."""

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair. `references`: those of the whole split, one per sample, for corpus statistics."""


# ---------------------------------------------------------------- options of the stages


@dataclass(frozen=True)
class Training:
    """Options of a fit. `batch_size` is the batch of one update; `micro_batch_size` what fits into memory at once.

    A learning_rate of None takes the strategy's; max_steps of None trains for `epochs`.
    gradient_checkpointing: layers are computed again on the way back, for less memory; the update is the same.
    optimiser: the 8-bit ones keep their moments in 8 bits, paged: on the host where the GPU is full. CUDA only.
    """

    epochs: float
    batch_size: int
    learning_rate: float | None
    max_steps: int | None
    warmup: float
    weight_decay: float
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    max_grad_norm: float
    max_caption_tokens: int
    micro_batch_size: Annotated[int | None, RUNTIME]
    save_every: Annotated[int, RUNTIME]
    log_every: Annotated[int, RUNTIME]
    workers: Annotated[int, RUNTIME]
    gradient_checkpointing: Annotated[bool, RUNTIME] = False
    optimiser: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"

    def __post_init__(self) -> None:
        """Check ranges; types are checked against the annotations before."""
        for name in ("batch_size", "max_caption_tokens", "save_every", "log_every"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("max_steps", "micro_batch_size"):
            if getattr(self, name) is not None:
                _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("workers", "warmup", "weight_decay", "max_grad_norm"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        if self.epochs <= 0:
            raise RequestError(f"train.epochs: expected more than 0, got {self.epochs}")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise RequestError(
                f"train.micro_batch_size: expected a divisor of train.batch_size={self.batch_size}, "
                f"got {self.micro_batch_size}"
            )


@dataclass(frozen=True)
class Decoding:
    """Options of generation: greedy, the repetition penalty always passed explicitly.

    kv_cache: keys and values of a batch grow by each token (dynamic), or have their full size from the start (static),
    with the step compiled by torch.compile (compiled). engine: what runs the language model.
    """

    max_new_tokens: int
    repetition_penalty: float
    batch_size: Annotated[int, RUNTIME]
    kv_cache: Annotated[Literal["dynamic", "static", "compiled"], RUNTIME] = "dynamic"
    engine: Literal["transformers", "vllm"] = "transformers"

    def __post_init__(self) -> None:
        """Check ranges; types are checked against the annotations before."""
        _at_least("generate.max_new_tokens", self.max_new_tokens, 1)
        _at_least("generate.batch_size", self.batch_size, 1)
        if self.repetition_penalty <= 0:
            raise RequestError(f"generate.repetition_penalty: expected more than 0, got {self.repetition_penalty}")


@dataclass(frozen=True)
class ScoreProtocol:
    """A named, versioned set of metrics, options and averages.

    columns: leaderboard column -> {metric, value, options}; averages: column -> the columns it is the mean of,
    in the order they are computed; primary: the column that ranks; official: the names of an organiser's scores.json.
    `note` is printed with every table.
    """

    name: str
    version: int
    columns: Mapping[str, Mapping[str, Any]]
    averages: Mapping[str, Sequence[str]]
    primary: str
    note: str = ""
    official: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every name stands for a column or an average."""
        known = {*self.columns, *self.averages}
        for name in (
            self.primary,
            *self.official.values(),
            *(part for parts in self.averages.values() for part in parts),
        ):
            if name not in known:
                raise RequestError(f"protocol {self.name}: expected one of {', '.join(sorted(known))}, got {name!r}")


# ---------------------------------------------------------------- sweeps


@dataclass(frozen=True)
class Sweep:
    """Cells to be started. `work(task)` brings one to its end and writes down how; a task is plain JSON.

    width: how many fit this machine at once. devices: CUDA devices, one for each at a time; none on a CPU.
    folder: for the launcher's own files.
    """

    work: Callable[[Mapping[str, Any]], None]
    tasks: Sequence[Mapping[str, Any]]
    width: int
    devices: Sequence[str]
    folder: Path


class Launcher(Protocol):
    """Starts each cell of a sweep in a process of its own, so that whatever ends the process ends this cell only."""

    name: str

    def prepare(self, modules: Sequence[str]) -> None:
        """Begin what takes a while, as long as the request is being checked: `modules` are what cells import."""

    def launch(self, sweep: Sweep) -> Iterator[tuple[int, str | None]]:
        """The places of the tasks as they end and, where the process did not end by itself, how it died.

        Closing the iterator ends the processes.
        """


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise RequestError(f"{name}: expected {least} or more, got {value}")
