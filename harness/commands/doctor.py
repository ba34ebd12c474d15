"""capbench doctor: the environment, and whether captioners say the same in a batch, padded, merged, reloaded.

usage: capbench doctor [--config-dir DIR] [model=NAME,...] [lora=NAME,...] [KEY=VALUE ...]

Versions and devices, then for each captioner: one by one against all at once, padded against unpadded, adapter against
merged, saved against reloaded: the largest difference of logits and the first differing token.

  model=NAME,...     default: all
  lora=NAME,...      default: targeted, full for the baselines
  weights=hub        the real checkpoints instead of the embedded ones; all else as in `capbench run`

Exit codes: 0 all is well; 1 something differs by more than rounding; 2 the request was wrong.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
from annotated_types import Ge

from harness import config
from harness.cells.parts import Settings as RunSettings
from harness.commands._options import found_in, parse
from harness.contracts import CapBenchError, Captioner, Decoding, Example, Refused, Strategy
from harness.inference import vllm
from harness.inference.parity import HEALTHY, PROMPTS, Finding, ParityCase, check_adapter, check_batches
from harness.machine import memory, provenance
from harness.machine.bfloat16 import SLOW, slowdown
from harness.machine.devices import pick_device
from harness.machine.terminal import bar, console, table
from harness.tables.csv_files import write_csv

COLUMNS = ("model", "weights", "strategy", "check", "verdict", "difference", "first")
OPTIONAL = ("torchvision", "flash_attn", "nibabel", "vllm", "submitit")


@dataclass(frozen=True)
class Settings:
    """The values of conf/doctor.yaml."""

    samples: Annotated[int, Ge(2)]
    out: str | None


def main(argv: Sequence[str]) -> int:
    """Print environment and findings; 1 when some captioner is not healthy."""
    arguments = parse("doctor", argv, multirun=True)
    own, rest = found_in(arguments.overrides, Settings)
    settings: Settings = config.options("doctor", own, Settings)
    if not any(text.startswith("model=") for text in rest):
        rest = ["model=glob(*)", *rest]
    cells = config.cells("run", rest, multirun=True, config_dir=arguments.config_dir)
    named = any(text.startswith("lora=") for text in rest)
    _print_environment(Path(cells[0].config["results"]))
    rows: list[dict[str, Any]] = []
    with bar("parity", len(cells)) as advance:
        for cell in cells:
            rows += _examined(cell, settings.samples, fallback=not named)
            advance(1)
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    _print_findings(found)
    if settings.out:
        write_csv(found, Path(settings.out))
    return int(not found["verdict"].isin(HEALTHY).all())


def _examined(cell: config.Cell, samples: int, *, fallback: bool) -> Iterator[dict[str, Any]]:
    """The findings of one cell. A checkpoint that cannot be loaded is a finding, too."""
    row = {"model": cell.config["model"]["name"], "weights": cell.config["weights"]["name"]}
    strategy: Strategy = config.build(cell, "lora")
    try:
        captioner: Captioner = config.build(cell, "model")
        strategy = _chosen(strategy, captioner, fallback=fallback)
        row["strategy"] = strategy.name
        for finding in _findings(cell, captioner, strategy, samples):
            yield {**row, **vars(finding)}
    except CapBenchError as error:
        verdict = "refused" if isinstance(error, Refused) else "failed"
        yield {**row, "strategy": strategy.name, "check": "load", "verdict": verdict, "first": str(error)}


def _chosen(strategy: Strategy, captioner: Captioner, *, fallback: bool) -> Strategy:
    """The strategy of the request; where none was asked for, a captioner that refuses LoRA is trained in full."""
    if not fallback:
        return strategy
    try:
        strategy.plan(captioner)
    except Refused:
        strategy = config.build(config.cells("run", ["lora=full"])[0], "lora")
    return strategy


def _findings(cell: config.Cell, captioner: Captioner, strategy: Strategy, samples: int) -> Iterator[Finding]:
    settings: RunSettings = config.settings(cell, RunSettings)
    device = pick_device(settings.device, settings.threads)

    def fresh() -> Captioner:
        again: Captioner = config.build(cell, "model")
        again.load(device)
        return again

    split = config.build(cell, "dataset").load(settings.split)
    usable = islice(split.samples, samples)
    examples = [Example(tuple(image.load() for image in sample.images), PROMPTS[0]) for sample in usable]
    decoding: Decoding = config.build(cell, "generate")
    vllm.check(captioner, decoding, device)
    captioner.load(device)
    case = ParityCase(captioner, examples, decoding)
    yield from check_batches(case)
    with tempfile.TemporaryDirectory() as folder:
        if strategy.trains:
            yield from check_adapter(case, strategy, fresh, Path(folder))
        if decoding.engine != "transformers":
            del case.captioner.model, captioner  # there may be no room for two
            memory.release()
            yield _engine(fresh(), strategy, Path(folder), case, device)


def _engine(captioner: Captioner, strategy: Strategy, adapter: Path, case: ParityCase, device: str) -> Finding:
    """The other engine's captions beside the captioner's, both with the adapter that was moved at random."""
    merge = vllm.nothing
    if any(adapter.iterdir()):
        merge = vllm.as_stored(captioner, strategy, strategy.plan(captioner), adapter)
    with vllm.started(captioner, case.decoding, device, case.examples, merge) as (finding, _):
        return finding


def _print_environment(results: Path) -> None:
    found = provenance.environment()
    console.print(f"capbench {provenance.code_version()}, python {found['python']}, {found['platform']}")
    console.print(", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    here = [name for name in OPTIONAL if importlib.util.find_spec(name)]
    console.print(f"optional: {', '.join(here) or 'none'} of {', '.join(OPTIONAL)}")
    console.print(f"device: {_device()}; {torch.get_num_threads()} threads; {_space(results)}")


def _device() -> str:
    if not torch.cuda.is_available():
        halves = "True" if slowdown() <= SLOW else "computed in float32 and rounded"
        return f"cpu, no CUDA device found; bfloat16 {halves}"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB; bfloat16 {torch.cuda.is_bf16_supported()}"


def _space(results: Path) -> str:
    place = next(folder for folder in (results.resolve(), *results.resolve().parents) if folder.exists())
    return f"{shutil.disk_usage(place).free / 2**30:.0f} GiB free for results"


def _print_findings(found: pd.DataFrame) -> None:
    titles = (*COLUMNS[:5], "largest logit difference", "first difference")
    lines: list[list[str]] = []
    for _, rows in found.groupby(["model", "strategy"], sort=False):
        lines += [[_text(row, name) for name in COLUMNS] for row in rows.to_dict("records")]
        lines.append([])
    table("parity", titles, lines, left={*titles} - {titles[5]})


def _text(row: Mapping[Any, Any], name: str) -> str:
    if pd.isna(row[name]):
        return ""
    return f"{row[name]:.1e}" if name == "difference" else str(row[name])
