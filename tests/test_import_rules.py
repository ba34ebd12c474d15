"""The import rules hold, and each planted violation is reported: a rule that cannot fail protects nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PLANTED = {
    "plug-ins know no stage": ("harness/metrics/rouge1.py", "from harness import tables"),
    "plug-in kinds do not know each other": ("harness/metrics/rouge1.py", "from harness.datasets import phantom"),
    "nobody imports a plug-in": ("harness/cells/cell.py", "from harness.lora import sites"),
    "only harness.config imports hydra": ("harness/tables/columns.py", "import omegaconf"),
    "entry points above stages": ("harness/store/__init__.py", "from harness import fit"),
    "contracts import the standard library only": ("harness/contracts/__init__.py", "import torch"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([str(script), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path) -> Path:
    for name in ("harness", "model_zoo"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_rules_hold(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_violation_is_reported(copy, rule):
    name, line = PLANTED[rule]
    path = copy / name
    future = "from __future__ import annotations\n"
    path.write_text(path.read_text().replace(future, f"{future}\n{line}\n", 1))
    done = lint(copy)
    assert done.returncode == 1
    assert any(rule in text and "BROKEN" in text for text in done.stdout.splitlines()), done.stdout
