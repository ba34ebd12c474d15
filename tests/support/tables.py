"""Pictures and ledgers for tests of tables."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = ("image", "caption")


def picture(path: Path, value=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return path


def png(value) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def reasons(split):
    return {rejected.id: rejected.reason for rejected in split.rejected}


AWKWARD = 'He said: "no, two"\nlines; a\u2028separator, ünïcödé'
ROWS = [("a.png", f" {AWKWARD}\n", "train"), ("b.png", "B.", "val"), ("c.png", "C.", "TEST")]
