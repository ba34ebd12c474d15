"""One trained adapter: transformers' Trainer under the captioner's own collator, with checkpoints and resume."""

from __future__ import annotations

import csv
import io
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from harness.contracts import Captioner, Example, Plan, Query, RequestError, Strategy, Training
from harness.progress import bar
from harness.store import Damaged, read_json, write_json, write_text

COMPLETE = "complete.json"  # written last into a checkpoint: without it the checkpoint is a torso
KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class Fitted:
    """What a fit cost: seconds include those of interrupted attempts up to their last checkpoint."""

    seconds: float
    samples: int
    steps: int
    captions_cut: int
    final_loss: float | None


class _Queries(Dataset[Query]):
    def __init__(self, queries: Sequence[Query]) -> None:
        self.queries = queries

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Query:
        return self.queries[index]


def examples(queries: Sequence[Query]) -> list[Example]:
    """Decode the pictures of some queries. Raises ImageError."""
    return [Example(tuple(i.load() for i in q.sample.images), q.prompt, q.sample.caption) for q in queries]


def caption_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Cross-entropy of the next token over the supervised positions (labels other than -100).

    logits [batch, length, vocabulary], labels [batch, length]. The sum is divided by the number of supervised tokens
    of the whole update, so that gradient accumulation gives the update of the large batch.
    """
    logits, targets = outputs.logits[:, :-1], labels[:, 1:]
    supervised = targets != -100
    total = functional.cross_entropy(logits[supervised].float(), targets[supervised], reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else supervised.sum())


def fit(
    captioner: Captioner,
    strategy: Strategy,
    plan: Plan,
    queries: Sequence[Query],
    options: Training,
    seed: int,
    folder: Path,
) -> Fitted:
    """Train the loaded captioner as planned; `folder/adapter` holds the result, `folder/losses.csv` the losses.

    Goes on from the last whole checkpoint in `folder/checkpoints`.
    """
    if not queries:
        raise RequestError("the training split has no usable sample; see the ledger of rejected rows")
    transformers.set_seed(seed)
    model = strategy.attach(captioner, plan)
    checkpoints = folder / "checkpoints"
    last = _last_whole(checkpoints)
    clock = _Clock(read_json(last / COMPLETE)["seconds"] if last else 0.0)
    progress = _Bar(captioner.name)
    arguments = _arguments(options, strategy.learning_rate, seed, checkpoints, next(model.parameters()).device)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=_Queries(queries),
        data_collator=lambda batch: captioner.collate(examples(batch), options.max_caption_tokens),
        compute_loss_func=caption_loss,
        callbacks=[_Unfreeze(strategy, plan), _Complete(clock), progress],
    )
    trainer.write = partial(strategy.save, plan=plan)
    trainer.read = partial(strategy.load, plan=plan)
    trainer.remove_callback(PrinterCallback)
    with _quiet(), progress.stack:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    strategy.save(model, plan, folder / "adapter")
    losses = [row for row in trainer.state.log_history if "loss" in row]
    write_text(folder / "losses.csv", _losses_csv(losses))
    cut = sum(captioner.answer(q.sample.caption, options.max_caption_tokens).cut for q in queries)
    steps = trainer.state.global_step
    return Fitted(clock.seconds(), steps * options.batch_size, steps, cut, losses[-1]["loss"] if losses else None)


class _Trainer(Trainer):
    """Trainer that leaves the format of weights to the strategy: a checkpoint holds what trains, nothing else."""

    write: Any
    read: Any

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        del state_dict
        assert output_dir is not None
        self.write(self.model, folder=Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.read(self.model if model is None else model, folder=Path(resume_from_checkpoint))


class _Clock:
    def __init__(self, before: float) -> None:
        self.before, self.start = before, time.perf_counter()

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start


class _Unfreeze(TrainerCallback):
    """Tells the strategy when a stage begins, by the share of the steps done: a resumed fit is in the right stage."""

    def __init__(self, strategy: Strategy, plan: Plan) -> None:
        self.strategy, self.plan = strategy, plan
        self.stage = -1

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        share = state.global_step / max(state.max_steps, 1)
        stage = sum(share >= start for start, _ in self.plan.schedule)
        if self.plan.schedule and stage != self.stage:
            self.strategy.unfreeze(kwargs["model"], self.plan, share)
            self.stage = stage


class _Complete(TrainerCallback):
    """Marks a checkpoint as whole once everything in it is written, and drops older ones."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        root = Path(str(args.output_dir))
        write_json(root / f"checkpoint-{state.global_step}" / COMPLETE, {"seconds": self.clock.seconds()})
        for old in _by_step(root)[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)


class _Bar(TrainerCallback):
    """A progress bar that is taken down however the training ends: only one can be on a terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack = ExitStack()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.advance = self.stack.enter_context(bar(f"fit {self.name}", state.max_steps, state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.advance(1)


class _quiet:  # noqa: N801 (a context manager used like a function)
    """Trainer logs through transformers' logger and warns about settings we choose on purpose."""

    def __enter__(self) -> None:
        self.level = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        transformers.logging.set_verbosity(self.level)


def _arguments(
    options: Training, default_rate: float, seed: int, folder: Path, device: torch.device
) -> TrainingArguments:
    micro = options.micro_batch_size or options.batch_size
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=options.batch_size // micro,
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
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
    )


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def _last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; torsos are removed."""
    for path in reversed(_by_step(folder)):
        try:
            if (path / COMPLETE).is_file() and read_json(path / COMPLETE)["seconds"] >= 0:
                return path
        except Damaged:
            pass
        shutil.rmtree(path)
    return None


def _losses_csv(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", "epoch", "loss", "learning_rate", "grad_norm"])
    for row in rows:
        keys = ("epoch", "loss", "learning_rate", "grad_norm")
        writer.writerow([row["step"], *(f"{float(row.get(key, float('nan'))):.6g}" for key in keys)])
    return buffer.getvalue()
