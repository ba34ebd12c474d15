"""capbench params: what each strategy trains in the real architectures, beside the published counts.

usage: capbench params [--config-dir DIR] [model=NAME,...] [lora=NAME,...] [KEY=VALUE ...]

Total and trained parameters of every model and strategy at the real sizes, counted without weights, beside the
published values.

  model={model}
  lora={lora}
Options of a strategy need it named: lora=targeted lora.rank=8
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.commands._options import found_in, parse
from harness.machine.terminal import console
from harness.published.parameters import counted, show
from harness.tables.csv_files import write_csv


@dataclass(frozen=True)
class Settings:
    """The values of conf/params.yaml."""

    out: str | None
    variants: dict[str, list[str]]


def main(argv: Sequence[str]) -> int:
    """Count, print and, with `out=FILE`, write."""
    arguments = parse("params", argv)
    own, rest = found_in(arguments.overrides, Settings)
    settings: Settings = config.options("params", own, Settings)
    found = counted(rest, settings.variants, arguments.config_dir)
    show(found)
    if settings.out:
        write_csv(found, Path(settings.out))
        console.print(f"parameters: {settings.out}")
    return 0
