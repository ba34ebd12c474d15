"""transformers' Trainer as a fit needs it: the same updates in every way of running, and checkpoints that are whole."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from harness.contracts import IGNORED, CapBenchError, Plan, Query, RequestError, Strategy, Training
from harness.machine import ranks
from harness.machine.terminal import bar
from harness.store import Damaged, read_json, write_json
from harness.training.loss import caption_loss, supervised_only

COMPLETE = "complete.json"  # written last into a checkpoint: without it the checkpoint is a torso
KEPT_CHECKPOINTS = 2
OPTIMISERS = {"adamw": TrainingArguments.default_optim}  # the others have Trainer's names

Collate = Callable[[Sequence[Query]], dict[str, torch.Tensor]]


PATIENCE = 600  # seconds that a batch of a data worker may take
SHARED = Path("/dev/shm")
SHARE = 64 * 2**20  # bytes of it per data worker: a batch of small pictures; large ones take more


class Items(Dataset[tuple[Query, bool]]):
    """The queries, and whether each is real: places behind the last one are fillers (see Order)."""

    def __init__(self, queries: Sequence[Query]) -> None:
        self.queries = queries

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> tuple[Query, bool]:
        return self.queries[index % len(self.queries)], index < len(self.queries)


class Order(Sampler[int]):
    """A random order per epoch that depends on seed and epoch alone.

    It is filled up to a multiple of what all processes take at once: they must take equally many batches, and what
    accelerate would repeat for that counts twice in the last update.

    lengths: about how long each row is. Within each `update` of so many rows the longest then come first, so that
    micro-batches are of rows alike; which rows make up an update does not change.
    """

    def __init__(self, count: int, multiple: int, seed: int, update: int = 1, lengths: Sequence[int] = ()) -> None:
        self.count, self.length, self.seed = count, math.ceil(count / multiple) * multiple, seed
        self.update, self.lengths = update, lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order: list[int] = torch.randperm(self.count, generator=generator).tolist()
        for start in range(0, self.count, self.update):
            rows = order[start : start + self.update]
            yield from sorted(rows, key=lambda row: -self.lengths[row]) if self.lengths else rows
        yield from range(self.count, self.length)


def collated(items: Sequence[tuple[Query, bool]], collate: Collate) -> dict[str, torch.Tensor]:
    """A batch in which fillers have nothing to learn."""
    batch = collate([query for query, _ in items])
    batch["labels"][[not real for _, real in items]] = IGNORED
    return batch


class CaptionTrainer(Trainer):
    """Trainer that leaves the format of weights to the strategy: a checkpoint holds what trains, nothing else.

    Losses are logged unrounded, and one that is no number ends the fit: Trainer would log the mean of the others.
    """

    using_features: Any = nullcontext
    """What makes a batch of features ready for the model, see `TowerCached`."""
    lengths: Sequence[int] = ()
    """Of the rows, where an update is made in parts."""
    total: torch.Tensor | float = 0.0
    updates = 0

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        queries: Sequence[Query],
        collate: Collate,
        strategy: Strategy,
        plan: Plan,
    ) -> None:
        self.strategy, self.plan = strategy, plan
        items, collator = Items(queries), partial(collated, collate=collate)
        super().__init__(model, args, collator, items, compute_loss_func=caption_loss)
        self.add_callback(Unfreeze(strategy, plan))
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        at_once = self.args.per_device_train_batch_size * ranks.world()
        multiple, update = at_once if ranks.world() > 1 else 1, at_once * self.args.gradient_accumulation_steps
        return Order(len(self.train_dataset), multiple, self.args.seed, update, self.lengths)

    def get_train_dataloader(self) -> Any:
        """Trainer's, but waiting has an end: a worker that cannot hand over its batch says nothing."""
        loader = super().get_train_dataloader()
        if self.args.dataloader_num_workers:
            check_shared_memory(self.args.dataloader_num_workers)
            loader.timeout = PATIENCE
        return loader

    def _inner_training_loop(self, batch_size: int | None = None, *arguments: Any, **options: Any) -> Any:
        """As asked: Trainer would take the micro-batch of the checkpoint with the accumulation of today."""
        del batch_size
        return super()._inner_training_loop(self.args.train_batch_size, *arguments, **options)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """Trainer's, with the head on supervised places only and the tower left out where features are given."""
        with self.using_features(inputs), supervised_only(self.model, inputs["labels"]):
            return super().compute_loss(model, inputs, *arguments, **options)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Trainer's. A fit of one step, to try things out, has no warm-up: it would be all of it, at a rate of 0."""
        if num_training_steps == 1:
            self.args.warmup_ratio = 0.0
        return super().create_scheduler(num_training_steps, optimizer)

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """One micro-batch; its share of the update's loss is summed up for the log."""
        loss: torch.Tensor = super().training_step(*arguments, **options)
        self.total = self.total + loss
        self.updates += int(self.accelerator.sync_gradients)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the mean loss of the updates since the last log. Raises CapBenchError when it is not finite."""
        if "loss" in logs:
            logs["loss"] = self._nested_gather(self.total).mean().item() / self.updates
            self.total, self.updates = 0.0, 0
            if not math.isfinite(logs["loss"]):
                raise CapBenchError(
                    f"the loss became {logs['loss']} at step {self.state.global_step}; "
                    "lower train.learning_rate or raise train.warmup"
                )
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        del state_dict
        assert output_dir is not None
        self.strategy.save(self.model, self.plan, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.strategy.load(self.model if model is None else model, self.plan, Path(resume_from_checkpoint))


def check_options(options: Training, device: str, model: Any = None, name: str = "") -> None:
    """Raise RequestError for an optimiser that this device does not have, or a model that cannot save memory so."""
    if options.optimiser != "adamw" and not device.startswith("cuda"):
        raise RequestError(
            f"train.optimiser={options.optimiser}: expected a CUDA device, got {device}; use train.optimiser=adamw"
        )
    if options.gradient_checkpointing and model and not getattr(model, "supports_gradient_checkpointing", False):
        raise RequestError(
            f"train.gradient_checkpointing=true on model={name}: its network cannot be computed again in parts; "
            "use train.gradient_checkpointing=false and a smaller train.micro_batch_size"
        )


def check_shared_memory(workers: int) -> None:
    """Workers hand batches over in /dev/shm; where it is full they wait for ever. Raises RequestError."""
    if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < workers * SHARE:
        raise RequestError(
            f"train.workers={workers}: {SHARED} has room for {free // 2**20} MiB, expected "
            f"{workers * SHARE // 2**20} or more; set train.workers=0, or make it larger (docker run --shm-size=8g)"
        )


def arguments(options: Training, micro: int, default_rate: float, seed: int, folder: Path, device: Any) -> Any:
    """Options in Trainer's words: `micro` rows at once on each process, as many times as make up an update."""
    made = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=options.batch_size // (micro * ranks.world()),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        learning_rate=default_rate if options.learning_rate is None else options.learning_rate,
        warmup_ratio=options.warmup,
        weight_decay=options.weight_decay,
        lr_scheduler_type=options.scheduler,
        max_grad_norm=options.max_grad_norm,
        seed=seed,
        save_steps=options.save_every,
        logging_steps=options.log_every,
        logging_first_step=True,
        dataloader_num_workers=options.workers,
        use_cpu=device.type == "cpu",
        bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
        optim=OPTIMISERS.get(options.optimiser, options.optimiser),
        gradient_checkpointing=options.gradient_checkpointing,
        # the other kind gives adapters behind a frozen embedding no gradient
        gradient_checkpointing_kwargs={"use_reentrant": False},
        # modules that a batch does not use, a captioner's `unreached` and stages that are frozen get no gradient
        ddp_find_unused_parameters=True,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
    )
    made._n_gpu = min(made.n_gpu, 1)  # one process would share every batch out to all GPUs it sees
    return made


# ---------------------------------------------------------------- callbacks


class Unfreeze(TrainerCallback):
    """Tells the strategy when a stage begins, by the share of the steps done: a resumed fit is in the right stage."""

    def __init__(self, strategy: Strategy, plan: Plan) -> None:
        self.strategy, self.plan = strategy, plan
        self.stage = -1

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Unfreeze at the first step of a stage."""
        share = state.global_step / max(state.max_steps, 1)
        stage = sum(share >= start for start, _ in self.plan.schedule)
        if self.plan.schedule and stage != self.stage:
            self.strategy.unfreeze(kwargs["model"], self.plan, share)
            self.stage = stage


class Checkpoints(TrainerCallback):
    """Marks a checkpoint as whole once every process has written its part, and drops older ones.

    last: the newest whole one, which the fit goes on from; a mark holds the seconds of all attempts up to it.
    """

    def __init__(self, folder: Path) -> None:
        self.last = ranks.once(lambda: last_whole(folder))
        self.before, self.start = read_json(self.last / COMPLETE)["seconds"] if self.last else 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Seconds of the fit so far."""
        return self.before + time.perf_counter() - self.start

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint begins a new line of the log: what is summed up for it would be lost with the process."""
        control.should_log = control.should_log or control.should_save

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the newest."""
        ranks.gather(None)
        if not ranks.first():
            return
        root = Path(str(args.output_dir))
        write_json(root / f"checkpoint-{state.global_step}" / COMPLETE, {"seconds": self.seconds()})
        for old in by_step(root)[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)


class Bar(TrainerCallback):
    """A progress bar that is taken down however the training ends: only one can be on a terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack = ExitStack()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put it up."""
        self.advance = self.stack.enter_context(bar(f"fit {self.name}", state.max_steps, state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One step further."""
        self.advance(1)


# ---------------------------------------------------------------- checkpoints


def by_step(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; torsos are removed."""
    for path in reversed(by_step(folder)):
        try:
            if (path / COMPLETE).is_file() and read_json(path / COMPLETE)["seconds"] >= 0:
                return path
        except Damaged:
            pass
        shutil.rmtree(path)
    return None
