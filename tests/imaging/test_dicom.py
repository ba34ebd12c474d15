"""Real DICOM files to 8-bit RGB."""

import re
import struct
import traceback
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_rescale, apply_voi_lut, apply_windowing
from pydicom.sequence import Sequence

from harness.contracts import GREY, ImageError
from harness.imaging import dicom
from harness.imaging.files import FileImage
from harness.imaging.view import WINDOWS, View
from tests.support.dicom import close, dicom_data, dicom_file, full_range, loaded
from tests.support.images import BytesImage

# ---------------------------------------------------------------- DICOM: grey


def test_ct_without_window_gets_the_soft_tissue_window():
    ds = dicom_data("CT_small.dcm")
    hounsfield = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    pixels = np.asarray(FileImage(dicom_file("CT_small.dcm")).load())
    assert pixels.shape == (128, 128, 3)
    assert (pixels[..., 0] == full_range(hounsfield, 40 - 200, 40 + 200)).all()


@pytest.mark.parametrize("name", ["MR_small.dcm", "J2K_pixelrep_mismatch.dcm", "693_J2KI.dcm", "examples_overlay.dcm"])
def test_the_files_own_window_as_pydicom_applies_it(name):
    ds = dicom_data(name)
    reference = apply_voi_lut(apply_rescale(ds.pixel_array, ds), ds, index=0).astype(float)
    low = 0.0
    if ds.PixelRepresentation:  # pydicom's output range is that of the stored bits, after rescale
        low = -(2.0 ** (ds.BitsStored - 1))
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    high = low + 2.0**ds.BitsStored - 1
    expected = full_range(reference, low * slope + intercept, high * slope + intercept)
    ours = np.asarray(FileImage(dicom_file(name)).load())[..., 0]
    assert close(ours, expected)
    assert ours.std() > 10


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions(function, tmp_path):
    ds = dicom_data("MR_small.dcm")
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 500, 700, function
    ds.PixelRepresentation, ds.BitsStored = 0, 16
    reference = apply_windowing(ds.pixel_array, ds)
    assert close(loaded(ds, tmp_path), full_range(reference, 0, 2**16 - 1))


def test_monochrome1_is_inverted_after_the_window(tmp_path):
    ds = dicom_data("MR_small.dcm")
    plain = loaded(ds, tmp_path)
    ds.PhotometricInterpretation = "MONOCHROME1"
    assert (loaded(ds, tmp_path) == 255 - plain).all()


def test_without_window_the_percentiles_ignore_padding(tmp_path):
    ds = dicom_data("MR_small.dcm")
    del ds.WindowCenter, ds.WindowWidth
    values = ds.pixel_array.copy()
    values[:32] = -2000
    ds.PixelData = values.tobytes()
    ds.add_new("PixelPaddingValue", "SS", -2000)
    low, high = np.percentile(values[32:], (0.5, 99.5))
    assert (loaded(ds, tmp_path) == full_range(values, low, high)).all()
    ds.PixelPaddingValue = -3000
    ds.add_new("PixelPaddingRangeLimit", "SS", -1900)
    assert (loaded(ds, tmp_path) == full_range(values, low, high)).all()
    del ds.PixelPaddingValue, ds.PixelPaddingRangeLimit
    assert (loaded(ds, tmp_path) != full_range(values, low, high)).any()


@pytest.mark.parametrize("value", [0, 700])
def test_a_constant_picture_is_black_and_no_division_by_zero(value, tmp_path):
    ds = dicom_data("MR_small.dcm")
    del ds.WindowCenter, ds.WindowWidth
    ds.PixelData = np.full((64, 64), value, np.int16).tobytes()
    assert (loaded(ds, tmp_path) == 0).all()


def test_modality_and_voi_tables(tmp_path):
    ds = dicom_data("MR_small.dcm")
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 256
    ds.PixelData, ds.PixelRepresentation, ds.BitsStored = values.tobytes(), 0, 16
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [256, 0, 16], [4 * k for k in range(256)]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    ds.ModalityLUTSequence = Sequence([item])
    del ds.WindowCenter, ds.WindowWidth
    ds.VOILUTSequence = Sequence([Dataset()])
    ds.VOILUTSequence[0].LUTDescriptor = [1024, 0, 12]
    ds.VOILUTSequence[0].LUTData = [4095 - 4 * k for k in range(1024)]  # a falling table turns the picture over
    for keyword in ("LUTDescriptor", "LUTData"):
        ds.VOILUTSequence[0][keyword].VR = "US"
    expected = 4095 - 16 * values.astype(int)
    assert close(loaded(ds, tmp_path), full_range(expected, expected.min(), expected.max()))


def test_enhanced_files_keep_rescale_and_window_in_their_groups(tmp_path):
    ds = dicom_data("MR_small.dcm")
    values = np.stack([np.full((64, 64), frame, np.int16) for frame in (10, 20, 30)])
    values[:, :32] *= 2
    ds.NumberOfFrames, ds.PixelData = 3, values.tobytes()
    del ds.WindowCenter, ds.WindowWidth
    shared, frames = Dataset(), [Dataset() for _ in range(3)]
    transform = Dataset()
    transform.RescaleSlope, transform.RescaleIntercept = "2", "100"
    shared.PixelValueTransformationSequence = Sequence([transform])
    for frame, centre in zip(frames, ("0", "160", "0"), strict=True):
        window = Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = centre, "80", "LINEAR_EXACT"
        frame.FrameVOILUTSequence = Sequence([window])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    assert (loaded(ds, tmp_path) == full_range(values[1] * 2 + 100, 120, 200)).all()


# ---------------------------------------------------------------- DICOM: colour, frames, kinds


def test_rgb_arrives_unchanged():
    name = "examples_rgb_color.dcm"
    assert (np.asarray(FileImage(dicom_file(name)).load()) == dicom_data(name).pixel_array).all()


def test_palette_of_16_bit_keeps_the_upper_eight():
    ds = dicom_data("examples_palette.dcm")
    expected = apply_color_lut(ds.pixel_array, ds) >> 8
    pixels = np.asarray(FileImage(dicom_file("examples_palette.dcm")).load())
    assert (pixels == expected).all()
    assert np.ptp(pixels.astype(int), axis=2).max() > 50


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_rle_16bit.dcm"],
)
def test_colour_bars_come_out_in_their_colours(name):
    """The same bars in RGB, YBR, subsampled YBR and 16 bit: red on top, white at the bottom."""
    pixels = np.asarray(FileImage(dicom_file(name)).load()).astype(int)
    for row, expected in ((5, (255, 0, 0)), (25, (0, 255, 0)), (45, (0, 0, 255)), (65, (0, 0, 0)), (95, (255,) * 3)):
        assert np.abs(pixels[row, 50] - expected).max() <= 8, row


def test_jpeg2000_colours_match_the_uncompressed_original():
    small = FileImage(dicom_file("examples_jpeg2k.dcm")).load().resize((320, 240))
    original = np.asarray(FileImage(dicom_file("examples_rgb_color.dcm")).load()).astype(int)
    assert np.abs(np.asarray(small).astype(int) - original).mean() < 12


def test_the_middle_frame_is_taken():
    name = "examples_ybr_color.dcm"
    frames = dicom_data(name).pixel_array
    assert len(frames) == 30
    assert (np.asarray(FileImage(dicom_file(name)).load()) == frames[14]).all()
    assert not (frames[14] == frames[0]).all()


@pytest.mark.parametrize(
    ("code", "modality"),
    [("CT", "CT"), ("MR", "MRI"), ("US", "Ultrasound"), ("IVUS", "Ultrasound"), ("XA", "Angiography"), ("PT", "PET")]
    + [(code, "X-ray") for code in ("CR", "DX", "RG", "MG", "RF", "PX", "IO")]
    + [("NM", "unknown"), ("", "unknown"), (None, "unknown"), (" mr ", "MRI")],
)
def test_modality_of_a_file(code, modality, tmp_path):
    ds = dicom_data("MR_small.dcm")
    del ds.Modality
    if code is not None:
        ds.Modality = code
    loaded(ds, tmp_path)
    assert FileImage(tmp_path / "changed.dcm").modality() == modality


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("liver_1frame.dcm", "SEG is not a picture"),
        ("reportsi.dcm", "SR is not a picture"),
        ("rtdose.dcm", "RTDOSE is not a picture"),
        ("waveform_ecg.dcm", "ECG is not a picture"),
        ("MR_truncated.dcm", "8130 vs 8192 bytes"),
        ("no_meta.dcm", "without pixel data"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(name, words):
    with pytest.raises(ImageError, match=words):
        FileImage(dicom_file(name)).load()


def test_a_compression_that_nothing_here_reads_names_the_package(monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(ImageError, match=r"JPEG-LS.* needs the package python-gdcm: pip install 'capbench\[dicom\]'"):
        FileImage(dicom_file("MR_small_jpeg_ls_lossless.dcm")).load()


def packaged() -> list[Path]:
    """Every DICOM file that pydicom and pydicom-data bring, those without a suffix too."""
    import data_store

    folders = [dicom_file("CT_small.dcm").parent, Path(data_store.__file__).parent]
    return sorted(path for folder in folders for path in folder.rglob("*") if is_dicom(path))


def is_dicom(path: Path) -> bool:
    if not path.is_file() or path.name == "DICOMDIR":
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".dcm" or file.read(132)[128:] == b"DICM"


def test_every_packaged_dicom_file_loads_or_says_why():
    paths = packaged()
    assert len(paths) >= 150
    reasons = []
    for path in paths:
        try:
            image = FileImage(path).load()
        except ImageError as error:
            reasons.append(str(error))
            continue
        assert image.mode == "RGB"
    assert len(paths) - len(reasons) >= 140, "134 without python-gdcm"
    kinds = (
        r"DICOM modality \w+ is not a picture",
        r"DICOM file without pixel data( \(modality \w+\))?",
        r"DICOM file without the size of its picture",
        r"DICOM pixels cannot be decoded \(.+\): .+",
        r"not a picture, or a damaged one: .+",
    )
    for reason in reasons:
        assert any(re.fullmatch(kind, reason) for kind in kinds), reason
        assert len(reason) < 300
    assert sum("cannot be decoded" in reason for reason in reasons) <= 7


def test_grey_pictures_say_so_and_coloured_ones_do_not(tmp_path):
    for mode, alike in (("L", True), ("1", True), ("I;16", True), ("RGB", False), ("P", False)):
        path = tmp_path / f"{mode.replace(';', '')}.png"
        Image.effect_noise((20, 10), 50).convert(mode).save(path)
        image = FileImage(path).load()
        assert image.info[GREY] is alike
        assert not alike or image.getchannel(0).tobytes() == image.getchannel(2).tobytes()


def test_no_message_and_no_memory_holds_the_patient(tmp_path):
    ds = dicom_data("MR_truncated.dcm")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "SECRET^NAME", "SECRET-ID", "19010101"
    path = tmp_path / "a.dcm"
    ds.save_as(path)
    with pytest.raises(ImageError) as caught:
        FileImage(path).load()
    told = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in told
    with path.open("rb") as stream:
        read = dicom.read(stream, dicom.TAGS)
    assert "Rows" in read
    assert not [element for element in read if "Patient" in element.name]


def test_files_without_preamble_and_transfer_syntax(tmp_path):
    raw = dicom_file("MR_small_implicit.dcm").read_bytes()
    ds = dicom_data("MR_small_implicit.dcm")
    start = raw.index(struct.pack("<HH", 0x0008, 0x0005)) if "SpecificCharacterSet" in ds else None
    start = start or raw.index(struct.pack("<HH", 0x0008, 0x0008))
    path = tmp_path / "bare.dcm"
    path.write_bytes(raw[start:])
    expected = np.asarray(FileImage(dicom_file("MR_small.dcm")).load())
    assert (np.asarray(FileImage(path).load()) == expected).all()


def test_dicom_is_told_by_content_not_by_name(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(dicom_file("CT_small.dcm").read_bytes())
    assert FileImage(path).load().size == (128, 128)
    assert FileImage(path).modality() == "CT"
    assert BytesImage(path.read_bytes()).load().size == (128, 128)


# ---------------------------------------------------------------- views


def test_a_window_of_the_view_replaces_that_of_a_ct_and_of_nothing_else(tmp_path):
    """Water (0 HU) in the brain window, 40 +- 40, is black; 40 HU is the middle; 80 HU is white."""
    ds = dicom_data("CT_small.dcm")
    hounsfield = np.tile(np.array([0, 40, 80, -1000], np.int16), (128, 32))
    ds.PixelData = (hounsfield - int(ds.RescaleIntercept)).astype(np.int16).tobytes()
    ds.WindowCenter, ds.WindowWidth = 1000, 10
    ds.save_as(tmp_path / "a.dcm")
    view = View(window=WINDOWS["brain"])
    assert np.asarray(FileImage(tmp_path / "a.dcm", view=view).load())[0, :4, 0].tolist() == [0, 128, 255, 0]
    assert np.asarray(FileImage(tmp_path / "a.dcm").load())[0, :4, 0].tolist() == [0, 0, 0, 0]
    other = dicom_file("MR_small.dcm")
    assert (np.asarray(FileImage(other, view=view).load()) == np.asarray(FileImage(other).load())).all()


def test_soft_tissue_on_checked_pixels():
    """CT_small.dcm, stored 175 with intercept -1024 (-849 HU, air) and the brightest bone, by hand."""
    ds = dicom_data("CT_small.dcm")
    assert (ds.pixel_array[0, 0], ds.RescaleSlope, ds.RescaleIntercept) == (175, 1, -1024)
    pixels = np.asarray(FileImage(dicom_file("CT_small.dcm")).load())[..., 0]
    assert pixels[0, 0] == 0
    y, x = map(int, np.argwhere(ds.pixel_array == 1064)[0])  # 40 HU, the level: the middle of the scale
    assert pixels[y, x] == 128
    assert pixels[np.unravel_index(ds.pixel_array.argmax(), pixels.shape)] == 255


def test_a_frame_of_the_view():
    name = "examples_ybr_color.dcm"
    image = FileImage(dicom_file(name), view=View(frame=3))
    assert (np.asarray(image.load()) == dicom_data(name).pixel_array[3]).all()
    with pytest.raises(ImageError, match=r"frame 30 was asked for, the file has 30 \(0 to 29\)"):
        FileImage(dicom_file(name), view=View(frame=30)).load()
    assert FileImage(dicom_file("CT_small.dcm"), view=View(frame=3)).load().size == (128, 128), "a lone frame"
