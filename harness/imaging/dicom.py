"""DICOM files to 8-bit RGB. Section numbers are of the DICOM standard, part 3.

Order: decode -> rescale or modality table -> window -> 8 bit -> invert MONOCHROME1.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from harness.contracts import UNKNOWN, ImageError
from harness.imaging.grey import MAX_PIXELS, rgb, stretched, to_uint8, value_range, windowed
from harness.imaging.modalities import MODALITY_OF_DICOM
from harness.imaging.view import WINDOWS, View
from harness.machine.pillow import DAMAGE, reason

NO_PICTURE = ("SEG", "SR", "PR", "KO", "ECG", "RT")
"""Modality codes (RT: all that begin so) whose pixels, if any, are no picture of a patient."""

Window = tuple[float, float] | None  # level, width

PALETTE = [f"{c}PaletteColorLookupTable{part}" for c in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")]
TAGS = [
    "Modality",
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *PALETTE,
    *(f"Segmented{c}PaletteColorLookupTableData" for c in ("Red", "Green", "Blue")),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
]
"""The only elements that are read, so that no message can name a patient."""

FAULTS = (*DAMAGE, InvalidDicomError)


def decode_dicom(stream: BinaryIO, view: View) -> Image.Image:
    """The picture as RGB; of several frames the view's. Raises ImageError."""
    ds = read(stream, TAGS)
    try:
        check(ds)
        index = view.index(int(ds.get("NumberOfFrames") or 1))
        raw = pixel_array(ds, index=index)  # YBR arrives as RGB
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            values = palette(ds, raw)
        else:
            values = colour(ds, raw) if raw.ndim == 3 else grey(ds, raw, index, view.window)
        return rgb(Image.fromarray(np.ascontiguousarray(values)))
    except FAULTS as error:
        kind = ds.file_meta.TransferSyntaxUID.name
        raise ImageError(f"DICOM pixels cannot be decoded ({kind}): {reason(error)}") from error


def modality_of_dicom(stream: BinaryIO) -> str:
    """The display name of the file's modality, "unknown" where it has none or an unlisted one. Raises ImageError."""
    return MODALITY_OF_DICOM.get(code_of(read(stream, ["Modality"], pixels=False)), UNKNOWN)


def read(stream: BinaryIO, tags: list[str], *, pixels: bool = True) -> Dataset:
    """The named elements only. Without preamble (`force`) and without transfer syntax too: old files lack both."""
    try:
        ds = dcmread(stream, force=True, specific_tags=list(tags), stop_before_pixels=not pixels)
    except FAULTS as error:
        # Not chained: a parser's own message may quote what it stumbled over.
        raise ImageError(f"not a readable DICOM file ({type(error).__name__})") from None
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if ds.original_encoding[0] else ExplicitVRLittleEndian
    return ds


def code_of(ds: Dataset) -> str:
    """DICOM's code of the modality, "" without one."""
    return str(ds.get("Modality") or "").strip().upper()


def check(ds: Dataset) -> None:
    """Refuses what is no picture, too large to be one, or compressed in a way that nothing here reads."""
    code = code_of(ds)
    if code in NO_PICTURE or code.startswith("RT"):
        raise ImageError(f"DICOM modality {code} is not a picture")
    if not any(name in ds for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError(f"DICOM file without pixel data{f' (modality {code})' if code else ''}")
    if int(ds.get("Rows") or 0) * int(ds.get("Columns") or 0) < 1:
        raise ImageError("DICOM file without the size of its picture")
    if int(ds.Rows) * int(ds.Columns) > MAX_PIXELS:
        raise ImageError(f"picture of {ds.Columns} x {ds.Rows} pixels, more than {MAX_PIXELS}")
    if not get_decoder(ds.file_meta.TransferSyntaxUID).is_available:
        name = ds.file_meta.TransferSyntaxUID.name
        raise ImageError(f"DICOM compression {name} needs the package python-gdcm: pip install 'capbench[dicom]'")


def palette(ds: Dataset, raw: NDArray[Any]) -> NDArray[np.uint8]:
    """Indices to colours; tables of 16 bit keep their upper 8."""
    colours = apply_color_lut(raw, ds)
    eight_bit: NDArray[np.uint8] = (colours >> 8 if colours.dtype == np.uint16 else colours).astype(np.uint8)
    return eight_bit[..., :3]


def colour(ds: Dataset, raw: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB of any depth: full scale is what the stored bits can hold."""
    if raw.shape[-1] != 3:
        raise ImageError(f"expected 1 or 3 DICOM samples per pixel, got {raw.shape[-1]}")
    bits = int(ds.BitsStored)
    return raw.astype(np.uint8) if bits == 8 else to_uint8(raw, 0, 2.0**bits - 1)


def grey(ds: Dataset, raw: NDArray[Any], index: int, window: Window) -> NDArray[np.uint8]:
    """One frame through rescale and window (for CT that of the view, if any); low is bright in MONOCHROME1."""
    values = real_values(ds, raw, index)
    if window and code_of(ds) == "CT":
        pixels = windowed(values, *window)
    elif ds.get("VOILUTSequence"):
        table = apply_voi_lut(np.rint(values).astype(np.int64), ds, index=0)
        pixels = to_uint8(table, *value_range(table))
    else:
        pixels = by_own_window(ds, raw, values, index)
    return 255 - pixels if ds.PhotometricInterpretation == "MONOCHROME1" else pixels


def real_values(ds: Dataset, raw: NDArray[Any], index: int) -> NDArray[np.float64]:
    """Stored numbers to real units (Hounsfield for CT)."""
    if ds.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(raw, ds), np.float64)
    slope = frame_value(ds, index, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = frame_value(ds, index, "PixelValueTransformationSequence", "RescaleIntercept")
    return raw * float(1 if slope is None else slope) + float(intercept or 0)


def by_own_window(ds: Dataset, raw: NDArray[Any], values: NDArray[np.float64], index: int) -> NDArray[np.uint8]:
    """The file's own window (C.11.2.1.2), else soft tissue for CT, else the 0.5 to 99.5 percentiles."""
    centre = frame_value(ds, index, "FrameVOILUTSequence", "WindowCenter")
    width = frame_value(ds, index, "FrameVOILUTSequence", "WindowWidth")
    function = frame_value(ds, index, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR"
    if centre is not None and width is not None and float(width) > (1 if function == "LINEAR" else 0):
        c, w = float(centre), float(width)
        if function == "SIGMOID":
            return to_uint8(1 / (1 + np.exp(np.clip(-4 * (values - c) / w, -50, 50))), 0, 1)
        if function == "LINEAR_EXACT":
            return windowed(values, c, w)
        return windowed(values, c - 0.5, w - 1)
    if code_of(ds) == "CT":
        return windowed(values, *WINDOWS["soft_tissue"])
    return stretched(values, values[~padding(ds, raw) & np.isfinite(values)])


def padding(ds: Dataset, raw: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels outside the examined field (C.7.5.1.1.2): one value, or a range of them."""
    first = ds.get("PixelPaddingValue")
    if first is None:
        return np.zeros(raw.shape, np.bool_)
    last = ds.get("PixelPaddingRangeLimit")
    low, high = sorted((int(first), int(first if last is None else last)))
    inside: NDArray[np.bool_] = (raw >= low) & (raw <= high)
    return inside


def frame_value(ds: Dataset, index: int, sequence: str, keyword: str) -> Any:
    """An attribute of one frame: enhanced files keep it per frame or shared, plain files at the top. None without.

    Of several windows the first.
    """
    per_frame = list(ds.get("PerFrameFunctionalGroupsSequence") or [])
    groups = per_frame[index : index + 1] + list(ds.get("SharedFunctionalGroupsSequence") or [])
    places = [item for group in groups for item in (group.get(sequence) or [])[:1]]
    for place in (*places, ds):
        value = place.get(keyword)
        if value is not None and value != "":
            return value if isinstance(value, str | float | int) else (list(value) or [None])[0]
    return None
