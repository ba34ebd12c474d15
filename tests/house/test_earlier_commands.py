"""A results folder of an earlier version is read by every command: ids, files and class names of then stay valid."""

import shutil
from pathlib import Path

import pytest

from harness import config
from harness.cli import main
from harness.store import read_json
from harness.store.runs import find_runs
from tests.support.commands import ROOT

EARLIER = ROOT / "tests" / "data" / "results_0.1"
SMALL = ["dataset.train=24", "dataset.valid=6", "dataset.test=12", "train.max_steps=3"]


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A copy, where its commands were given: relative to the working folder."""
    shutil.copytree(EARLIER, tmp_path / "results", ignore=shutil.ignore_patterns("README.md"))
    monkeypatch.chdir(tmp_path)
    return Path("results")


def written(results: Path) -> dict[str, bytes]:
    """What must not change: all that runs, fits and scores have written."""
    files = (path for folder in ("runs", "fits") for path in (results / folder).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name not in (".lock", "samples.csv")}


def test_every_class_of_then_is_found_and_takes_the_values_of_then(results):
    runs = find_runs(results)
    assert len(runs) == 6
    for run in runs:
        groups = {group: node for group, node in run.manifest["config"].items() if isinstance(node, dict)}
        nodes = {group: node for group, node in groups.items() if "_target_" in node}
        assert {"dataset", "model", "lora", "prompt", "modality", "train", "generate", "control"} <= nodes.keys()
        for group, node in nodes.items():
            assert type(config.build_node(node, group)).__name__ == node["_target_"].rpartition(".")[2]


@pytest.mark.slow
def test_repeating_its_commands_does_nothing_again(results, capsys):
    before = written(results)
    sweep = ["model=smolvlm,qwen2_vl", "lora=none,targeted", "control=none,constant"]
    assert main(["run", "-m", *SMALL, *sweep]) == 0
    assert main(["run", *SMALL, "model=smolvlm", "lora=targeted", "prompt=modality", "modality=oracle"]) == 0
    assert main(["score", "protocol=imageclef2025-code"]) == 0
    assert capsys.readouterr().out.count("ok, done before") == 6
    assert written(results) == before


def test_verify_finds_all_as_it_was_written_tables_included(results):
    assert main(["verify"]) == 0


def test_commands_that_read_say_what_there_is(results, capsys):
    fitted, zero_shot = (next((results / "runs").glob(f"smolvlm-{name}-plain-*")).name for name in ("targeted", "none"))
    assert main(["show", fitted]) == 0
    assert main(["show", f"fits/{next((results / 'fits').glob('smolvlm-*')).name}"]) == 0
    assert main(["diff", fitted, zero_shot]) == 0
    assert main(["compare", fitted, zero_shot]) == 0
    assert main(["ls"]) == 0
    out = capsys.readouterr().out
    assert "targeted" in out
    assert main(["report", "pictures=false", "samples=4", "trials=50", "permutations=50"]) == 0
    assert "smolvlm" in (results / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_of_then_is_reproduced_caption_by_caption(results):
    run = next((results / "runs").glob("smolvlm-targeted-plain-*"))
    assert main(["reproduce", run.name, "source=results", "results=again"]) == 0
    (again,) = Path("again", "runs").glob("smolvlm-*")
    assert again.name == run.name
    assert read_json(again / "manifest.json")["identity"] == read_json(run / "manifest.json")["identity"]
