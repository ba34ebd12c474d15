"""`capbench run --dry-run`: which cells are done, which would run, what they would need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from harness import config
from harness.cells.identity import Known, identify, titles
from harness.cells.parts import Once, Parts, build_parts
from harness.cells.stages import check
from harness.contracts import Refused, RequestError
from harness.machine.terminal import bar, console
from harness.store import Journal, read_manifest
from harness.store.runs import Run, find_runs

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "nf4": 0.5}
TRAINED = 12  # bytes per trained parameter: gradient and the two moments of Adam in float32
COLUMNS = ("cell", "run", "fit", "captions", "memory", "time")


def show_plan(cells: Sequence[config.Cell], results: Path) -> int:
    """Print one line per cell and the sum of the time; nothing is run or written."""
    past = [run for run in find_runs(results) if run.status != "failed"]
    datasets: dict[str, Once] = {}
    table = Table(*COLUMNS, box=None, pad_edge=False)
    total, unknown = 0.0, 0
    states, reasons = Counter[str](), dict[str, RequestError]()
    with bar("plan", len(cells)) as advance:
        for one in cells:
            try:
                built = build_parts(one, datasets)
                line, seconds = _line(built, identify(built), past)
            except RequestError as error:  # such as a checkpoint that is not here: the other cells are planned
                state = "refused" if isinstance(error, Refused) else "cannot run"
                line, seconds = [state, "", "", "", ""], 0.0
                states[state] += 1
                reasons.setdefault(str(error), error)
            total, unknown = total + (seconds or 0.0), unknown + (seconds is None)
            table.add_row(one.label, *line)
            advance(1)
    if states["cannot run"] == len(cells):
        raise next(iter(reasons.values()))
    console.print(table)
    rest = f", {unknown} more of unknown length" if unknown else ""
    for reason in reasons:
        console.print(reason)
    wrong = f", {states['cannot run']} cannot run" if states["cannot run"] else ""
    words = f"{len(cells)} cells, {states['refused']} refused{wrong}; about {_time(total)} of work{rest}"
    console.print(f"{words}; nothing was run")
    return 0


def _line(parts: Parts, known: Known, past: Sequence[Run]) -> tuple[list[str], float | None]:
    """The columns of a cell behind its name, and the seconds that it would take (None: unknown).

    Raises Refused, RequestError.
    """
    like = _like(parts, past)
    manifest = read_manifest(known.folder)
    run = manifest["status"] if manifest else "to do"
    if run == "ok":
        return [f"{known.folder.name}: done", "", "", "", ""], 0.0
    check(parts, known)
    fit, fit_seconds = _fit(parts, known, like)
    made = sum(row.status == "ok" for row in Journal(known.folder / "captions.jsonl").latest())
    rate = _median(like, "captions_per_s")
    rest = len(known.test.samples) - made
    seconds = None if rate is None or fit_seconds is None else rest / rate + fit_seconds
    state = f"{known.folder.name}: {'to do' if run == 'to do' else f'{run}, to be repeated'}"
    return [state, fit, f"{made} of {len(known.test.samples)}", _memory(parts, known, like), _time(seconds)], seconds


def _fit(parts: Parts, known: Known, like: Sequence[Mapping[str, Any]]) -> tuple[str, float | None]:
    if known.fit_folder is None or known.train is None:
        return "none", 0.0
    manifest = read_manifest(known.fit_folder)
    if manifest and manifest["status"] == "ok":
        return "done", 0.0
    options, size = parts.training, len(known.train.samples)
    steps = options.max_steps or round(options.epochs * -(-size // options.batch_size))
    rate = _median(like, "train_samples_per_s")
    return f"{steps} steps", None if rate is None else steps * options.batch_size / rate


def _memory(parts: Parts, known: Known, like: Sequence[Mapping[str, Any]]) -> str:
    """The peak of earlier runs; else what weights, gradients and optimizer take, which activations come on top of."""
    peaks = [row["peak_memory_bytes"] for row in like if row.get("peak_memory_bytes")]
    if peaks:
        return f"{max(peaks) / 2**30:.1f} GiB"
    if parts.control.replaces_captioner:
        return "unknown"
    dtype = str(parts.identities["model"].get("dtype", "float32"))
    if dtype == "auto":
        dtype = "float32" if parts.weights == "embedded" else "bfloat16"
    size = known.plan.params_total * BYTES.get(dtype, 4) + known.plan.params_trained * TRAINED
    return f"over {size / 2**30:.1f} GiB"


def _like(parts: Parts, past: Sequence[Run]) -> list[Mapping[str, Any]]:
    """Rows of finished runs whose costs say something about this cell."""
    names = titles(parts)
    asked = {"model": names["model"], "strategy": names["strategy"], "weights": parts.weights}
    return [run.row for run in past if all(run.row.get(key) == value for key, value in asked.items())]


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key)]
    return median(values) if values else None


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"
