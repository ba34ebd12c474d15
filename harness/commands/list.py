"""capbench list: models, strategies, metrics, datasets, prompts, modalities, protocols, and what is found of them.

usage: capbench list [models|strategies|metrics|datasets|prompts|modalities|protocols ...] [--config-dir DIR]

What can be chosen, with what is installed and which checkpoints are found.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from harness.choices import conf_dir, groups, own_conf
from harness.commands._options import parse
from harness.contracts import RequestError
from harness.machine.terminal import table

KINDS = {
    "models": "model",
    "strategies": "lora",
    "metrics": "metric",
    "datasets": "dataset",
    "prompts": "prompt",
    "modalities": "modality",
    "protocols": "protocol",
}
FACTS = {
    "model": ("kind", "embedded twin", "published checkpoint"),
    "metric": ("found",),
    "protocol": ("version", "columns", "averages"),
}
FOUND = "_found.py"
"""A package may have this module with `found(values)`, for what its captioners' own `found` says, without imports."""

Node = Mapping[str, Any]


def main(argv: Sequence[str]) -> int:
    """Print one table per asked kind; all of them without an argument."""
    arguments = parse("list", argv)
    kinds = arguments.overrides or list(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            raise RequestError(f"list {kind}: expected one of {', '.join(KINDS)}")
    extra = own_conf(arguments.config_dir) if arguments.config_dir else None
    for kind in kinds:
        _print(kind, groups(extra).get(KINDS[kind], []), extra)
    return 0


def _print(kind: str, names: Sequence[str], extra: Path | None) -> None:
    group = KINDS[kind]
    columns = ("name", "what", *FACTS.get(group, ()))
    nodes = {name: _node(group, name, extra) for name in names}
    rows = [[name, _summary(group, node), *_facts(group, name, node, extra)] for name, node in nodes.items()]
    table(kind, columns, rows, left=columns)


def _node(group: str, name: str, extra: Path | None) -> Node:
    """One choice as it stands in its file; ours wins over one of the same name, as when it is chosen."""
    paths = [root / group / f"{name}.yaml" for root in (conf_dir(), extra) if root]
    path = next(path for path in paths if path.is_file())
    try:
        node = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise RequestError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(node, dict) or "_target_" not in node:
        raise RequestError(f"{path}: expected `_target_: package.module.Class`, got {node!r}")
    return node


def _summary(group: str, node: Node) -> str:
    """What a choice is, in the words of its class; its note where it has one, as protocols do."""
    if node.get("note"):
        return str(node["note"]).split("\n")[0]
    module, _, name = str(node["_target_"]).rpartition(".")
    for part in _source(group, module).body:
        if isinstance(part, ast.ClassDef) and part.name == name:
            return (ast.get_docstring(part) or "").split("\n")[0]
    return ""


@cache
def _source(group: str, module: str) -> ast.Module:
    """The code of a module, which is not imported."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise RequestError(f"{group}._target_={module}: no such module; a file of your own must be on PYTHONPATH")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- what is found


def _facts(group: str, name: str, node: Node, extra: Path | None) -> list[str]:
    if group == "model":
        light = _light(str(node["_target_"]).partition(".")[0])
        found = light.found(node) if light else _built("model", name, extra).found()
        return [str(node.get("kind", "")), *map(str, found)]
    if group == "metric":
        return [_metric(name, node, extra).missing() or "yes"]
    if group == "protocol":
        averages = "; ".join(f"{a} = mean({', '.join(p)})" for a, p in (node.get("averages") or {}).items())
        return [str(node.get("version", "lacks one")), ", ".join(node.get("columns") or ()), averages]
    return []


def _light(package: str) -> Any:
    """The module in which a package says what is found of its captioners, None where it has none."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    there = any(Path(folder, FOUND).is_file() for folder in folders)
    return import_module(f"{package}.{FOUND.removesuffix('.py').replace('/', '.')}") if there else None


def _metric(name: str, node: Node, extra: Path | None) -> Any:
    """A metric; its module is light, since what it needs is imported when it loads."""
    values = {key: value for key, value in node.items() if not key.startswith("_")}
    if "${" in str(values):
        return _built("metric", name, extra)
    module, _, cls = str(node["_target_"]).rpartition(".")
    return getattr(import_module(module), cls)(**values)


def _built(group: str, name: str, extra: Path | None) -> Any:
    """A plug-in in a whole configuration, so that references to other groups resolve."""
    from harness import config

    folder = str(extra) if extra else None
    if group == "metric":
        return config.build_node(config.choice(group, name, folder), f"{group}.{name}")
    return config.build(config.cells("run", [f"{group}={name}"], config_dir=folder)[0], group)
