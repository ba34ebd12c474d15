"""Speed and memory at the published sizes: python -m model_zoo.embedded.benchmark [MODEL ...] [--out FILE].

Random weights in checkpoint folders that are read like real ones; then one targeted fit and captions of phantom
pictures, by the stages that `capbench run` uses. LLaVA-1.5 needs 14 GB of disk and a large CUDA device. A caption has
nothing to say and hardly ever stops, so captions per second are those of the longest captions.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from harness import config
from harness.contracts import Query, RequestError
from harness.inference.generate import generate
from harness.machine import provenance
from harness.machine.devices import pick_device
from harness.machine.terminal import console
from harness.store import Journal
from harness.tables.csv_files import write_csv
from harness.training.fit import Fit, examples
from model_zoo.base.captioner import HFCaptioner
from model_zoo.embedded._random import PIXELS, write_config, write_weights

OUT = Path("results/benchmarks/gpu.csv")
DTYPES = ("bfloat16", "nf4")
STEPS, BATCH, CAPTIONS, SIDE = 20, 4, 64, 512
GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def measure(
    name: str, dtype: str, folder: Path, device: str, overrides: Sequence[str] = (), steps: int = STEPS
) -> dict[str, Any]:
    """One row: a fit of some steps and captions of the test split, over the checkpoint in `folder`.

    overrides: further KEY=VALUE of `capbench run`.
    """
    gc.collect()  # an earlier model may lie in reference cycles
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    (cell,) = config.cells("run", [*_overrides(name, dtype, folder, steps), *overrides])
    captioner, strategy, dataset = (config.build(cell, group) for group in ("model", "lora", "dataset"))
    train, test = ([_query(s) for s in dataset.load(split).samples] for split in ("train", "test"))
    plan = strategy.plan(captioner)
    loading = provenance.Meter(device)
    captioner.load(device)
    load_seconds = loading.seconds()
    decoding = config.build(cell, "generate")
    captioner.generate(examples(test[:2]), decoding)  # whatever is set up at first use is not measured
    with tempfile.TemporaryDirectory() as results:
        fitting = provenance.Meter(device)
        done = Fit(captioner, strategy, plan, train, config.build(cell, "train"), 0, Path(results)).run()
        fit_peak = fitting.peak_bytes()
        journal = Journal(Path(results) / "captions.jsonl")
        generating = provenance.Meter(device)
        generate(captioner, test, decoding, journal)
        rows = journal.latest()
    return {
        "model": name,
        "dtype": dtype,
        "params_total": plan.params_total,
        "params_trained": plan.params_trained,
        "prompt_tokens": len(captioner.row(examples(test[:1])[0]).ids),
        "caption_tokens": sum(row.tokens for row in rows) / len(rows),
        "load_seconds": load_seconds,
        "fit_steps": done.steps,
        "fit_samples_per_s": done.samples / done.seconds,
        "fit_peak_gib": fit_peak / GIB,
        "captions": len(rows),
        "captions_per_s": len(rows) / sum(row.seconds for row in rows),
        "generate_peak_gib": generating.peak_bytes() / GIB,
        "device": provenance.device_name(device),
        "versions": _versions(),
    }


def _overrides(name: str, dtype: str, folder: Path, steps: int) -> list[str]:
    return [
        *(f"model={name}", "weights=hub", f"model.hub={folder}", f"model.dtype={dtype}", "lora=targeted"),
        *(f"dataset.train={STEPS * BATCH}", f"dataset.test={CAPTIONS}", f"dataset.size={SIDE}"),
        *(f"train.max_steps={steps}", f"train.batch_size={BATCH}", f"train.micro_batch_size={BATCH}"),
    ]


def _query(sample: Any) -> Query:
    return Query(sample, "Describe this medical image.")


def _versions() -> str:
    found = provenance.environment()["packages"]
    return " ".join([f"capbench={provenance.code_version()}", *(f"{name}={found[name]}" for name in PACKAGES)])


def prepare(name: str, folder: Path, device: str, layers: int | None = None) -> None:
    """Write a checkpoint folder of a published size."""
    write_config(name, folder, layers)
    (cell,) = config.cells("run", [f"model={name}", "weights=hub", f"model.hub={folder}"])
    captioner: HFCaptioner = config.build(cell, "model")
    write_weights(captioner, folder, device)


def main() -> None:
    """Measure what was asked for; the table is written after each row, so that a row that fails costs no other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(PIXELS), metavar="MODEL", help=f"of {', '.join(PIXELS)}")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), help="default: bfloat16 nf4")
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT}")
    parser.add_argument("--device", default="cuda", help="default: cuda; on cpu only the smallest fits into memory")
    chosen = parser.parse_args()
    try:
        device = pick_device(chosen.device, None)
    except RequestError as error:
        parser.error(str(error))
    rows = []
    for name in chosen.models:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / name
            prepare(name, folder, device)
            for dtype in chosen.dtypes:
                rows.append(measure(name, dtype, folder, device))
                write_csv(pd.DataFrame(rows), chosen.out)
                console.print(f"{name} {dtype}: {rows[-1]}", markup=False)
    console.print(f"benchmark: {chosen.out}", markup=False)


if __name__ == "__main__":
    main()
