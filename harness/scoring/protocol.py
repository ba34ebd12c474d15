"""Schemes, which are protocols with their metrics built, and the pictures of the runs that are scored by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import config
from harness.contracts import Combined, Metric, RequestError, ScoreProtocol, Split
from harness.scoring.score import Column, Images, Pictures, Scheme
from harness.store.runs import Run


def scheme(cell: config.Cell, config_dir: str | None) -> Scheme:
    """A cell's protocol with its metrics and the further ones that were asked for."""
    protocol: ScoreProtocol = config.build(cell, "protocol")
    return Scheme(protocol, columns(protocol, cell.config["metrics"], config_dir))


def _load(node: Mapping[str, Any], split: str) -> Split:
    found: Split = config.build_node(node, "dataset").load(split)
    return found


def pictures(load: Callable[[Mapping[str, Any], str], Split] = _load) -> Pictures:
    """The pictures of runs, from the datasets of their manifests, those of a run read once.

    load: (dataset node, split) -> the split, for datasets that are in memory already.
    """
    known: dict[Path, Images] = {}

    def of(run: Run) -> Images:
        if run.folder not in known:
            split = load(run.manifest["config"]["dataset"], run.row["split"])
            known[run.folder] = {sample.id: sample.images[0] for sample in split.samples}
        return known[run.folder]

    return of


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
    for value, ratios in metric.combine.items() if isinstance(metric, Combined) else ():
        for wanted in {value, *(part for ratio in ratios for part in (*ratio.over, *ratio.under))}:
            if wanted not in metric.values:
                raise RequestError(f"metric {name}: combine.{value} needs {wanted}; it has {', '.join(metric.values)}")
    return metric
