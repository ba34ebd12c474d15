"""Protocols with their metrics built, and runs made ready to be scored by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from harness import config
from harness.contracts import Metric, RequestError, ScoreProtocol, Split
from harness.scoring.score import Column, Images, Plan, Scorable
from harness.store.runs import Run


def plan(cell: config.Cell, config_dir: str | None) -> Plan:
    """A cell's protocol with its metrics and the further ones that were asked for."""
    protocol: ScoreProtocol = config.build(cell, "protocol")
    return Plan(protocol, columns(protocol, cell.config["metrics"], config_dir))


def scorable(run: Run, load: Callable[[Mapping[str, Any], str], Split] | None = None) -> Scorable:
    """A run with its captions; where a metric looks at pictures, they come from the dataset of the manifest.

    load: (dataset node, split) -> the split, for datasets that are in memory already.
    """
    return Scorable(run.folder, run.rows, cache(partial(_images, run, load or _load)))


def _images(run: Run, load: Callable[[Mapping[str, Any], str], Split]) -> Images:
    split = load(run.manifest["config"]["dataset"], run.row["split"])
    return {sample.id: sample.images[0] for sample in split.samples}


def _load(node: Mapping[str, Any], split: str) -> Split:
    found: Split = config.build_node(node, "dataset").load(split)
    return found


def columns(protocol: ScoreProtocol, extra: Sequence[str], config_dir: str | None) -> list[Column]:
    """The protocol's columns, then further metrics by name (their last value is the headline)."""
    found = []
    for name, spec in protocol.columns.items():
        metric = _metric(str(spec["metric"]), spec.get("options") or {}, config_dir)
        if spec["value"] not in metric.values:
            raise RequestError(
                f"protocol.columns.{name}.value={spec['value']}: {metric.name} has {', '.join(metric.values)}"
            )
        found.append(Column(name, metric, str(spec["value"])))
    for name in extra:
        metric = _metric(name, {}, config_dir)
        found.append(Column(name, metric, metric.values[-1]))
    return found


def _metric(name: str, options: Mapping[str, Any], config_dir: str | None) -> Metric:
    metric: Metric = config.build_node(config.choice("metric", name, config_dir) | dict(options), f"metric.{name}")
    return metric
