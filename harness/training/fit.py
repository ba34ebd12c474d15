"""One trained adapter: transformers' Trainer under the captioner's own collator, with checkpoints and resume."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from harness.batches.features import Features
from harness.batches.lengths import lengths
from harness.batches.limit import DoesNotFit, Limit
from harness.contracts import (
    Captioner,
    Example,
    ImageError,
    Plan,
    Query,
    RequestError,
    Strategy,
    TowerCached,
    Training,
)
from harness.machine import memory, ranks
from harness.store import csv_text, write_text
from harness.training.trainer import Bar, CaptionTrainer, Checkpoints, arguments, check_options


@dataclass(frozen=True)
class Fitted:
    """What a fit cost: seconds include those of interrupted attempts up to their last checkpoint.

    micro_batch_size: rows at once on each of `processes`; shortages: how often it had to be made smaller.
    """

    seconds: float
    samples: int
    steps: int
    captions_cut: int
    final_loss: float | None
    micro_batch_size: int
    processes: int
    shortages: int = 0


@dataclass(frozen=True)
class _Job:
    captioner: Captioner
    strategy: Strategy
    plan: Plan
    queries: Sequence[Query]
    options: Training
    seed: int
    folder: Path
    features: Features | None


def examples(queries: Sequence[Query]) -> list[Example]:
    """Decode the pictures of some queries. Raises ImageError, naming the sample."""
    return [_example(query) for query in queries]


def _example(query: Query) -> Example:
    try:
        pictures = tuple(image.load() for image in query.sample.images)
    except ImageError as error:
        raise ImageError(
            f"training sample {query.sample.id}: {error}; `capbench data check` finds all of them, and with "
            "dataset.check=decoded they go to the ledger"
        ) from error
    return Example(pictures, query.prompt, query.sample.caption)


def fit(
    captioner: Captioner,
    strategy: Strategy,
    plan: Plan,
    queries: Sequence[Query],
    options: Training,
    seed: int,
    folder: Path,
    limit: Limit | None = None,
    features: Features | None = None,
) -> Fitted:
    """Train the loaded captioner as planned; `folder/adapter` holds the result, `folder/losses.csv` the losses.

    Goes on from the last whole checkpoint in `folder/checkpoints`, with any number of processes. The batch of an
    update, its order and its loss are the same whatever the processes and the micro-batch; only what is random in
    the model (dropout) is drawn anew when these change. Where memory runs out the micro-batch is halved and the
    captioner loaded anew. With `features` the vision tower sees each picture once, before the first step.
    Raises DoesNotFit, and RequestError when the processes cannot share out a batch evenly.
    """
    if not queries:
        raise RequestError("the training split has no usable sample; see the ledger of rejected rows")
    job = _Job(captioner, strategy, plan, queries, options, seed, folder, features)
    limit = limit or Limit()
    device = str(next(captioner.model.parameters()).device)
    check_options(options, device, captioner.model, captioner.name)
    shortages = 0
    while True:
        micro = _micro(options, limit)
        fitted = memory.unless_short(partial(_train, job, micro))
        if fitted is not None:
            return replace(fitted, shortages=shortages)
        shortages += 1
        _lower(limit, micro, captioner.name)
        del captioner.model  # before the next one is read: there may be no room for two
        memory.release()
        captioner.load(device)


def rows_per_process(options: Training) -> int:
    """What each process does of an update. Raises RequestError when they cannot share it out evenly."""
    share, rest = divmod(options.batch_size, ranks.world())
    if rest:
        raise RequestError(
            f"train.batch_size={options.batch_size}: expected a multiple of the {ranks.world()} processes; "
            "change one of them (another batch size is another fit)"
        )
    return share


def _micro(options: Training, limit: Limit) -> int:
    """Rows at once: as many as are wanted and fit, an equal share of what this process does of an update."""
    share = rows_per_process(options)
    most = ranks.once(lambda: limit.of(options.micro_batch_size or share))
    return max(rows for rows in range(1, share + 1) if rows <= most and share % rows == 0)


def _lower(limit: Limit, micro: int, name: str) -> None:
    """Learn from a shortage. Raises DoesNotFit where nothing can be halved, or where others wait for this process."""
    smaller = limit.lower(micro, f"fit of {name}")
    limit.keep()
    if ranks.world() > 1:
        raise DoesNotFit(
            f"fit of {name}: out of memory with train.micro_batch_size={micro} on each of {ranks.world()} processes; "
            f"repeat the command, it goes on from the last checkpoint with {smaller}"
        )


def _train(job: _Job, micro: int) -> Fitted:
    transformers.set_seed(job.seed)
    model = job.strategy.attach(job.captioner, job.plan)
    checkpoints = Checkpoints(job.folder / "checkpoints")
    if job.features is not None:
        job.features.prepare(job.queries, job.captioner.name, _example)
    progress = Bar(job.captioner.name)
    trainer = _trainer(job, model, micro)
    trainer.add_callback(checkpoints)
    trainer.add_callback(progress)
    with _quiet(), progress.stack:
        trainer.train(resume_from_checkpoint=str(checkpoints.last) if checkpoints.last else None)
    losses = [row for row in trainer.state.log_history if "loss" in row]
    if ranks.first():
        job.strategy.save(model, job.plan, job.folder / "adapter")
        write_text(job.folder / "losses.csv", _losses_csv(losses))
    limit = job.options.max_caption_tokens
    return Fitted(
        seconds=checkpoints.seconds(),
        samples=trainer.state.global_step * job.options.batch_size,
        steps=trainer.state.global_step,
        captions_cut=sum(job.captioner.answer(q.sample.caption, limit).cut for q in job.queries),
        final_loss=losses[-1]["loss"] if losses else None,
        micro_batch_size=micro,
        processes=ranks.world(),
    )


def _trainer(job: _Job, model: torch.nn.Module, micro: int) -> CaptionTrainer:
    def collate(queries: Sequence[Query]) -> dict[str, torch.Tensor]:
        known = job.features.examples(queries) if job.features is not None else None
        return job.captioner.collate(known or examples(queries), job.options.max_caption_tokens)

    rate, device = job.strategy.learning_rate, next(model.parameters()).device
    args = arguments(job.options, micro, rate, job.seed, job.folder / "checkpoints", device)
    trainer = CaptionTrainer(model, args, job.queries, collate, job.strategy, job.plan)
    if isinstance(job.captioner, TowerCached):
        trainer.using_features = job.captioner.using_features
    if trainer.args.gradient_accumulation_steps > 1:
        trainer.lengths = ranks.once(lambda: lengths(job.captioner, job.queries, answers=True))
    torch.manual_seed(job.seed + ranks.rank())  # else all processes drop the same places
    return trainer


class _quiet:  # noqa: N801 (a context manager used like a function)
    """Trainer logs through transformers' logger and warns about settings we choose on purpose."""

    def __enter__(self) -> None:
        self.level = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        transformers.logging.set_verbosity(self.level)


def _losses_csv(rows: Sequence[dict[str, Any]]) -> str:
    keys = ("epoch", "loss", "learning_rate", "grad_norm")
    cells = ([row["step"], *(f"{float(row.get(key, float('nan'))):.9g}" for key in keys)] for row in rows)
    return csv_text(("step", *keys), cells)
