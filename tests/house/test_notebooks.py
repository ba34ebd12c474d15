"""The notebooks run on the tables of a small sweep, all of them, and are committed without outputs."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.commands import ROOT
from tests.support.report_data import add_tables

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def test_all_six_are_there():
    expected = ["leaderboard", "parameter_efficiency", "caption_complexity", "modality_prompting", "metric_agreement"]
    assert [path.stem[3:] for path in NOTEBOOKS] == [*expected, "qualitative"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert len(notebook.cells) <= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_reads_tables_only(path):
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    imported = set(re.findall(r"^(?:from|import) (\w+)", code, re.M))
    assert imported <= {"os", "pathlib", "matplotlib", "pandas"}
    assert set(re.findall(r"[\w}]+\.csv", code)) <= {
        "leaderboard.csv", "significance.csv", "runs.csv", "samples.csv", "ablation.csv", "name}.csv",
    }  # fmt: skip


def run(path: Path, results: Path, tmp_path: Path) -> str:
    """What a notebook prints, from another folder than its own."""
    notebook = read(path)
    environment = {**os.environ, "RESULTS": str(results), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)
    texts = [
        out.get("text", "") or str(out.get("data", {})) for cell in notebook.cells for out in cell.get("outputs", ())
    ]
    return "\n".join(texts)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_on_the_embedded_results(path, results, tmp_path):
    said = run(path, results, tmp_path)
    assert "smolvlm" in said or path.stem.startswith(("04", "05"))  # these name rows in their pictures only, or none
    assert "image/png" in said or path.stem.startswith("06")


@pytest.mark.slow
def test_the_ablation_is_drawn_where_it_is_there(results, tmp_path):
    assert "is not there yet" in run(NOTEBOOKS[3], results, tmp_path)
    add_tables(results)
    said = run(NOTEBOOKS[3], results, tmp_path)
    assert "is not there yet" not in said
    assert "change_pct" in said
