"""A question must not give its own answer away: prompts into which the reference caption leaked are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from harness.contracts import Query, RequestError

RUN = 5
"""So many words of the caption in a row are no chance: labels and what stands around them have two to four words, and
of the words that radiology repeats ("in the left lung") hardly more follow each other by themselves."""

LEAST = 3
"""A caption of fewer words says no more than a label does ("CT", "Chest X-ray") and is not looked for."""

BREAK = " / "  # between the words on both sides of a label, so that no run goes across it


def refuse_leaks(queries: Sequence[Query], style: str) -> None:
    """Raise RequestError where a question contains RUN words of its sample's caption in a row, or all of a short one.

    Innocent are words of the label itself, as long as it is no run, and what is asked of every sample of the split.
    """
    innocent: set[str] = set()
    for query in queries:
        for run in _runs(query.sample.caption):
            if run not in innocent and _found(run, query):
                if not _common(run, queries):
                    raise RequestError(
                        f"prompt={style}: the question for sample {query.sample.id} has words of its reference "
                        f"caption, {run.strip()!r}; expected one that does not know the answer: change the prompt "
                        "style or the source of the label"
                    )
                innocent.add(run)


def _runs(caption: str) -> Iterator[str]:
    """Every run of RUN words; of a shorter caption the whole, from LEAST words on."""
    words = _words(caption)
    for start in range(max(1, len(words) - RUN + 1) if len(words) >= LEAST else 0):
        yield f" {' '.join(words[start : start + RUN])} "


def _found(run: str, query: Query) -> bool:
    label = query.label or ""
    return run in _asked(query.prompt, label) or (run.count(" ") > RUN and run in f" {' '.join(_words(label))} ")


def _common(run: str, queries: Sequence[Query]) -> bool:
    """Whether every sample is asked this. Of a single one nobody knows."""
    return len(queries) > 1 and all(_found(run, query) for query in queries)


@lru_cache(maxsize=1024)  # most samples of a split share a handful of questions
def _asked(prompt: str, label: str) -> str:
    """The words of a question without those of the label, blanks at both ends."""
    words = f" {' '.join(_words(prompt))} "
    named = " ".join(_words(label))
    return words.replace(f" {named} ", BREAK) if named else words


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
