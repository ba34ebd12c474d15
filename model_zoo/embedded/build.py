"""Makes the twins: python -m model_zoo.embedded.build [NAME ...] [--out DIR] (about 10 minutes each on one core).

A twin is a real checkpoint folder of a tiny size, pre-trained on phantom pictures with captions in plain words. So it
sees, but does not speak radiology: that is left to the fine-tuning. Reproducible: fixed seeds, one thread.
Each `twin_<name>.py` beside this file makes one.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from harness.contracts import Decoding, Example
from harness.datasets.phantom.facts import facts
from model_zoo._checkpoint import TWINS
from model_zoo._hf import HFCaptioner
from model_zoo.embedded._pretrain import pretrain
from model_zoo.embedded._twin import Twin
from model_zoo.embedded._words import QUESTION, phantoms

NAMES = sorted(file.stem.removeprefix("twin_") for file in Path(__file__).parent.glob("twin_*.py"))


def build(name: str, out: Path, steps: int | None, console: Console) -> None:
    """Write, pre-train, save and measure one twin."""
    twin: Twin = import_module(f"model_zoo.embedded.twin_{name}").TWIN
    recipe = twin.recipe if steps is None else replace(twin.recipe, steps=steps)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(recipe.seed)
    twin.write(folder)
    captioner = twin.open(folder)
    captioner.load("cpu")
    count = sum(parameter.numel() for parameter in captioner.model.parameters())
    if twin.begin is not None:
        twin.begin(captioner)
    start = time.perf_counter()
    loss = pretrain(captioner, phantoms("lay", recipe.pictures).load("train").samples, twin.teach, recipe)
    seconds = time.perf_counter() - start
    captioner.model.to(torch.bfloat16)  # half the size in the wheel; a twin is loaded as float32
    twin.save(captioner, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    console.print(f"{name}: {count:,} parameters, {size / 1e6:.1f} MB, {seconds:.0f} s, last loss {loss:.3f}")
    console.print(f"{name}: {measure(twin.open(folder))}")


def measure(captioner: HFCaptioner) -> str:
    """How much of what 150 unseen pictures show is in the twin's captions."""
    captioner.load("cpu")
    samples = phantoms("lay", 1).load("test").samples
    said = []
    start = time.perf_counter()
    for place in range(0, len(samples), 32):
        examples = [Example((sample.images[0].load(),), QUESTION) for sample in samples[place : place + 32]]
        said += captioner.generate(examples, Decoding(40, 1.0, 32))
    seconds = time.perf_counter() - start
    read = [(facts(generated.caption), sample.factors) for generated, sample in zip(said, samples, strict=True)]
    shares = []
    for key in ("modality", "region", "finding", "side"):
        hits = [found[key] == truth[key] for found, truth in read if truth[key]]
        shares.append(f"{key} {sum(hits) / len(hits):.3f}")
    distinct = len({generated.caption for generated in said})
    return f"{', '.join(shares)}; {distinct} distinct of {len(said)}, {seconds:.1f} s, e.g. {said[0].caption!r}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; all without")
    parser.add_argument("--out", type=Path, default=TWINS, help="folder of the twins' folders")
    parser.add_argument("--steps", type=int, help="another budget, for a trial")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"expected some of {', '.join(NAMES)}, got {unknown[0]}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in arguments.names or NAMES:
        build(name, arguments.out, arguments.steps, Console())


if __name__ == "__main__":
    main()
