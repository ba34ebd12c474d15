"""`capbench COMMAND --help`: one text for every option, which is the line of its yaml, and at once."""

import os
import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import pytest
import yaml

from harness import config
from harness.choices import conf_dir, groups, options_of
from harness.cli import COMMANDS, WIDTH, main
from tests.support.commands import clean

FILES = {
    command: [path for path in sorted(conf_dir().glob("*.yaml")) if path.stem.split("_")[0] == command]
    for command in COMMANDS
}
ALL = [path.stem for files in FILES.values() for path in files]


def of_yaml(name):
    """Key -> default of an option, group -> choice, as a yaml parser reads them."""
    values = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text())
    chosen = [entry for entry in values.pop("defaults", []) if isinstance(entry, dict)]
    return values, {key: value for entry in chosen for key, value in entry.items()}


def said(command, capsys):
    assert main([command, "--help"]) == 0
    return capsys.readouterr().out


def test_every_yaml_belongs_to_one_command():
    assert sorted(ALL) == sorted(path.stem for path in conf_dir().glob("*.yaml"))
    assert [command for command, files in FILES.items() if not files] == ["list"]


@pytest.mark.parametrize("name", ALL)
def test_the_lines_of_a_yaml_are_all_its_options_each_with_a_meaning(name):
    values, chosen = of_yaml(name)
    found = options_of(name)
    for one in found:
        value = {**values, **chosen}[one.key]
        assert yaml.safe_load(one.default) == value or str(value).startswith("${"), one.key
    assert [one.key for one in found if not one.group] == list(values)
    assert [one.key for one in found if one.group] == list(chosen)
    assert [one.key for one in found if len(one.comment) < 4] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_key_with_its_default_and_its_meaning(command, capsys):
    text = said(command, capsys)
    assert f"usage: capbench {command}" in text
    assert text.startswith(f"capbench {command}: ")
    words = " ".join(text.split())
    for path in FILES[command]:
        values, chosen = of_yaml(path.stem)
        for one in options_of(path.stem):
            assert f"\n  {one.key}={one.default}" in text
            assert one.comment in words, one.key
        assert [key for key in {**chosen, **values} if f"\n  {key}=" not in text] == []
        assert [choice for group in chosen for choice in groups()[group] if choice not in words] == []
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert [group for group in groups() if f"{{{group}}}" in text.replace("${", "")] == []


def test_the_defaults_of_a_command_are_those_that_help_shows():
    shown = {one.key: one.default for one in options_of("show")}
    assert config.default("show", "trials") == config.default("leaderboard", "trials") == int(shown["trials"])
    module = import_module("harness.commands.verify")
    settings = config.options("verify", [], module.Settings)
    assert settings.permutations == config.default("leaderboard", "permutations")


@pytest.mark.parametrize("name", [name for name in ALL if not of_yaml(name)[1]])
def test_settings_are_the_keys_of_the_yaml(name):
    schema = import_module(COMMANDS[name]).Settings
    assert [field.name for field in fields(schema)] == list(of_yaml(name)[0])


@pytest.mark.parametrize("command", ["--help", *COMMANDS])
def test_help_is_instant(command):
    """Processor time of a whole process, so that a busy machine does not count."""
    words = [command] if command == "--help" else [command, "--help"]
    before = os.times()
    subprocess.run([sys.executable, "-m", "harness.cli", *words], env=clean(), capture_output=True, check=True)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.3


def test_the_overview_says_what_every_command_does(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {command:12} ")]
        assert len(line) > 30, command
