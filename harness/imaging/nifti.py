"""NIfTI volumes: one slice to 8-bit RGB as radiologists see it, the patient's left on the picture's right."""

from __future__ import annotations

import gzip
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.contracts import ImageError
from harness.imaging.grey import MAX_PIXELS, rgb, stretched, windowed
from harness.imaging.view import View
from harness.machine.pillow import DAMAGE, reason

AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The world axis (+x right, +y front, +z head) that a plane is cut across."""

MAX_VOLUME = 1 << 33
"""Bytes: compressed files are unpacked up to the slice asked for, so that the header's claim is what they may cost."""

GZIP = b"\x1f\x8b"


def is_nifti(head: bytes) -> bool:
    """By the magic words of versions 1 and 2; of what is compressed here, only NIfTI is known."""
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0" or head[:2] == GZIP


def decode_nifti(stream: BinaryIO, view: View) -> Image.Image:
    """The slice as RGB with square pixels. Raises ImageError."""
    try:
        import nibabel
    except ImportError:
        raise ImageError("NIfTI needs the package nibabel: pip install 'capbench[nifti]'") from None
    damage: tuple[type[Exception], ...] = (*DAMAGE, *own_errors(nibabel))
    try:
        values, spacing = cut(nibabel, unpacked(stream), view)
    except damage as error:
        raise ImageError(f"NIfTI file cannot be decoded: {reason(error)}") from error
    picture = rgb(Image.fromarray(grey(values, view)))
    return square(picture, *spacing)


def own_errors(nibabel: Any) -> tuple[type[Exception], ...]:
    """nibabel's own errors about damaged files, which have no common base."""
    return (
        nibabel.filebasedimages.ImageFileError,
        nibabel.orientations.OrientationError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.spatialimages.HeaderTypeError,
        nibabel.spatialimages.ImageDataError,
        nibabel.wrapstruct.WrapStructError,
    )


def unpacked(stream: BinaryIO) -> BinaryIO:
    """The stream behind gzip, if there is one."""
    head = stream.read(2)
    stream.seek(0)
    return gzip.GzipFile(fileobj=stream) if head == GZIP else stream  # type: ignore[return-value]


def cut(nibabel: Any, stream: BinaryIO, view: View) -> tuple[NDArray[Any], tuple[float, float]]:
    """Values [height, width] of one slice and the spacing of rows and columns; nothing else is read of the volume."""
    head = stream.read(8)
    stream.seek(0)
    kind = nibabel.Nifti2Image if head[4:8] == b"n+2\0" else nibabel.Nifti1Image
    image = kind.from_stream(stream)
    check(image)
    if len(image.shape) == 4:
        if view.volume >= image.shape[3]:
            raise ImageError(f"volume {view.volume} was asked for, the file has {image.shape[3]}")
        image = image.slicer[..., view.volume]
    axes = nibabel.io_orientation(image.affine)
    axis = [int(world) for world in axes[:, 0]].index(AXIS[view.plane])
    count = image.shape[axis]
    index = view.index(count) if axes[axis, 1] > 0 else count - 1 - view.index(count)
    slab = [slice(None)] * 3
    slab[axis] = slice(index, index + 1)
    thin = nibabel.as_closest_canonical(image.slicer[tuple(slab)])
    plane = np.asarray(thin.dataobj).squeeze(AXIS[view.plane])
    across, down = np.delete(thin.header.get_zooms()[:3], AXIS[view.plane])
    return np.flip(plane.T), (float(down), float(across))  # right, front and head come first: left is on the right


def check(image: Any) -> None:
    """Refuses what is no grey volume, or too large."""
    shape = image.shape
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ImageError(f"NIfTI data of {' x '.join(map(str, shape))}: expected a volume, or a series of volumes")
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        raise ImageError(f"NIfTI values of type {kind}: expected numbers of one channel")
    if np.prod(shape, dtype=float) * kind.itemsize > MAX_VOLUME:
        raise ImageError(f"NIfTI data of {' x '.join(map(str, shape))}, more than {MAX_VOLUME} bytes")
    if np.prod(sorted(shape[:3])[1:], dtype=float) > MAX_PIXELS:
        raise ImageError(f"slice of {' x '.join(map(str, shape))} voxels, more than {MAX_PIXELS} pixels")


def grey(values: NDArray[Any], view: View) -> NDArray[np.uint8]:
    """Through the view's window (of CT volumes in Hounsfield units), else between the 0.5 and 99.5 percentiles."""
    return windowed(values, *view.window) if view.window else stretched(values, values[np.isfinite(values)])


def square(picture: Image.Image, down: float, across: float) -> Image.Image:
    """Stretched to square pixels of the finer spacing; as it is where the file's spacing makes no sense."""
    if not (0 < down < np.inf and 0 < across < np.inf) or abs(down / across - 1) < 0.01:
        return picture
    finer = min(down, across)
    size = round(picture.width * across / finer), round(picture.height * down / finer)
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f"slice of {size[0]} x {size[1]} square pixels, more than {MAX_PIXELS}")
    return picture.resize(size, Image.Resampling.BILINEAR)
