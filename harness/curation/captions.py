"""Captions: damage in their texts, and those that are there twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.contracts import Sample
from harness.curation.problems import Problem

WINDOWS = {byte: bytes([byte]).decode("cp1252", errors="ignore") for byte in range(0x80, 0xC0)}
AFTER = "[" + "".join(map(re.escape, WINDOWS.values())) + "\x80-\xbf]"
MOJIBAKE = re.compile(f"[\xc2-\xcf]{AFTER}|[\xe2\xef]{AFTER}{{2}}|\xf0{AFTER}{{3}}")
"""UTF-8 that was read as Windows' or plain Latin. Only the first bytes that typography, Latin, Greek and Cyrillic
letters have: with all of them, French words before a closing quote would be damage, too."""
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")
LINE_BREAK = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # where str.splitlines cuts, as evaluators do
GLUED = re.compile(r"[a-z)]\.[A-Z][\w-]*:")  # "... jugular vein.CT: computed tomography"
SHOWN = 60  # characters of a caption in a detail


def caption_damage(text: str) -> Iterator[tuple[str, str]]:
    """(kind, detail) of each sort of damage in a caption, each sort once."""
    if not text.strip():
        yield "empty_caption", "the caption is empty"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        yield "unwritable_caption", f"half of a surrogate pair in {_shown(text)}"
    if found := MOJIBAKE.search(text):
        yield "mojibake", f"{_shown(found[0])} in {_shown(text)}"
    if "\ufffd" in text:
        yield "replacement_character", f"{text.count(chr(0xFFFD))} lost characters in {_shown(text)}"
    if found := CONTROL.search(text):
        yield "control_character", f"U+{ord(found[0]):04X} at place {found.start() + 1}"
    if found := LINE_BREAK.search(text):
        yield "line_break", f"U+{ord(found[0]):04X} at place {found.start() + 1}"
    if found := GLUED.search(text):
        yield "glued_text", _shown(text[max(0, found.start() - 20) :])


def duplicate_captions(samples: Sequence[tuple[str, Sample]]) -> Iterator[Problem]:
    """Every caption after the first one with the same words, over all splits. Case and blanks make no difference."""
    first: dict[str, tuple[str, str]] = {}
    for split, sample in samples:
        key = " ".join(sample.caption.split()).casefold()
        before = first.setdefault(key, (split, sample.id)) if key else (split, sample.id)
        if before != (split, sample.id):
            yield Problem(
                split, sample.id, "duplicate_caption", f"as {before[0]}:{before[1]}: {_shown(sample.caption)}"
            )


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
