"""The import rules hold, and each planted violation is reported: a rule that cannot fail protects nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT

LIGHT = "plug-ins know contracts, machine and store"
ROOMS = "rooms stand on lower rooms"
PLANTED = {
    "a plug-in knows no stage": ("metrics/rouge1", "from harness import tables", LIGHT),
    "nor what leads to one": ("encoders/pairs", "from harness.batches import limit", LIGHT),
    "kinds do not know each other": ("metrics/rouge1", "from harness.datasets import phantom", ROOMS),
    "nobody imports a plug-in": ("cells/cell", "from harness.lora import sites", ROOMS),
    "a stage knows no command": ("store/runs", "from harness.training import fit", ROOMS),
    "conf names captioners": ("cells/cell", "from model_zoo import smolvlm", "conf names captioners"),
    "hydra has one door": ("tables/columns", "import omegaconf", "only harness.config imports hydra"),
    "contracts are light": (
        "contracts/data",
        "import torch",
        "contracts import no package but annotated_types",
    ),
    "a new room has a place": ("attic/__init__", "", ROOMS),
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


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_reported(copy, case):
    name, line, rule = PLANTED[case]
    path = copy / "harness" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1
    text = " ".join(done.stdout.split())  # long names are broken into lines
    assert rule in text.partition("Broken contracts")[2]
