"""Where the conf/ tree is and what it offers. Standard library only, so that `--help` is instant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.contracts import RequestError


def conf_dir() -> Path:
    """The conf folder: beside the packages in a checkout, inside the package in an installed wheel."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def own_conf(path: str) -> Path:
    """A user's own folder of yaml files. Raises RequestError where there is none."""
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise RequestError(f"--config-dir {path}: expected a folder with yaml files, found none")
    return folder


def groups(extra: Path | None = None) -> dict[str, list[str]]:
    """Group name -> names of its choices, over conf/ and, where given, a user's own folder."""
    found: dict[str, set[str]] = {}
    for root in filter(None, (conf_dir(), extra)):
        for path in root.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(found.items())}


def first_comment(group: str, name: str) -> str:
    """What the first line of a choice's file in conf says of it; empty where there is no such file or line."""
    path = conf_dir() / group / f"{name}.yaml"
    if name not in groups().get(group, ()):
        return ""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


GROUP_OF = {"strategy": "lora"}
"""Column of a table -> group of conf/, where one thing has two names. The command line understands both."""


@dataclass(frozen=True)
class Option:
    """One option of a command, as its yaml has it: key, default and comment. `group`: it chooses a file of conf/KEY."""

    key: str
    default: str
    comment: str
    group: bool


OPTION = re.compile(r'(  - )?"?(\w+)"?: (.+?)(?: # (.*))?')
SAME = re.compile(r"\$\{(\w+)\.(\w+)\}")


def options_of(name: str) -> list[Option]:
    """The options in conf/NAME.yaml, one a line, read as text.

    A default such as ${leaderboard.trials} is that of another command's option, whose comment stands where none is.
    """
    found = []
    for line in (conf_dir() / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if match := OPTION.fullmatch(line):
            group, key, default, comment = match.groups()
            same = SAME.fullmatch(default)
            if same and (conf_dir() / f"{same[1]}.yaml").is_file():
                other = option_of(same[1], same[2])
                default, comment = other.default, comment or other.comment
            found.append(Option(key, default, comment or "", bool(group)))
    return found


def option_of(name: str, key: str) -> Option:
    """One option of conf/NAME.yaml."""
    return next(one for one in options_of(name) if one.key == key)


def meant(name: str, known: Iterable[str]) -> str:
    """The end of an error's sentence: the known name that comes closest, nothing where none does."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


SHOWN = 8  # names in a message


T = TypeVar("T")


def pick(text: str, rounds: Sequence[Sequence[tuple[str, T]]], label: Callable[[T], str]) -> T:
    """What `text` names among (name, thing) pairs: exactly in any round, or as a prefix; an earlier round wins.

    Raises RequestError that lists what an ambiguous prefix stands for or, where nothing fits, the nearest names.
    """
    for same in (str.__eq__, str.startswith):
        for pairs in rounds:
            found = {label(thing): thing for name, thing in pairs if same(name, text)}
            if len(found) > 1:
                raise RequestError(f"{text}: stands for {len(found)}: {some(list(found))}; give more of the name")
            if found:
                return next(iter(found.values()))
    known = list(dict.fromkeys(label(thing) for pairs in rounds for _, thing in pairs))
    raise RequestError(f"{text}: expected the id, the folder or a prefix of a run or fit; {_nearest(text, known)}")


def _nearest(text: str, known: Sequence[str]) -> str:
    if not known:
        return "there is none at all; start with `capbench run`"
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    return f"the nearest are {', '.join(close)}" if close else f"there is {some(known)}"


def some(names: Sequence[str], most: int = SHOWN) -> str:
    """The first names and how many more there are: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
