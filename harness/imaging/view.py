"""View: the picture that is taken out of a file with more than one, by frame, slice, plane and window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

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
    expected = ("frame", "volume", "plane", "window")
    if set(values) - set(expected):
        raise RequestError(f"dataset.view: expected {', '.join(expected)}, got {', '.join(map(str, values))}")
    frame, volume, plane, window = (values.get(name) for name in expected)
    for name, number in (("frame", frame), ("volume", volume)):
        if number is not None and (not isinstance(number, int) or number < 0):
            raise RequestError(f"dataset.view.{name}: expected a number from 0 on or null, got {number!r}")
    if plane is not None and plane not in get_args(Plane):
        raise RequestError(f"dataset.view.plane: expected one of {', '.join(get_args(Plane))}, got {plane!r}")
    if window is not None and window not in WINDOWS:
        raise RequestError(f"dataset.view.window: expected one of {', '.join(WINDOWS)} or null, got {window!r}")
    return View(
        frame=frame if isinstance(frame, int) else None,
        volume=volume if isinstance(volume, int) else 0,
        plane=next((name for name in get_args(Plane) if name == plane), "axial"),
        window=WINDOWS.get(str(window)),
    )
