"""One cell of a sweep, shielded: how it ended is a file, whatever becomes of the process.

python -m harness.cells.worker TASK.json      one cell, as a launcher starts it
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import config
from harness.cells import cell
from harness.cells.manifest import brief, record_failure
from harness.cells.parts import Once, build_parts
from harness.choices import GROUP_OF
from harness.contracts import Refused, RequestError
from harness.machine import provenance, ranks
from harness.store import SHORT, digest, read_json, write_json


@dataclass(frozen=True)
class Ended:
    """How a cell ended: ok, partial, failed or refused. `fresh` is false when everything had been done before."""

    status: str
    message: str
    run: str | None
    fresh: bool
    seconds: float

    def __str__(self) -> str:
        """For the line of the cell."""
        if self.status == "failed":
            return f"failed ({self.message})"
        if self.status == "refused":
            return self.message
        return self.status if self.fresh else f"{self.status}, done before"


class Died(Exception):
    """The process of a cell ended before the cell did."""


# ---------------------------------------------------------------- tasks and their files


def task(one: config.Cell) -> dict[str, Any]:
    """A cell as plain JSON, with the name of its files, by which launchers call theirs."""
    return {**asdict(one), "id": _name(one)}


def ended_file(one: config.Cell) -> Path:
    """The file that says how a cell ended."""
    return Path(one.config["results"]) / "cells" / f"{_name(one)}.json"


def log(one: config.Cell) -> Path:
    """The file that has what a cell printed, its traceback included."""
    return Path(one.config["results"]) / "logs" / f"cell-{_name(one)}.log"


def _early(one: config.Cell) -> Path:
    """The run folder of a cell that failed before it had an identity, or without a word."""
    return Path(one.config["results"]) / "runs" / f"failed-{_name(one)}"


def _name(one: config.Cell) -> str:
    return digest([dict(one.choices), dict(one.config)])[:SHORT]


def work(given: Mapping[str, Any]) -> None:
    """Bring one cell to its end in this process, whose output goes to the cell's log."""
    one = config.Cell(given["label"], given["choices"], given["config"])
    with _logged(log(one)):
        ended = attempt(one, {})
    if ranks.speaker() if ended.status == "failed" else ranks.first():
        _write_end(one, ended)
    if ended.status == "failed" and ranks.world() > 1:
        sys.exit(1)  # torchrun ends the other processes of this cell


def read_end(file: Path) -> Ended:
    """How a cell ended."""
    known = read_json(file)
    return Ended(**{key: known[key] for key in ("status", "message", "run", "fresh", "seconds")})


def _write_end(one: config.Cell, ended: Ended) -> None:
    write_json(ended_file(one), {"label": one.label, **asdict(ended), "finished_at": provenance.now()})


def died(one: config.Cell, how: str, seconds: float) -> Ended:
    """Write down a cell whose process is gone."""
    ended = Ended("failed", f"{how}; its log: {log(one)}", None, fresh=True, seconds=seconds)
    _record_early(one, Died(how))
    _write_end(one, ended)
    return ended


# ---------------------------------------------------------------- the cell


def attempt(one: config.Cell, datasets: dict[str, Once], *, raises: bool = False) -> Ended:
    """Run a cell so that no error leaves it, but for wrong requests where `raises` says so."""
    start = time.perf_counter()
    try:
        outcome = cell.run(build_parts(one, datasets))
    except Refused as error:
        if raises:
            raise
        return Ended("refused", str(error), None, fresh=True, seconds=time.perf_counter() - start)
    except Exception as error:  # whatever a model or a library raises
        if isinstance(error, RequestError) and raises:
            raise
        message = ranks.fail(brief(error))
        _keep_traceback(log(one), error)
        if ranks.speaker() and not isinstance(error, cell.Recorded):
            _record_early(one, error)
        return Ended("failed", message, None, fresh=True, seconds=time.perf_counter() - start)
    finally:
        gc.collect()  # a captioner holds its model in reference cycles; the next cell needs the memory now
    ranks.stop()
    if ranks.first():
        _forget(_early(one))
    return Ended(outcome.status, "", outcome.folder.name, outcome.fresh, time.perf_counter() - start)


def _record_early(one: config.Cell, error: Exception) -> None:
    control = one.choices.get("control", "none")
    names = {"model": one.choices.get("model"), "strategy": one.choices.get(GROUP_OF["strategy"])}
    names |= {"model": control, "strategy": "none", "control": control} if control != "none" else {}
    row = {"run_id": _name(one), "error": brief(error), **names, "finished_at": provenance.now()}
    record_failure(_early(one), {"config": dict(one.config)}, row, {"command": provenance.command()})


def _keep_traceback(path: Path, error: Exception) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))


def _forget(early: Path) -> None:
    """A cell that failed before and has ended well now is no failure any more."""
    manifest = early / "manifest.json"
    if manifest.exists():
        manifest.unlink()
        early.rmdir()


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send this process's output to a file, that of libraries in C and of a crash included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(f"=== {provenance.now()} {provenance.command()}\n".encode())
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        faulthandler.enable(file=sys.__stderr__ or 2)
        yield
        sys.stdout.flush()
        sys.stderr.flush()


def main(argv: Sequence[str]) -> None:
    """Run the cell of a task file."""
    work(json.loads(Path(argv[0]).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(sys.argv[1:])
