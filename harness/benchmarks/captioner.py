"""Speed and memory of one captioner, stage by stage, in a process of its own (its peak memory is the process's).

    python -m harness.benchmarks.captioner ORDER.json RESULT.json

`capbench bench` starts it. Pictures, shapes, weights and seeds are fixed: the twin's, or random ones of the published
sizes, whose captions hardly ever stop, so that captions per second are those of the longest ones. Features of the
tower are kept where LoRA leaves it as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import config
from harness.batches.features import Features
from harness.benchmarks._real import QUESTION, features
from harness.contracts import CapBenchError, Captioner, Plan, Query, Strategy, TowerCached
from harness.inference.generate import generate
from harness.machine import provenance
from harness.machine.devices import pick_device
from harness.store import Journal
from harness.training.fit import Fit, Fitted, examples
from model_zoo.embedded._random import prepare


@dataclass
class Bench:
    """A captioner with its data, and the figures so far."""

    captioner: Captioner
    strategy: Strategy
    plan: Plan
    cell: config.Cell
    device: str
    folder: Path
    train: list[Query] = field(default_factory=list)
    test: list[Query] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)

    def features(self) -> Features | None:
        """What the tower sees, kept; None where it cannot be."""
        if not isinstance(self.captioner, TowerCached) or "vision" in self.plan.counts:
            return None
        return features(self.captioner, self.folder)

    def fit(self, name: str, features: Features | None) -> Fitted:
        """A fit from the checkpoint's weights."""
        self.captioner.load(self.device)
        options = config.build(self.cell, "train")
        plan = self.strategy.plan(self.captioner)
        folder = self.folder / name
        return Fit(self.captioner, self.strategy, plan, self.train, options, 0, folder, features=features).run()

    def captions(self, name: str, features: Features | None) -> float:
        """Captions per second."""
        journal, decoding = Journal(self.folder / f"{name}.jsonl"), config.build(self.cell, "generate")
        generate(self.captioner, self.test, decoding, journal, None, features)
        rows = journal.latest()
        return len(rows) / sum(float(row.seconds) for row in rows)


def measure(order: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One row. order: model, size ("twin" or "real"), LoRA's sites, overrides of `capbench run`, device, threads."""
    bench = _made(order, folder)
    meter = provenance.Meter(bench.device)
    bench.captioner.load(bench.device)
    bench.row["load_s"] = meter.seconds()
    bench.captioner.generate(examples(bench.test[:1]), config.build(bench.cell, "generate"))  # set up at first use
    _stages(bench)
    for name, stage in (("fit_peak_mb", _fits), ("captions_peak_mb", _captions)):
        meter = provenance.Meter(bench.device)
        stage(bench)
        bench.row[name] = meter.peak_bytes() / 1e6
    bench.row["peak_mb"] = max(bench.row["fit_peak_mb"], bench.row["captions_peak_mb"])
    return {"model": order["model"], "size": order["size"], **bench.row}


def _made(order: Mapping[str, Any], folder: Path) -> Bench:
    device = pick_device(order["device"], order["threads"])
    overrides = [f"model={order['model']}", *order["overrides"]]
    if order["size"] == "real":
        checkpoint = folder / "checkpoint"
        prepare(order["model"], checkpoint, device)
        overrides += ["weights=hub", f"model.hub={checkpoint}", "train.workers=0"]
    adapted = ["lora=targeted", f"lora.sites=[{','.join(order['sites'])}]"]
    lora = adapted if config.build(config.cells("run", overrides)[0], "model").sites else ["lora=full"]
    (cell,) = config.cells("run", [*overrides, *lora])
    captioner, strategy, dataset = (config.build(cell, group) for group in ("model", "lora", "dataset"))
    plan = strategy.plan(captioner)
    bench = Bench(captioner, strategy, plan, cell, device, folder)
    bench.train, bench.test = ([Query(s, QUESTION) for s in dataset.load(split).samples] for split in ("train", "test"))
    bench.row |= {"params_total": plan.params_total, "params_trained": plan.params_trained}
    return bench


def _stages(bench: Bench) -> None:
    """Seconds a picture: decoding, the processor, the tower."""
    captioner, meter = bench.captioner, provenance.Meter(bench.device)
    told = examples(bench.train)
    bench.row["decode_s"] = meter.seconds() / len(told)
    if not isinstance(captioner, TowerCached):
        return
    meter = provenance.Meter(bench.device)
    processed = [captioner.preprocess(example) for example in told]
    bench.row["process_s"] = meter.seconds() / len(told)
    meter = provenance.Meter(bench.device)
    for one in processed:
        captioner.encode_images(one)
    bench.row["tower_s"] = meter.seconds() / len(told)
    bench.row["prompt_tokens"] = sum(len(one.ids) for one in processed) / len(processed)


def _fits(bench: Bench) -> None:
    """Samples per second with pictures, with features that are made first, and with those that are there."""
    plain = bench.fit("plain", None)
    bench.row["fit_samples_per_s"] = plain.samples / plain.seconds
    if bench.features() is None:
        return
    for name in ("fit_first_samples_per_s", "fit_cached_samples_per_s"):
        done = bench.fit(name, bench.features())
        bench.row[name] = done.samples / done.seconds
    bench.row["fit_cached_speedup"] = bench.row["fit_cached_samples_per_s"] / bench.row["fit_samples_per_s"]


def _captions(bench: Bench) -> None:
    bench.row["captions_per_s"] = bench.captions("plain", None)
    if bench.features() is not None:
        bench.captions("filling", bench.features())
        bench.row["captions_cached_per_s"] = bench.captions("cached", bench.features())


def main(argv: Sequence[str]) -> None:
    """Measure what the order asks for. Raises SystemExit with the reason where that cannot be."""
    order = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    with TemporaryDirectory(prefix="capbench-") as folder:
        try:
            row = measure(order, Path(folder))
        except CapBenchError as error:
            raise SystemExit(str(error)) from None
    Path(argv[1]).write_text(json.dumps(row), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
