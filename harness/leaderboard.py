"""Tables from the files of the runs, and the command that rebuilds them: `capbench leaderboard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import stats
from harness.contracts import RequestError
from harness.export import show, write_latex, write_markdown
from harness.integrity import trusted
from harness.tables import (
    AVERAGES,
    LEADERBOARD_COLUMNS,
    SEED,
    Run,
    add_averages,
    common_rows,
    find_runs,
    missing_reasons,
    protocol_values,
    runs_table,
    samples_table,
    scores_table,
    write_csv,
)


@dataclass(frozen=True)
class Settings:
    """The values of conf/leaderboard.yaml."""

    results: str
    dataset: str | None
    split: str | None
    weights: str | None
    protocol: str | None
    trials: int


@dataclass(frozen=True)
class Group:
    """What shares a table: the same samples of one dataset and split, one protocol, embedded or published weights."""

    dataset: str
    split: str
    weights: str
    protocol: str
    data: str

    @property
    def slug(self) -> str:
        """For file names."""
        return "-".join((self.dataset, self.split, self.weights, self.protocol, self.data[:6]))

    @property
    def title(self) -> str:
        """For headings."""
        return f"dataset {self.dataset}, split {self.split}, weights {self.weights}, protocol {self.protocol}"


@dataclass(frozen=True)
class Board:
    """One leaderboard with the note of its protocol and the reasons of its blank columns."""

    group: Group
    table: pd.DataFrame
    note: str
    blank: Mapping[str, str]
    newest: str


def rebuild(results: Path, trials: int) -> list[Board]:
    """Write runs.csv, scores.csv, every samples.csv and all leaderboards; the newest board comes first."""
    runs = trusted(find_runs(results))
    write_csv(runs_table(runs), results / "runs.csv")
    write_csv(scores_table(runs, trials), results / "scores.csv")
    for run in runs:
        if run.rows:
            write_csv(samples_table(run), run.folder / "samples.csv")
    boards = [_board(group, members, trials) for group, members in _grouped(runs).items()]
    boards.sort(key=lambda board: (board.newest, board.group.slug), reverse=True)
    for board in boards if len(boards) > 1 else []:
        _write(board, results / f"leaderboard-{board.group.slug}")
    if boards:
        _write(boards[0], results / "leaderboard")
    return boards


def select(boards: Sequence[Board], **wanted: str | None) -> Board:
    """The newest board that fits the filters. Raises RequestError listing what there is."""
    fitting = [b for b in boards if all(v is None or getattr(b.group, k) == v for k, v in wanted.items())]
    if not fitting:
        known = "; ".join(b.group.title for b in boards) or "no scored run at all; start with `capbench run`"
        raise RequestError(f"no leaderboard fits { ({k: v for k, v in wanted.items() if v}) }; there is: {known}")
    return fitting[0]


def _grouped(runs: Sequence[Run]) -> dict[Group, list[Run]]:
    groups: dict[Group, list[Run]] = {}
    for run in runs:
        if "dataset" not in run.row:  # failed before it was known what it would have been
            continue
        where = (run.row["dataset"], run.row["split"], run.row["weights"])
        for protocol in list(run.protocols) or [""]:
            groups.setdefault(Group(*where, protocol, run.manifest["identity"]["data"]), []).append(run)
    scored = {group: members for group, members in groups.items() if group.protocol}
    for group, members in groups.items():
        if not group.protocol:  # a failed run has no scores: it is listed wherever its samples are
            for other in scored:
                if (other.dataset, other.split, other.weights, other.data) == (
                    group.dataset, group.split, group.weights, group.data,
                ):  # fmt: skip
                    scored[other] += members
    return scored


# ---------------------------------------------------------------- one board


def _board(group: Group, runs: Sequence[Run], trials: int) -> Board:
    variants: dict[str, list[Run]] = {}
    for run in runs:
        variants.setdefault(run.manifest["variant"], []).append(run)
    labels = _labels({key: members[0] for key, members in variants.items()})
    scored = {k: [r for r in m if group.protocol in r.protocols] for k, m in variants.items()}
    complete = {k: [r for r in m if r.status == "ok"] for k, m in scored.items()}
    ranked = {key: _seed_mean(members, group.protocol) for key, members in complete.items() if members}
    record = next(run.protocols[group.protocol] for run in runs if group.protocol in run.protocols)
    rows = [_ranked_row(key, complete[key], labels[key]) for key in ranked]
    table = pd.DataFrame(rows)
    if ranked:
        table = _with_scores(table, list(ranked.values()), record, trials)
    others = [_unranked_row(run, labels[key], group) for key, m in variants.items() if not complete[key] for run in m]
    table = pd.concat([t for t in (table, pd.DataFrame(others)) if not t.empty], ignore_index=True)
    known = [name for run in runs for name in run.protocols.get(group.protocol, {}).get("columns", {})]
    extra = [name for name in dict.fromkeys(known) if name not in LEADERBOARD_COLUMNS]
    table = table.reindex(columns=[*LEADERBOARD_COLUMNS, *extra])
    table = table.sort_values(["rank", "model", "strategy", "prompt", "modality"], kind="stable", ignore_index=True)
    newest = max(str(run.row.get("finished_at") or "") for run in runs)
    return Board(group, table, record["protocol"]["note"], missing_reasons(runs, group.protocol), newest)


def _seed_mean(runs: Sequence[Run], protocol: str) -> pd.DataFrame:
    """Per-sample values of one row [samples, columns]: the mean over its seeds."""
    values = [protocol_values(run, run.protocols[protocol]) for run in runs]
    return sum(values[1:], start=values[0]) / len(values)


def _ranked_row(key: str, runs: Sequence[Run], labels: Mapping[str, str]) -> dict[str, Any]:
    facts = pd.DataFrame([run.row for run in runs])
    return {
        **labels,
        "seeds": len(runs),
        "params_trained_pct": facts["params_trained_pct"].iloc[0],
        "captions_per_s": facts["captions_per_s"].mean(),
        "peak_memory_bytes": facts["peak_memory_bytes"].max(),
    }


def _with_scores(
    table: pd.DataFrame, systems: Sequence[pd.DataFrame], record: Mapping[str, Any], trials: int
) -> pd.DataFrame:
    """Means over the samples that all ranked rows have, intervals and rank intervals from one joint bootstrap."""
    names = list(dict.fromkeys(name for values in systems for name in values.columns))
    systems = [values.reindex(columns=names) for values in systems]  # a further metric may be there for some rows only
    own = record["protocol"]["columns"]
    present = [name for name in own if all(values[name].notna().any() for values in systems)]
    used = np.logical_and.reduce([common_rows(values, present) for values in systems])
    averages = record["protocol"]["averages"]
    full = [add_averages(values[used], averages) for values in systems]
    table = table.assign(n=int(used.sum()))
    for name in full[0].columns:
        table[name] = [values[name].mean() for values in full]
    if not used.any():
        return table
    primary = record["protocol"]["primary"]
    composites = [name for name in (*AVERAGES, primary) if name in full[0].columns and table[name].notna().all()]
    composites = list(dict.fromkeys(composites))
    stacked = np.concatenate([values[composites].to_numpy(float) for values in full], axis=1)
    means = stats.bootstrap(stacked, trials, SEED).reshape(trials, len(full), len(composites))
    for index, name in enumerate(composites):
        if name in AVERAGES:
            table[f"{name}_ci_low"], table[f"{name}_ci_high"] = stats.interval(means[:, :, index])
    if primary in composites:
        table["rank_low"], table["rank_high"] = stats.ranks(means[:, :, composites.index(primary)])
        table["rank"] = table[primary].rank(method="min", ascending=False).astype(int)
    return table


def _unranked_row(run: Run, labels: Mapping[str, str], group: Group) -> dict[str, Any]:
    """An incomplete run is listed with what it has, and never ranked."""
    row: dict[str, Any] = {**labels, "seeds": 1, "params_trained_pct": run.row.get("params_trained_pct")}
    record = run.protocols.get(group.protocol)
    if record is None:
        return row | {"n": 0}
    present = [name for name, column in record["columns"].items() if "file" in column]
    values = protocol_values(run, record)
    used = common_rows(values, present)
    means = add_averages(values[used], record["protocol"]["averages"]).mean()
    return row | {"n": int(used.sum())} | {str(name): value for name, value in means.items()}


def _labels(variants: Mapping[str, Run]) -> dict[str, dict[str, str]]:
    """Names of the rows. Rows that would read alike get the options in which they differ: 'targeted[lora.rank=4]'."""
    names = ("model", "class", "strategy", "prompt", "modality")
    labels = {key: {name: str(run.row[name]) for name in names} for key, run in variants.items()}
    alike: dict[tuple[str, ...], list[str]] = {}
    for key, label in labels.items():
        alike.setdefault(tuple(label.values()), []).append(key)
    for keys in alike.values():
        options = {key: _options(variants[key].manifest["config"]) for key in keys}
        differing = sorted(
            name for name in set().union(*options.values()) if len({options[k].get(name) for k in keys}) > 1
        )
        for key in keys if len(keys) > 1 else []:
            shown = ",".join(f"{name}={options[key].get(name)}" for name in differing)
            labels[key]["strategy"] += f"[{shown}]"
    return labels


def _options(config: Any, key: str = "") -> dict[str, str]:
    ignored = {"seed", "results", "device", "threads"}
    if not isinstance(config, Mapping):
        return {key: str(config)}
    found: dict[str, str] = {}
    for name, value in config.items():
        if key or name not in ignored:
            found |= _options(value, f"{key}.{name}" if key else str(name))
    return found


# ---------------------------------------------------------------- output


def _write(board: Board, stem: Path) -> None:
    write_csv(board.table, stem.with_name(f"{stem.name}.csv"))
    write_markdown(board, stem.with_name(f"{stem.name}.md"))
    write_latex(board, stem.with_name(f"{stem.name}.tex"))


def finish(results: Path, trials: int, **wanted: str | None) -> None:
    """Rebuild the tables, print the board asked for and say where it is."""
    boards = rebuild(results, trials)
    board = select(boards, **wanted)
    if board is not boards[0]:
        _write(board, results / "leaderboard")
    show(board, results / "leaderboard.csv", [b.group.title for b in boards if b is not board])


def main(argv: Sequence[str]) -> int:
    """The `leaderboard` command."""
    from harness import config
    from harness.arguments import parse

    arguments = parse("leaderboard", argv)
    settings: Settings = config.options("leaderboard", arguments.overrides, Settings)
    results = Path(settings.results)
    if not (results / "runs").is_dir():
        raise RequestError(f"results={results}: expected a folder with runs, found none; start with `capbench run`")
    wanted = {name: getattr(settings, name) for name in ("dataset", "split", "weights", "protocol")}
    finish(results, settings.trials, **wanted)
    return 0
