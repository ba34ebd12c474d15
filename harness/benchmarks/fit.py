"""Samples per second of a fit: TRL's SFTTrainer against `capbench run`'s, on the same rows, labels and adapters.

    pip install --target FOLDER --no-deps trl==0.24.0 datasets==4.1.1 dill multiprocess xxhash
    PYTHONPATH=FOLDER python -m harness.benchmarks.fit --out results/benchmarks/fit.csv

A published size (SmolVLM-500M's) with random weights, float32, on the CPU; LoRA on the language layers, the tower is
frozen. TRL gets batches from a collator that masks its labels as ours does (its own one trains on the prompt), with
transformers' own image processor, as it has no other. `largest_difference` is that of the losses of all steps from
TRL's. `gflops_per_s` counts what a side has to compute: the tower once where its features are kept.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import transformers

from harness import config
from harness.benchmarks._real import Comparison, features, operations, queries, stock
from harness.contracts import Example, Query, Training
from harness.training.fit import Fit as OneFit
from harness.training.fit import examples

LORA = ("lora=targeted", "lora.sites=[qkv,mlp]", "lora.dropout=0.0")
SIDES = ("trl", "pictures", "features made", "features kept")


def trl(cell: config.Cell, asked: Sequence[Query], folder: Path, device: str) -> tuple[float, list[float]]:
    """(seconds, losses) of SFTTrainer."""
    if find_spec("trl") is None:
        raise SystemExit("trl is not installed: see the top of this file, then PYTHONPATH=FOLDER")
    package: Any = import_module("trl")
    captioner, strategy, training = (config.build(cell, group) for group in ("model", "lora", "train"))
    captioner.load(device)
    stock(captioner)
    transformers.set_seed(0)
    model = strategy.attach(captioner, strategy.plan(captioner))

    def collate(rows: Sequence[dict[str, Any]]) -> Any:
        told = [asked[row["place"]] for row in rows]
        return captioner.collate(examples(told), training.max_caption_tokens)

    trainer = package.SFTTrainer(
        model=model,
        args=_config(package, training, strategy.learning_rate, folder, device),
        train_dataset=[{"place": place, "text": query.sample.caption} for place, query in enumerate(asked)],
        data_collator=collate,
        processing_class=captioner.tokenizer,
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    return seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def _config(package: Any, training: Training, rate: float, folder: Path, device: str) -> Any:
    """The options of our fit in TRL's words, and none of its own that would make it slower."""
    return package.SFTConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=training.micro_batch_size or training.batch_size,
        gradient_accumulation_steps=training.batch_size // (training.micro_batch_size or training.batch_size),
        num_train_epochs=training.epochs,
        learning_rate=rate,
        lr_scheduler_type=training.scheduler,
        warmup_ratio=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=0,
        logging_steps=1,
        save_strategy="no",
        max_length=None,
        use_cpu=device == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to=[],
        disable_tqdm=True,
    )


def ours(cell: config.Cell, asked: Sequence[Query], folder: Path, device: str, side: str) -> tuple[float, list[float]]:
    """(seconds, losses) of our fit; what is made of the pictures before the first step is part of the seconds."""
    captioner, strategy, training = (config.build(cell, group) for group in ("model", "lora", "train"))
    captioner.load(device)
    place = folder / side.replace(" ", "-")
    kept = features(captioner, folder) if side != "pictures" else None
    done = OneFit(captioner, strategy, strategy.plan(captioner), asked, training, 0, place, features=kept).run()
    return done.seconds, pd.read_csv(place / "losses.csv")["loss"].to_list()


def work(cell: config.Cell, query: Query, device: str) -> tuple[float, float]:
    """Operations of a sample in an update, forward and backward: (from pictures, from features)."""
    captioner, strategy, training = (config.build(cell, group) for group in ("model", "lora", "train"))
    captioner.load(device)
    model = strategy.attach(captioner, strategy.plan(captioner))
    (told,) = examples([query])
    seen = replace(told, images=(), seen=captioner.encode_images(captioner.preprocess(told)))

    def update(example: Example) -> None:
        batch = captioner.collate([example], training.max_caption_tokens)
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        with captioner.using_features(inputs):
            model(**inputs).loss.backward()

    return operations(partial(update, told)), operations(partial(update, seen))


@dataclass(frozen=True, kw_only=True)
class Fit(Comparison):
    """A row for each side; each reads the model anew."""

    batch: Annotated[int, "samples of an update"] = 4
    epochs: Annotated[int, "of the fit"] = 3
    sides: Annotated[Sequence[str], "in this order", SIDES] = SIDES

    def measure(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Samples per second and losses."""
        batch = [f"train.batch_size={self.batch}", f"train.micro_batch_size={self.batch}", "train.log_every=1"]
        cell = self.cell(self.checkpoint(folder), *LORA, *batch, f"train.epochs={self.epochs}")
        asked = queries(cell, "train")
        first: tuple[float, list[float]] | None = None
        full, kept = work(cell, asked[0], self.device)
        per_sample = {"features made": kept + (full - kept) / self.epochs, "features kept": kept}
        for side in self.sides:
            gc.collect()
            given = (cell, asked, folder, self.device)
            seconds, losses = trl(*given) if side == "trl" else ours(*given, side)
            first, rate = first or (seconds, losses), len(asked) * self.epochs / seconds
            yield {
                "side": side, "samples_per_s": rate, "seconds": seconds,
                "first_loss": losses[0], "last_loss": losses[-1], "steps": len(losses),
                "largest_difference": max(abs(a - b) for a, b in zip(losses, first[1], strict=True)),
                "epochs": self.epochs, "batch_size": self.batch,
                "gflops_per_s": per_sample.get(side, full) * rate / 1e9, "speedup": first[0] / seconds,
            }  # fmt: skip


main = Fit.main

if __name__ == "__main__":
    main()
