"""Makes the twins: python -m model_zoo.embedded.build [NAME ...] [--out DIR] (about 10 minutes each on one core).

A twin is a real checkpoint folder of a tiny size, pre-trained on phantom pictures with captions in plain words. So it
sees, but does not speak radiology: that is left to the fine-tuning. Reproducible: fixed seeds, one thread.
Each `twin_<family>.py` beside this file has `CHECKPOINTS`: the twins of a family by name.
"""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch

from harness.contracts import Decoding, Example
from harness.datasets.phantom.facts import facts
from harness.metrics.embedded.build import command
from model_zoo.base.captioner import HFCaptioner
from model_zoo.base.checkpoint import TWINS
from model_zoo.embedded._pretrain import pretrain
from model_zoo.embedded._twin import Twin, open_twin
from model_zoo.embedded._words import QUESTION, phantoms


def twins() -> dict[str, Twin]:
    """Every twin that can be made, by name."""
    modules = [import_module(f"{__package__}.{file.stem}") for file in Path(__file__).parent.glob("twin_*.py")]
    return {name: twin for module in modules for name, twin in module.CHECKPOINTS.items()}


def build(name: str, folder: Path, steps: int | None) -> str:
    """Write, pre-train and save one twin into an empty folder; returns what it is and can do."""
    twin = twins()[name]
    recipe = twin.recipe if steps is None else replace(twin.recipe, steps=steps)
    torch.manual_seed(recipe.seed)
    twin.write(folder)
    captioner = open_twin(name, folder)
    captioner.load("cpu")
    count = sum(parameter.numel() for parameter in captioner.model.parameters())
    if twin.begin is not None:
        twin.begin(captioner)
    loss = pretrain(captioner, phantoms("lay", recipe.pictures).load("train").samples, twin.teach, recipe)
    captioner.model.to(torch.bfloat16)  # half the size in the wheel; a twin is loaded as float32
    twin.save(captioner.model, folder)
    return f"{count:,} parameters, last loss {loss:.3f}; {measure(open_twin(name, folder))}"


def measure(captioner: HFCaptioner) -> str:
    """Share of what 150 unseen pictures show that is in the twin's captions."""
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


if __name__ == "__main__":
    command(__doc__, sorted(twins()), TWINS, build)
