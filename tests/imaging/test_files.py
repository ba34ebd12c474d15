"""Picture files to 8-bit RGB: odd modes, damaged files."""

import hashlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from harness.contracts import ImageError
from harness.imaging import grey
from harness.imaging.files import FileImage, to_rgb
from tests.support.dicom import dicom_data, dicom_file, full_range
from tests.support.images import BytesImage

# ---------------------------------------------------------------- odd modes


def encoded(image: Image.Image, kind: str, **options) -> BytesImage:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return BytesImage(buffer.getvalue())


RAMP = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (20, 1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_kinds_keep_every_pixel(kind):
    colour = np.stack([RAMP, RAMP[::-1, ::-1], 255 - RAMP], axis=2)
    assert (np.asarray(encoded(Image.fromarray(colour), kind).load()) == colour).all()
    pixels = np.asarray(encoded(Image.fromarray(RAMP), kind).load())
    assert (pixels == RAMP[..., None]).all()


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_other_kinds_come_close(kind, options):
    pixels = np.asarray(encoded(Image.fromarray(RAMP).convert("RGB"), kind, **options).load())
    assert np.abs(pixels.astype(int) - RAMP[..., None]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_by_its_own_range(kind):
    twelve_bit = (RAMP.astype(np.uint16) * 16) + 64
    pixels = np.asarray(encoded(Image.fromarray(twelve_bit), kind).load())
    assert (pixels[..., 0] == full_range(twelve_bit, 64, 64 + 240 * 16)).all()
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_16_bit_tiff_with_white_as_zero_is_inverted():
    data = encoded(Image.fromarray(RAMP.astype(np.uint16) * 200), "TIFF").data
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert data.count(entry) == 1
    white_is_zero = BytesImage(data.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    plain = np.asarray(BytesImage(data).load())
    assert (np.asarray(white_is_zero.load()) == 255 - plain).all()


def test_float_tiff_with_not_a_number():
    values = RAMP.astype(np.float32)
    values[0, 0] = np.nan
    pixels = np.asarray(encoded(Image.fromarray(values), "TIFF").load())[..., 0]
    assert pixels[0, 0] == 0
    assert (pixels[1:] == full_range(values[1:], 0, 240)).all()


def test_transparent_parts_become_black():
    half = Image.new("RGBA", (4, 2), (200, 100, 50, 255))
    half.paste((200, 100, 50, 0), (0, 0, 2, 2))
    half.putpixel((3, 0), (200, 100, 50, 51))
    for image in (half, half.convert("LA")):
        pixels = np.asarray(encoded(image, "PNG").load())
        assert (pixels[:, :2] == 0).all()
        assert (pixels[1, 2:] > 40).all()
    assert np.asarray(encoded(half, "PNG").load())[0, 3].tolist() == [40, 20, 10]


def test_palette_with_and_without_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    assert encoded(image, "PNG").load().getpixel((0, 0)) == (10, 20, 30)
    assert encoded(image, "PNG", transparency=0).load().getpixel((0, 0)) == (0, 0, 0)
    assert encoded(image, "PNG", transparency=0).load().getpixel((1, 0)) == (200, 100, 50)


def test_one_bit_and_cmyk():
    bits = Image.new("1", (8, 8))
    bits.putpixel((3, 3), 1)
    assert encoded(bits, "PNG").load().getpixel((3, 3)) == (255, 255, 255)
    cmyk = Image.new("RGB", (16, 16), (200, 60, 30)).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        assert np.abs(np.subtract(encoded(cmyk, kind).load().getpixel((8, 8)), (200, 60, 30))).max() <= 6


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (40, 20))
    image.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise: the upper left corner goes to the upper right
    turned = encoded(image, "JPEG", exif=exif, quality=95).load()
    assert turned.size == (20, 40)
    assert turned.getpixel((17, 3))[0] > 200
    assert turned.getpixel((3, 3))[0] < 60


def test_stacks_give_their_middle_and_previews_their_picture():
    pages = [Image.new("L", (8, 8), 10 * k) for k in range(5)]
    assert encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]).load().getpixel((0, 0)) == (20, 20, 20)
    preview = encoded(
        Image.new("RGB", (32, 32), "white"), "MPO", save_all=True, append_images=[pages[0].convert("RGB")]
    )
    assert preview.load().getpixel((0, 0)) == (255, 255, 255)


def test_to_rgb_keeps_rgb():
    image = Image.fromarray(np.stack([RAMP] * 3, axis=2))
    assert (np.asarray(to_rgb(image)) == np.asarray(image)).all()


# ---------------------------------------------------------------- damage


def png_header(width, height) -> bytes:
    """A PNG that claims a size and brings no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("side", [9_600, 30_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(side):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="pixels"):
        BytesImage(png_header(side, side)).load()
    assert before == Image.MAX_IMAGE_PIXELS == grey.MAX_PIXELS


def test_a_dicom_bomb_is_refused(tmp_path):
    ds = dicom_data("MR_small.dcm")
    ds.Rows = ds.Columns = 30_000
    ds.save_as(tmp_path / "a.dcm")
    with pytest.raises(ImageError, match="30000 x 30000"):
        FileImage(tmp_path / "a.dcm").load()


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe", b"GIF89a"])
def test_other_content_is_refused(content):
    with pytest.raises(ImageError, match="not a picture, or a damaged one: expected PNG, JPEG"):
        BytesImage(content).load()


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match="file cannot be read"):
            FileImage(path).load()
        with pytest.raises(ImageError, match="file cannot be read"):
            FileImage(path).digest()


def test_digest_is_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).save(path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert FileImage(path).digest() == expected == BytesImage(path.read_bytes()).digest()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "DICOM", "J2K"])
def test_damaged_files_load_or_raise_an_image_error(kind):
    """Cut anywhere, or with flipped bytes: never another exception, which would end a run of hours."""
    if kind in ("DICOM", "J2K"):
        name = "MR_small_RLE.dcm" if kind == "DICOM" else "MR_small_jp2klossless.dcm"
        data = dicom_file(name).read_bytes()
    else:
        noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[274] = 6
        data = encoded(Image.fromarray(noise), kind, **({} if kind == "BMP" else {"exif": exif})).data
    rng = random.Random(kind)
    reasons = []
    for trial in range(150):
        if trial % 3 == 0:
            damaged = data[: rng.randrange(len(data))]
        else:
            changed = bytearray(data)
            for _ in range(rng.randrange(1, 8)):
                changed[rng.randrange(len(changed) if trial % 2 else min(700, len(changed)))] = rng.randrange(256)
            damaged = bytes(changed)
        image = BytesImage(damaged)
        try:
            assert image.load().mode == "RGB"
            image.modality()
        except ImageError as error:
            reasons.append(str(error))
    assert len(reasons) >= 25
    assert all(reasons)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_never_load(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind).data
    with pytest.raises(ImageError):
        BytesImage(data[: int(len(data) * share)]).load()
