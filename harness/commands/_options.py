"""The few flags beside KEY=VALUE overrides, read the same way by every command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.choices import GROUP_OF
from harness.contracts import RequestError

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
    flags = {"--config-dir", "-cd"} | ({"-m", "--multirun"} if multirun else set())
    flags |= ({"--cfg"} if cfg else set()) | ({"--dry-run"} if dry_run else set())
    overrides: list[str] = []
    found: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(_renamed(word, names))
        elif name not in flags:
            raise RequestError(
                f"{word}: no such flag; expected {', '.join(sorted(flags))}; see `capbench {command} --help`"
            )
        elif name in ("--config-dir", "-cd"):
            if not value and not rest:
                raise RequestError(f"{name}: expected a folder after it")
            found["config_dir"] = value or rest.pop(0)
        else:
            found[name.lstrip("-")] = "yes"
    return Arguments(
        overrides, "m" in found or "multirun" in found, "cfg" in found, "dry-run" in found, found.get("config_dir")
    )


def _renamed(word: str, names: Mapping[str, str]) -> str:
    parts = OVERRIDE.fullmatch(word)
    return word if parts is None else parts[1] + names.get(parts[2], parts[2]) + parts[3]


def words(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split what stands on its own, such as the name of a run, from KEY=VALUE."""
    return [text for text in overrides if "=" not in text], [text for text in overrides if "=" in text]
