"""The `list` command: what can be chosen, and what is found of it on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from harness import config
from harness.arguments import parse
from harness.contracts import RequestError
from harness.progress import console
from harness.registry import groups

KINDS = {
    "models": "model",
    "strategies": "lora",
    "metrics": "metric",
    "datasets": "dataset",
    "prompts": "prompt",
    "protocols": "protocol",
}


def main(argv: Sequence[str]) -> int:
    """Print one table per asked kind; all of them without an argument."""
    arguments = parse("list", argv)
    kinds = arguments.overrides or list(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            raise RequestError(f"list {kind}: expected one of {', '.join(KINDS)}")
    extra = Path(arguments.config_dir) if arguments.config_dir else None
    for kind in kinds:
        _print(kind, groups(extra).get(KINDS[kind], []), arguments.config_dir)
    return 0


def _print(kind: str, names: Sequence[str], config_dir: str | None) -> None:
    group = KINDS[kind]
    table = Table(title=kind, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "what", *_facts_of.get(group, ())):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for name in names:
        node = _node(group, name, config_dir)
        table.add_row(name, escape(config.summary(node)), *map(escape, _facts(group, name, node)))
    console.print(table, soft_wrap=False)


_facts_of: dict[str, tuple[str, ...]] = {
    "model": ("kind", "embedded twin", "published checkpoint"),
    "metric": ("found",),
    "protocol": ("version", "columns", "averages"),
}


def _node(group: str, name: str, config_dir: str | None) -> dict[str, Any]:
    """One choice as it stands in a whole configuration, so that references to other groups resolve."""
    if group in ("metric", "protocol"):
        return config.choice(group, name, config_dir)
    needs_path = ["dataset.path=FILE"] if group == "dataset" and name == "table" else []
    cell = config.cells("run", [f"{group}={name}", *needs_path], config_dir=config_dir)[0]
    return dict(cell.config[group])


def _facts(group: str, name: str, node: dict[str, Any]) -> list[str]:
    if group == "model":
        captioner = config.build_node(node, f"model.{name}")
        return [captioner.kind, *captioner.found()]
    if group == "metric":
        return [config.build_node(node, f"metric.{name}").missing() or "yes"]
    if group == "protocol":
        averages = "; ".join(f"{a} = mean({', '.join(p)})" for a, p in node["averages"].items())
        return [str(node["version"]), ", ".join(node["columns"]), averages]
    return []
