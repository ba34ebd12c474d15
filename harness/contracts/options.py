"""Options of the stages, and launchers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from harness.contracts.common import RUNTIME, RequestError, _at_least


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
