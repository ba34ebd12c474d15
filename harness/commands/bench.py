"""capbench bench: samples and captions per second, time per stage and peak memory of captioners.

usage: capbench bench [models=NAME,...] [size=twin|real] [KEY=VALUE ...]

Samples per second of a fit and captions per second, with pictures and with kept features of the vision tower; seconds
a picture for decoding, processor and tower; peak memory. Each captioner has a process of its own. Pictures, shapes,
weights and seeds are fixed; no download.
Exit codes: 0 done; 1 a captioner could not be measured; 2 the request was wrong.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pandas as pd

from harness import config
from harness.choices import groups
from harness.commands._options import parse
from harness.contracts import Positive, RequestError
from harness.machine import provenance
from harness.machine.terminal import console, errors
from harness.tables.csv_files import write_csv

RATES = (
    "fit_samples_per_s", "fit_first_samples_per_s", "fit_cached_samples_per_s", "captions_per_s",
    "captions_cached_per_s",
)  # fmt: skip
"""More is better; of seconds and memory less is."""
COSTS = ("load_s", "decode_s", "process_s", "tower_s", "fit_peak_mb", "captions_peak_mb", "peak_mb")
KEY = ["model", "size"]
ASKED = ("samples", "batch_size", "max_new_tokens", "side", "device", "threads")
PACKAGES = ("torch", "transformers", "peft", "pillow")


@dataclass(frozen=True)
class Settings:
    """The values of conf/bench.yaml."""

    models: str
    size: Literal["twin", "real"]
    dtype: Literal["auto", "float32", "bfloat16", "nf4", "int8"]
    sites: list[str]
    samples: Positive
    batch_size: Positive
    max_new_tokens: Positive
    side: Positive
    device: str
    threads: Positive | None
    out: str | None
    baseline: str | None


def main(argv: Sequence[str]) -> int:
    """Measure each captioner in a process of its own; 1 when one could not be measured."""
    settings: Settings = config.options("bench", parse("bench", argv).overrides, Settings)
    names, before = _names(settings.models), _baseline(settings.baseline)
    rows: list[dict[str, Any]] = []
    for name in names:
        row = _measured(name, settings)
        if row is None:
            continue
        rows.append(row | _machine(settings))
        table = pd.DataFrame(rows)
        _say(row, {} if before is None else ratios(row, before))
        if settings.out:  # after each row: one that fails costs no other
            write_csv(table, Path(settings.out))
    if settings.out and rows:
        console.print(f"bench: {settings.out}")
    return 0 if len(rows) == len(names) else 1


def ratios(row: Mapping[str, Any], before: pd.DataFrame) -> dict[str, float]:
    """Each figure over that of the same captioner and size in an earlier table, as far as it has them."""
    same = before[(before["model"] == row["model"]) & (before["size"] == row["size"])]
    if same.empty:
        return {}
    old = same.iloc[-1]
    figures = [name for name in (*RATES, *COSTS) if name in row and name in old and pd.notna(old[name]) and old[name]]
    return {name: float(row[name] / old[name]) for name in figures}


def _names(models: str) -> list[str]:
    known = groups()["model"]
    names = known if models == "all" else [name.strip() for name in models.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise RequestError(f"models={name}: expected all or some of {','.join(known)}")
    return list(names)


def _baseline(file: str | None) -> pd.DataFrame | None:
    if file is None:
        return None
    if not Path(file).is_file():
        raise RequestError(f"baseline={file}: expected a csv file of an earlier bench, found none")
    table = pd.read_csv(file)
    if not set(KEY) <= set(table.columns):
        raise RequestError(f"baseline={file}: expected the columns {', '.join(KEY)}, got {', '.join(table.columns)}")
    return table


def _measured(name: str, settings: Settings) -> dict[str, Any] | None:
    """The figures of one captioner; None, and why, when its process failed."""
    overrides = [
        *(f"dataset.train={settings.samples}", f"dataset.test={settings.samples}", f"dataset.size={settings.side}"),
        *(f"train.batch_size={settings.batch_size}", f"train.micro_batch_size={settings.batch_size}"),
        *("train.epochs=2", f"generate.batch_size={settings.batch_size}"),
        *(f"generate.max_new_tokens={settings.max_new_tokens}", f"model.dtype={settings.dtype}"),
    ]
    order: dict[str, Any] = {"model": name, "size": settings.size, "sites": settings.sites, "overrides": overrides}
    order |= {"device": settings.device, "threads": settings.threads}
    with TemporaryDirectory(prefix="capbench-") as folder:
        told, made = Path(folder) / "order.json", Path(folder) / "row.json"
        told.write_text(json.dumps(order), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "harness.benchmarks.captioner", str(told), str(made)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode or not made.is_file():
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            errors.print(f"{name}: not measured ({reason})")
            return None
        row: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
    return row


def _machine(settings: Settings) -> dict[str, Any]:
    """Without it a figure means nothing."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    return {
        "dtype": settings.dtype,
        "sites": " ".join(settings.sites),
        **{name: getattr(settings, name) for name in ASKED},
        "cores": os.cpu_count(),
        "machine": f"{platform.machine()} {_processor()} {memory:.0f} GB",
        "python": platform.python_version(),
        "versions": provenance.versions(*PACKAGES),
        "code": provenance.code_version(),
        "measured_at": provenance.now(),
    }


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _say(row: Mapping[str, Any], ratio: Mapping[str, float]) -> None:
    times = {name: f" (x{value:.2f})" for name, value in ratio.items()}
    told = [f"{name} {row[name]:.3g}{times.get(name, '')}" for name in (*RATES, *COSTS) if name in row]
    console.print(f"{row['model']} ({row['size']}): {', '.join(told)}")
