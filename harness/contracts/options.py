"""Options of the stages, and launchers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Ge, Gt, Interval

from harness.contracts.common import RUNTIME, NonNegative, Positive, RequestError


@dataclass(frozen=True)
class Training:
    """Options of a fit. `batch_size` is the batch of one update; `micro_batch_size` what fits into memory at once.

    A learning_rate of None takes the strategy's; max_steps of None trains for `epochs`.
    gradient_checkpointing: layers are computed again on the way back, for less memory; the update is the same.
    optimiser: the 8-bit ones keep their moments in 8 bits, paged: on the host where the GPU is full. CUDA only.
    """

    epochs: Annotated[float, Gt(0)]
    batch_size: Positive
    learning_rate: float | None
    max_steps: Positive | None
    warmup: Annotated[float, Interval(ge=0, le=1)]
    weight_decay: Annotated[float, Ge(0)]
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    max_grad_norm: Annotated[float, Ge(0)]
    max_caption_tokens: Positive
    micro_batch_size: Annotated[Positive | None, RUNTIME]
    save_every: Annotated[Positive, RUNTIME]
    log_every: Annotated[Positive, RUNTIME]
    workers: Annotated[NonNegative, RUNTIME]
    gradient_checkpointing: Annotated[bool, RUNTIME] = False
    optimiser: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"

    def __post_init__(self) -> None:
        """Check what an annotation cannot say."""
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

    max_new_tokens: Positive
    repetition_penalty: Annotated[float, Gt(0)]
    batch_size: Annotated[Positive, RUNTIME]
    kv_cache: Annotated[Literal["dynamic", "static", "compiled"], RUNTIME] = "dynamic"
    engine: Literal["transformers", "vllm"] = "transformers"


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
