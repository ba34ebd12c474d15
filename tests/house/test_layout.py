"""The house stays in order: few files in the root, no crowded folder, no long file, no room without a name."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.support.commands import ROOT

CODE = ("harness", "model_zoo", "tests")
APART = {"plugins", "zoo", "house", "support", "conf", "data", "golden"}
"""Folders of tests/ that mirror no room: contracts of plug-ins, model_zoo/, the house itself, helpers, data."""


def files(folder: str) -> list[Path]:
    """Relative to the checkout, without what Python leaves beside them."""
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return [path for path in found if "__pycache__" not in path.parts]


def of_data(folder: Path) -> bool:
    """A checkpoint that ships with the code, or a results folder that tests read."""
    checkpoint = "embedded" in folder.parts and not any((ROOT / folder).glob("*.py"))
    return checkpoint or folder.parts[:2] == ("tests", "data")


def rooms() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "harness").glob("*/__init__.py"))


def test_the_root_of_the_package_has_few_files():
    assert len(list((ROOT / "harness").glob("*.py"))) <= 6


@pytest.mark.parametrize("root", [*CODE, "conf"])
def test_no_folder_is_crowded(root):
    count = Counter(path.parent for path in files(root) if not of_data(path.parent))
    assert {str(folder): number for folder, number in count.items() if number > 20} == {}


@pytest.mark.parametrize("root", CODE)
def test_no_file_is_long(root):
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in files(root) if path.suffix == ".py"}
    assert {path: number for path, number in lines.items() if number > 400} == {}


@pytest.mark.parametrize("room", rooms())
def test_every_room_is_named_in_the_plan(room):
    assert f"{room}/" in (ROOT / "harness" / "README.md").read_text(encoding="utf-8")


def test_folders_of_tests_mirror_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - APART <= set(rooms())
    assert [path.name for path in (ROOT / "tests").glob("*.py")] == ["conftest.py"]


def private(tree: ast.Module) -> list[str]:
    """Private names of our packages that a module imports or replaces; a module may be private, its names may not."""
    nodes = list(ast.walk(tree))
    imported = [
        f"{node.module}.{name.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("harness", "model_zoo"))
        for name in node.names
        if name.name.startswith("_") and not (ROOT / str(node.module).replace(".", "/") / f"{name.name}.py").is_file()
    ]
    replaced = [
        words
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr"
        for words in (argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant))
        if isinstance(words, str) and words.rpartition(".")[2].startswith("_") and words.startswith(("_", "harness"))
        if not words.startswith("__")
    ]
    return imported + replaced


def test_tests_use_public_names():
    trees = {path: ast.parse((ROOT / path).read_text()) for path in files("tests") if path.suffix == ".py"}
    assert {str(path): private(tree) for path, tree in trees.items() if private(tree)} == {}
