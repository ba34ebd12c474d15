"""The base of the benchmarks: a command line from a dataclass's fields, rows to the terminal and to a csv file."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from harness.machine import provenance

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """What is measured, and under which options. A field is an option: Annotated[type, help] or with choices, too.

    A Sequence takes several words. key: rows of an earlier file stay where they differ in these columns.
    """

    key: ClassVar[Sequence[str]] = ()
    out: Annotated[Path | None, "csv file, written after each row"] = None

    @abstractmethod
    def rows(self) -> Iterable[Row]:
        """What is measured, with what it depends on."""

    @classmethod
    def main(cls, argv: Sequence[str] | None = None) -> pd.DataFrame:
        """Measure as the command line asks; its help is the module's docstring."""
        benchmark = cls(**vars(cls._parser().parse_args(argv)))
        found = benchmark.rows()  # a list was measured before pandas is here: a new process inherits our peak memory
        import pandas as pd
        from rich.console import Console

        from harness.tables.csv_files import write_csv

        rows, table = list[Row](), pd.DataFrame()
        for row in found:
            rows.append(row)
            table = pd.DataFrame(rows)
            if benchmark.out:  # a row that fails costs no other
                write_csv(_joined(table, benchmark.out, list(cls.key)), benchmark.out)
        Console(width=200).print(table.to_string(index=False, line_width=200), markup=False)
        return table

    @classmethod
    def _parser(cls) -> argparse.ArgumentParser:
        about = sys.modules[cls.__module__].__doc__
        parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
        hints = get_type_hints(cls, include_extras=True)
        for one in fields(cls):
            kind, note, *choices = get_args(hints[one.name])
            told: dict[str, Any] = {"action": "store_true"}
            if kind is not bool:
                plain = next(part for part in (*get_args(kind), kind) if part is not NoneType)
                told = {"type": plain, "choices": list(choices[0]) if choices else None}
                told["nargs"] = "+" if get_origin(kind) is Sequence else None
            parser.add_argument(
                f"--{one.name}", required=one.default is MISSING, default=one.default, help=note, **told
            )
        return parser


def capbench(*words: str) -> None:
    """Run a whole command in a process of its own. Raises CalledProcessError when it fails."""
    command = [sys.executable, "-P", "-m", "harness.cli", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def here(device: str = "cpu") -> dict[str, Any]:
    """What a figure of this machine depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "device": provenance.device_name(device), "code": provenance.code_version()}


def _joined(table: pd.DataFrame, path: Path, key: list[str]) -> pd.DataFrame:
    """With the rows of the file that are of something else."""
    import pandas as pd

    before = pd.read_csv(path) if key and path.is_file() else table.iloc[:0]
    if before.empty or not set(key) <= set(before.columns):
        return table
    same = before[key].apply(tuple, axis=1).isin(table[key].apply(tuple, axis=1))
    return pd.concat([before[~same], table], ignore_index=True)
