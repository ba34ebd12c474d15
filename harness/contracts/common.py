"""Errors and marks that every contract shares."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

RUNTIME = "runtime"
"""Marks a value that cannot change captions or scores: ``workers: Annotated[int, RUNTIME]``.

Whatever a plug-in's constructor takes is identity (part of the hashes) unless it carries this mark, so that a
forgotten mark costs a repeated computation and never a wrong reuse.
"""

Positive = Annotated[int, Ge(1)]
NonNegative = Annotated[int, Ge(0)]
"""A range in an annotation is checked where a plug-in or the options of a command are built from a configuration."""


REGIONS = ("vision", "connector", "language", "head", "embeddings")


UNKNOWN = "unknown"


GREY = "grey"
"""Key of a decoded picture's `info`: true where its three channels are known to be alike, so that one says all."""


SPLITS = ("train", "valid", "test")


class CapBenchError(Exception):
    """Something went wrong that the message explains: what was expected, what came, what to do."""


class RequestError(CapBenchError):
    """The request itself is wrong (a name, an option, a file): exit code 2, nothing was run."""


class Refused(RequestError):
    """A combination that has no meaning, such as LoRA on a baseline's untrained decoder. Documented, not a failure."""


class ImageError(CapBenchError):
    """A picture cannot be read. Carries the reason, never the patient."""
