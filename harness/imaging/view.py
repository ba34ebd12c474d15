"""View: the picture that is taken out of a file with more than one, by frame, slice, plane and window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from harness.contracts import ImageError, RequestError

Plane = Literal["axial", "coronal", "sagittal"]

WINDOWS = {"soft_tissue": (40.0, 400.0), "lung": (-600.0, 1500.0), "bone": (300.0, 1500.0), "brain": (40.0, 80.0)}
"""Level and width in Hounsfield units."""


@dataclass(frozen=True)
class View:
    """`frame` of several frames, pages or slices, counted from 0 (None: the middle one); `volume` of a NIfTI series.

    `plane` cuts NIfTI volumes; `window` (level, width) replaces that of CT files and is used for NIfTI.
    """

    frame: int | None = None
    volume: int = 0
    plane: Plane = "axial"
    window: tuple[float, float] | None = None

    def index(self, count: int) -> int:
        """The frame to take of so many; a lone one is always taken. Raises ImageError when there are too few."""
        if self.frame is None or count == 1:
            return (count - 1) // 2
        if self.frame >= count:
            raise ImageError(f"frame {self.frame} was asked for, the file has {count} (0 to {count - 1})")
        return self.frame


PLAIN = View()


def view_of(values: Mapping[str, int | str | None]) -> View:
    """The view that a yaml describes. Raises RequestError."""
    expected = [one.name for one in fields(View)]
    if set(values) - set(expected):
        raise RequestError(f"dataset.view: expected {', '.join(expected)}, got {', '.join(map(str, values))}")
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name in ("frame", "volume"):
        number = given.get(name, 0)
        if not isinstance(number, int) or number < 0:
            raise RequestError(f"dataset.view.{name}: expected a number from 0 on or null, got {number!r}")
    if given.get("plane", "axial") not in get_args(Plane):
        raise RequestError(f"dataset.view.plane: expected one of {', '.join(get_args(Plane))}, got {given['plane']!r}")
    window = given.pop("window", None)
    if window is not None and window not in WINDOWS:
        raise RequestError(f"dataset.view.window: expected one of {', '.join(WINDOWS)} or null, got {window!r}")
    return View(**given, window=WINDOWS.get(window))
