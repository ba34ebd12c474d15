"""One thing by a name that people type: exact, or a prefix that stands for nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TypeVar

from harness.contracts import RequestError

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
                raise RequestError(f"{text}: stands for {len(found)}: {_some(list(found))}; give more of the name")
            if found:
                return next(iter(found.values()))
    known = list(dict.fromkeys(label(thing) for pairs in rounds for _, thing in pairs))
    raise RequestError(f"{text}: expected the id, the folder or a prefix of a run or fit; {_nearest(text, known)}")


def _nearest(text: str, known: Sequence[str]) -> str:
    if not known:
        return "there is none at all; start with `capbench run`"
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    return f"the nearest are {', '.join(close)}" if close else f"there is {_some(known)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
