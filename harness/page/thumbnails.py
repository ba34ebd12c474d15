"""Pictures of chosen samples, small enough for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from harness.contracts import CapBenchError, ImageError, ImageSource, Split

SIDE = 256  # pixels of the longer side
QUALITY = 78


def pictures(samples: Sequence[Mapping[str, Any]], load: Callable[[], Split]) -> tuple[dict[str, str], str]:
    """id -> data URI, and why pictures are missing; empty where none is.

    The data are those that the run names; where they are elsewhere or have changed, the page goes without them.
    """
    try:
        found = {sample.id: sample for sample in load().samples}
    except (CapBenchError, OSError, ImportError) as error:
        return {}, f"no pictures: the data of the runs cannot be read on this machine ({error})"
    made: dict[str, str] = {}
    problems: list[str] = []
    for row in samples:
        sample = found.get(row["id"])
        if sample is None or sample.caption != row["reference"]:
            problems.append(f"{row['id']} is not, or not the same, in the data on this machine")
            continue
        try:
            made[row["id"]] = thumbnail(sample.images[0])
        except (ImageError, OSError) as error:
            problems.append(f"{row['id']}: {error}")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return made, f"no picture of {problems[0]}{more}" if problems else ""


def thumbnail(source: ImageSource) -> str:
    """A data URI of the picture. Raises ImageError."""
    image = source.load()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
