"""Tables of an earlier version's results, rebuilt and scored again: the same bytes."""

import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.store import file_digest
from tests.support.commands import ROOT

EARLIER = ROOT / "tests" / "data" / "results_0.1"


@pytest.fixture
def results(tmp_path) -> Path:
    shutil.copytree(EARLIER, tmp_path / "results")
    return tmp_path / "results"


def tables(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".csv", ".md", ".tex")}


@pytest.mark.parametrize("protocol", ["embedded", "imageclef2025-code"])
def test_its_tables_are_rebuilt_to_the_byte(results, protocol):
    earlier = tables(EARLIER)
    earlier.pop("README.md")
    for name in earlier:
        (results / name).unlink()
    assert main(["leaderboard", f"results={results}", f"protocol={protocol}"]) == 0
    for path in (path for path in earlier if path.startswith("leaderboard.")):
        (stem,) = {Path(name).stem for name in earlier if f"-{protocol}-d1f938" in name}
        earlier[path] = earlier[f"{stem}{Path(path).suffix}"]
    (results / "README.md").unlink()
    assert tables(results) == earlier


@pytest.mark.parametrize("protocol", ["embedded", "imageclef2025-code"])
def test_nothing_is_scored_again(results, protocol):
    def written() -> dict[Path, tuple[str, int]]:
        return {path: (file_digest(path), path.stat().st_mtime_ns) for path in results.glob("runs/*/scores/*")}

    before = written()
    assert main(["score", f"results={results}", f"protocol={protocol}"]) == 0
    assert written() == before
