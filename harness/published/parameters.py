"""Parameters that each strategy trains in the real architectures, counted without weights, beside those published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from harness import config
from harness.choices import groups
from harness.contracts import REGIONS, Captioner, Plan, Refused
from harness.machine.terminal import WIDE, bar, console, table

COLUMNS = (
    "model", "class", "strategy", "params_total", "params_trained", "params_trained_pct", *REGIONS, "modules_adapted",
    "rank", "scaling", "published_total", "published_trained", "published_pct", "published_scaling",
    "published_modules", "difference_pct", "verdict", "explanation",
)  # fmt: skip
COUNTS = ("params_total", "params_trained", *REGIONS, "modules_adapted", "rank")
PRINTED = {
    "params_approx": "published_total",
    "params_trained": "published_trained",
    "pct_of_total": "published_pct",
    "adapter_scaling": "published_scaling",
    "target_modules": "published_modules",
}
"""Columns of the published tables, and what they are called here."""
SHOWN = ("model", "strategy", "params_total", "params_trained", "params_trained_pct", *REGIONS)
UNITS = {"M": 1e6, "B": 1e9}


def counted(overrides: Sequence[str], variants: Mapping[str, Sequence[str]], config_dir: str | None) -> pd.DataFrame:
    """One row per model and strategy. `overrides` narrow the sweep down (model=smolvlm) or change options."""
    found = list(_cells(overrides, variants, config_dir))
    reference = published()
    captioners: dict[str, Captioner] = {}
    rows = []
    with bar("counting", len(found)) as advance:
        for row, cell in found:
            if row not in captioners:
                captioners.clear()  # one architecture at a time: its modules take memory even without weights
                captioners[row] = config.build(cell, "model")
            rows.append(_row(row, captioners[row], cell, reference))
            advance(1)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))


def published() -> dict[str, dict[str, Any]]:
    """The published rows with what is known of each, by the row's name (doi 10.3390/bioengineering12121330)."""
    folder = resources.files("harness") / "published"
    lora, models, notes = (pd.read_csv(str(folder / f"{name}.csv")) for name in ("lora", "models", "lora_notes"))
    rows = notes.merge(lora, on="model").merge(models, on="model").rename(columns=PRINTED).to_dict("records")
    return {row["row"]: {str(key): value for key, value in row.items()} for row in rows}


def _cells(
    overrides: Sequence[str], variants: Mapping[str, Sequence[str]], config_dir: str | None
) -> Iterator[tuple[str, config.Cell]]:
    """(name of the row, cell), model by model."""
    models = next((o.partition("=")[2] for o in overrides if o.startswith("model=")), "")
    chosen = [o for o in overrides if not o.startswith("model=")]
    known = groups(Path(config_dir) if config_dir else None)["model"]
    asked = models.split(",") if models and "(" not in models else known
    for name in asked:
        rows = {name: [f"model={name}"]} | {v: list(o) for v, o in variants.items() if f"model={name}" in o}
        for row, batch in rows.items():
            words = ["lora=glob(*)", "model.weights=published", *batch, *chosen]
            for cell in config.cells("run", words, multirun=True, config_dir=config_dir):
                yield row, cell


def _row(name: str, captioner: Captioner, cell: config.Cell, reference: Mapping[str, Any]) -> dict[str, Any]:
    strategy = config.build(cell, "lora")
    row: dict[str, Any] = {"model": name, "class": captioner.kind, "strategy": strategy.name}
    try:
        plan = strategy.plan(captioner)
    except Refused as refusal:
        return {**row, "verdict": "refused", "explanation": str(refusal).partition("refused, ")[2]}
    return {**row, **_counts(plan), **_compared(name, captioner, plan, reference)}


def _counts(plan: Plan) -> dict[str, Any]:
    options = plan.options
    return {
        "params_total": plan.params_total,
        "params_trained": plan.params_trained,
        "params_trained_pct": plan.params_trained_pct,
        **{region: plan.counts.get(region, 0) for region in REGIONS},
        "modules_adapted": len(plan.adapted),
        "rank": options.get("rank"),
        "scaling": options["alpha"] / options["rank"] if "rank" in options else None,
    }


def _compared(name: str, captioner: Captioner, plan: Plan, reference: Mapping[str, Any]) -> dict[str, Any]:
    """The published row stands beside the strategy it was printed for."""
    if name not in reference or plan.strategy != ("full" if captioner.kind == "baseline" else "paper"):
        return {}
    row = reference[name]
    difference = 100 * (plan.params_trained / number(row["published_trained"]) - 1)
    return {name: row[name] for name in (*PRINTED.values(), "verdict", "explanation")} | {"difference_pct": difference}


def number(text: str) -> float:
    """40.1M -> 40,100,000."""
    return float(text[:-1]) * UNITS[text[-1]]


def show(found: pd.DataFrame) -> None:
    """Print it. A narrow terminal gets no regions; they are in the file."""
    columns = SHOWN if console.width >= WIDE else tuple(name for name in SHOWN if name not in REGIONS)
    titles = [name.removeprefix("params_") for name in columns]
    lines: list[list[str]] = []
    for _, rows in found.groupby("model", sort=False):
        lines += [[*(_text(name, row[name]) for name in columns), _remark(row)] for row in rows.to_dict("records")]
        lines.append([])
    table("trainable parameters", [*titles, "published"], lines, left=["model", "strategy", "published"])


def _text(column: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    if column == "params_trained_pct":
        return f"{value:.4f}"
    return f"{value:,}" if column in COUNTS else str(value)


def _remark(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["verdict"]):
        return ""
    if row["verdict"] == "refused":
        return f"refused: {row['explanation']}"
    printed = f"{row['published_trained']}, {row['published_pct']} %"
    return f"{printed}: {row['verdict']} ({row['difference_pct']:+.2f} %); {row['explanation']}"
