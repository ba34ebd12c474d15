"""The README does not drift: what it names exists."""

import re
import shlex

from harness import config
from harness.cells.parts import GROUPS
from harness.choices import groups
from harness.cli import COMMANDS
from harness.commands._options import parse
from tests.support.commands import ROOT

README = (ROOT / "README.md").read_text()


def test_every_path_it_names_exists():
    named = set(
        re.findall(r"(?<![\w./])((?:harness|model_zoo|conf|tests|results|notebooks)/[\w./-]+\.(?:py|yaml|md))", README)
    )
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists() and "mine" not in path] == []


def test_every_command_and_make_target_exists():
    assert set(re.findall(r"capbench (\w+)", README)) - {"COMMAND"} <= set(COMMANDS)
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert f"\n{target}:" in makefile or target == "The", target


def test_every_run_command_composes():
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in blocks.splitlines() if "capbench run" in line]
    commands = [words for words in commands if "--config-dir" not in words]  # a folder of the reader's own
    assert len(commands) >= 3
    asked = [parse("run", w[w.index("run") + 1 :], multirun=True, cfg=True, dry_run=True) for w in commands]
    nodes = {}
    for overrides, multirun in dict.fromkeys((tuple(one.overrides), one.multirun) for one in asked):
        for cell in config.cells("run", overrides, multirun=multirun):
            nodes |= {(group, repr(cell.config[group])): cell for group in GROUPS}
    for (group, _), cell in nodes.items():  # each once, not in every cell of a sweep
        config.build(cell, group)


def test_every_model_strategy_and_dataset_is_listed():
    for group in ("model", "lora", "dataset", "protocol"):
        for name in groups()[group]:
            assert f"`{name}`" in README, name


def test_the_tree_names_the_rooms_there_are():
    tree = README[README.index("## Working on it") :]
    tree = tree[tree.index("```") :].split("```")[1]
    named = set(re.findall(r"\b(\w+)/", tree))
    rooms = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    assert rooms <= named
    assert all(
        (ROOT / name).is_dir()
        or (ROOT / "harness" / name).is_dir()
        or (ROOT / "tests" / name).is_dir()
        or (ROOT / "model_zoo" / name).is_dir()
        or (ROOT / "results" / name).is_dir()
        for name in named
    )
