"""One trained adapter: transformers' Trainer under the captioner's own collator, with checkpoints and resume."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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


@dataclass
class Fit:
    """A fit of the loaded captioner as planned; `folder/adapter` will hold the result, `folder/losses.csv` the losses.

    With `features` the vision tower sees each picture once, before the first step.
    """

    captioner: Captioner
    strategy: Strategy
    plan: Plan
    queries: Sequence[Query]
    options: Training
    seed: int
    folder: Path
    limit: Limit = field(default_factory=Limit)
    features: Features | None = None

    def run(self) -> Fitted:
        """Train to the end.

        Goes on from the last whole checkpoint in `folder/checkpoints`, with any number of processes. The batch of an
        update, its order and its loss are the same whatever the processes and the micro-batch; only what is random in
        the model (dropout) is drawn anew when these change. Where memory runs out the micro-batch is halved and the
        captioner loaded anew.
        Raises DoesNotFit, and RequestError when the processes cannot share out a batch evenly.
        """
        if not self.queries:
            raise RequestError("the training split has no usable sample; see the ledger of rejected rows")
        captioner = self.captioner
        device = str(next(captioner.model.parameters()).device)
        check_options(self.options, device, captioner.model, captioner.name)
        shortages = 0
        while True:
            micro = self._micro()
            fitted = memory.unless_short(partial(self._train, micro))
            if fitted is not None:
                return replace(fitted, shortages=shortages)
            shortages += 1
            self._lower(micro)
            del captioner.model  # before the next one is read: there may be no room for two
            memory.release()
            captioner.load(device)

    def _micro(self) -> int:
        """Rows at once: as many as are wanted and fit, an equal share of what this process does of an update."""
        share = rows_per_process(self.options)
        most = ranks.once(lambda: self.limit.of(self.options.micro_batch_size or share))
        return max(rows for rows in range(1, share + 1) if rows <= most and share % rows == 0)

    def _lower(self, micro: int) -> None:
        """Learn from a shortage. Raises DoesNotFit where nothing can be halved, or others wait for this process."""
        what = f"fit of {self.captioner.name}"
        smaller = self.limit.lower(micro, what)
        self.limit.keep()
        if ranks.world() > 1:
            raise DoesNotFit(
                f"{what}: out of memory with train.micro_batch_size={micro} on each of {ranks.world()} processes; "
                f"repeat the command, it goes on from the last checkpoint with {smaller}"
            )

    def _train(self, micro: int) -> Fitted:
        transformers.set_seed(self.seed)
        model = self.strategy.attach(self.captioner, self.plan)
        checkpoints = Checkpoints(self.folder / "checkpoints")
        if self.features is not None:
            self.features.prepare(self.queries, self.captioner.name, _example)
        progress = Bar(self.captioner.name)
        trainer = self._trainer(model, micro)
        trainer.add_callback(checkpoints)
        trainer.add_callback(progress)
        with _quiet(), progress.stack:
            trainer.train(resume_from_checkpoint=str(checkpoints.last) if checkpoints.last else None)
        losses = [row for row in trainer.state.log_history if "loss" in row]
        if ranks.first():
            self.strategy.save(model, self.plan, self.folder / "adapter")
            write_text(self.folder / "losses.csv", _losses_csv(losses))
        limit = self.options.max_caption_tokens
        return Fitted(
            seconds=checkpoints.seconds(),
            samples=trainer.state.global_step * self.options.batch_size,
            steps=trainer.state.global_step,
            captions_cut=sum(self.captioner.answer(q.sample.caption, limit).cut for q in self.queries),
            final_loss=losses[-1]["loss"] if losses else None,
            micro_batch_size=micro,
            processes=ranks.world(),
        )

    def _trainer(self, model: torch.nn.Module, micro: int) -> CaptionTrainer:
        def collate(queries: Sequence[Query]) -> dict[str, torch.Tensor]:
            known = self.features.examples(queries) if self.features is not None else None
            return self.captioner.collate(known or examples(queries), self.options.max_caption_tokens)

        rate, device = self.strategy.learning_rate, next(model.parameters()).device
        args = arguments(self.options, micro, rate, self.seed, self.folder / "checkpoints", device)
        trainer = CaptionTrainer(model, args, self.queries, collate, self.strategy, self.plan)
        if isinstance(self.captioner, TowerCached):
            trainer.using_features = self.captioner.using_features
        if trainer.args.gradient_accumulation_steps > 1:
            trainer.lengths = ranks.once(lambda: lengths(self.captioner, self.queries, answers=True))
        torch.manual_seed(self.seed + ranks.rank())  # else all processes drop the same places
        return trainer


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


def rows_per_process(options: Training) -> int:
    """What each process does of an update. Raises RequestError when they cannot share it out evenly."""
    share, rest = divmod(options.batch_size, ranks.world())
    if rest:
        raise RequestError(
            f"train.batch_size={options.batch_size}: expected a multiple of the {ranks.world()} processes; "
            "change one of them (another batch size is another fit)"
        )
    return share


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
