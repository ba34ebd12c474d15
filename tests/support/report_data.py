"""Results whose texts try to become part of the page, and the tables that later commands add."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from harness.benchmarks.leaderboard import make_results
from harness.commands import report
from harness.store import Journal, JournalRow, read_json, write_json
from harness.store.runs import find_runs
from harness.tables.columns import BOARD_COLUMNS
from harness.tables.rebuild import rebuild

SCRIPT = "<script>alert(1)</script>"
LINK = "javascript:alert(2)"
FORMULA = '=HYPERLINK("http://evil.example","x")'
CLOSING = "</script><img src=x onerror=alert(3)>\u2028 & 'quoted' \"twice\""
HOSTILE = (SCRIPT, LINK, FORMULA, CLOSING)


def made_up(results: Path, runs: int = 4, samples: int = 24) -> Path:
    """Runs with made-up scores; nothing behind them can be loaded."""
    make_results(results, runs, samples)
    return results


def hostile(results: Path) -> Path:
    """The same with hostile captions, references, ids, modalities, models and errors."""
    made_up(results)
    for place, run in enumerate(find_runs(results)):
        rows = [vars(row) for row in run.read()]
        for number, row in enumerate(rows):
            row["caption"] = HOSTILE[(number + place) % 4]
            row["reference"] = HOSTILE[(number + 1) % 4]
            row["modality"] = HOSTILE[number % 3]
            row["concepts"] = [SCRIPT]
        path = run.folder / "captions.jsonl"
        path.unlink()
        Journal(path).append(map(JournalRow, rows))
        manifest = read_json(run.folder / "manifest.json")
        manifest["row"] |= {"model": f"{SCRIPT}$x_{place}$", "device": CLOSING}
        manifest["command"] = f"capbench run {CLOSING}"
        if place == 3:
            manifest |= {"status": "failed"}
            manifest["row"] |= {"error": CLOSING}
        write_json(run.folder / "manifest.json", manifest)
    return results


def add_tables(results: Path) -> None:
    """An ablation and controls by hand, about the board and the first rows of subgroups.csv."""
    known = pd.read_csv(results / "subgroups.csv", dtype=str)
    where = {column: known[column].iloc[0] for column in BOARD_COLUMNS}
    model, strategy, prompt, _ = known["row"].iloc[0].split("/")
    change = {"base": 0.5, "value": 0.53, "difference": 0.03, "change_pct": 6.0, "ci_low": 0.01, "ci_high": 0.05}
    tests = {"p": 0.001, "p_holm": 0.004, "n": 24}
    row = {**where, "model": model, "strategy": strategy, "prompt": prompt, "modality": "oracle"}
    groups = [("all", ""), ("modality", "CT"), ("label", "right")]
    ablation = [row | {"metric": "overall", "by": by, "group": group} | change | tests for by, group in groups]
    pd.DataFrame(ablation).to_csv(results / "ablation.csv", index=False)
    over = {"metric": "overall", "difference": 0.2, "ci_low": 0.1, "ci_high": 0.3} | tests
    controls = [where | {"control": name, "row": known["row"].iloc[0]} | over for name in ("constant", "nearest")]
    pd.DataFrame(controls).to_csv(results / "controls.csv", index=False)


@contextmanager
def kept_tables(results: Path) -> Iterator[None]:
    """Within it the rebuild of `capbench report` ends with those tables, as if there had been such runs."""

    def rebuilt(*arguments):
        boards = rebuild(*arguments)
        add_tables(results)
        return boards

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "rebuild", rebuilt)
        yield
