"""The few flags beside KEY=VALUE overrides, read the same way by every command."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.choices import GROUP_OF
from harness.contracts import RequestError

FOLDER = ("--config-dir", "-cd")
SWITCHES = {"-m": "multirun", "--multirun": "multirun", "--cfg": "cfg", "--dry-run": "dry_run"}
OVERRIDE = re.compile(r"([+~]*)(\w+)((?:\.[\w.]+)?=.*)", re.DOTALL)


@dataclass(frozen=True)
class Arguments:
    """What stands on the command line after the command's name."""

    overrides: list[str]
    multirun: bool = False
    cfg: bool = False
    dry_run: bool = False
    config_dir: str | None = None


def parse(
    command: str,
    argv: Sequence[str],
    *,
    multirun: bool = False,
    cfg: bool = False,
    dry_run: bool = False,
    names: Mapping[str, str] = GROUP_OF,
) -> Arguments:
    """Split flags from overrides. Raises RequestError on a flag the command does not have.

    names: the command's own words for keys that have two, strategy=NAME for lora=NAME.
    """
    allowed = {"multirun": multirun, "cfg": cfg, "dry_run": dry_run}
    switches = {flag: name for flag, name in SWITCHES.items() if allowed[name]}
    overrides: list[str] = []
    found: dict[str, Any] = {}
    rest = iter(argv)
    for word in rest:
        flag, _, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(_renamed(word, names))
        elif flag in switches:
            found[switches[flag]] = True
        elif flag in FOLDER:
            found["config_dir"] = value or next(rest, None)
            if not found["config_dir"]:
                raise RequestError(f"{flag}: expected a folder after it")
        else:
            flags = ", ".join(sorted({*FOLDER, *switches}))
            raise RequestError(f"{word}: no such flag; expected {flags}; see `capbench {command} --help`")
    return Arguments(overrides, **found)


def _renamed(word: str, names: Mapping[str, str]) -> str:
    parts = OVERRIDE.fullmatch(word)
    return word if parts is None else parts[1] + names.get(parts[2], parts[2]) + parts[3]


def as_text(word: str, keys: Collection[str]) -> str:
    """KEY=VALUE with the value of these keys in quotes: a glob (model=*vl) is no yaml, an id may read like a number."""
    key, found, value = word.partition("=")
    return f"{key}={json.dumps(value)}" if found and key in keys else word


def words(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split what stands on its own, such as the name of a run, from KEY=VALUE."""
    return [text for text in overrides if "=" not in text], [text for text in overrides if "=" in text]


def with_runs(results: str, *others: str) -> Path:
    """The folder of results. Raises RequestError where there are no runs in it and no other records."""
    folder = Path(results)
    if not any((folder / kind).is_dir() for kind in ("runs", *others)):
        raise RequestError(f"results={folder}: expected a folder with runs, found none; start with `capbench run`")
    return folder


def found_in(overrides: Sequence[str], schema: type) -> tuple[list[str], list[str]]:
    """Split the options of a command itself from those of the cells that it composes."""
    own = [text for text in overrides if text.partition("=")[0] in schema.__annotations__]
    return own, [text for text in overrides if text not in own]
