from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageCms

from occpipe.images import ImageError, ImageReason, Limits, decode, encode_like, read_header, without_thumbnail
from tests.scenes import encoded, gradient, photo

LIMITS = Limits(max_pixels=1_000_000, min_side=16)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def with_mode(mode: str, fmt: str) -> bytes:
    out = io.BytesIO()
    Pil.fromarray(gradient()).convert(mode).save(out, format=fmt)
    return out.getvalue()


def sixteen_bit_png() -> bytes:
    out = io.BytesIO()
    Pil.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(out, format="PNG")
    return out.getvalue()


def animated(fmt: str) -> bytes:
    out = io.BytesIO()
    frames = [Pil.fromarray(gradient()), Pil.fromarray(gradient()[:, ::-1].copy())]
    frames[0].save(out, format=fmt, save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", ImageReason.EMPTY_FILE),
        (b"this is text", ImageReason.NOT_AN_IMAGE),
        (b"GIF89a" + bytes(100), ImageReason.NOT_AN_IMAGE),
        (encoded(gradient())[:500], ImageReason.TRUNCATED),
        (encoded(gradient(), "PNG")[:200], ImageReason.TRUNCATED),
        (png_claiming(30_000, 30_000), ImageReason.TOO_MANY_PIXELS),
        (png_claiming(100, 100), ImageReason.TRUNCATED),
        (encoded(gradient(1, 1), "PNG"), ImageReason.TOO_SMALL),
        (animated("WEBP"), ImageReason.MULTIPLE_FRAMES),
        (animated("PNG"), ImageReason.MULTIPLE_FRAMES),
        (animated("TIFF"), ImageReason.MULTIPLE_FRAMES),
        (with_mode("CMYK", "JPEG"), ImageReason.COLOUR_MODEL),
        (with_mode("CMYK", "TIFF"), ImageReason.COLOUR_MODEL),
        (sixteen_bit_png(), ImageReason.BIT_DEPTH),
    ],
)
def test_bad_input_has_a_reason(data: bytes, reason: ImageReason) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, LIMITS)
    assert caught.value.reason is reason


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_format_survives(fmt: str) -> None:
    source = encoded(photo("coffee"), fmt)
    result = encode_like(decode(source, LIMITS), source, LIMITS)
    assert Pil.open(io.BytesIO(result)).format == fmt
    difference = np.abs(decode(result, LIMITS).astype(int) - decode(source, LIMITS))
    assert difference.mean() < (1.5 if fmt in ("JPEG", "WEBP") else 1e-9)


def test_jpeg_keeps_quantisation_and_subsampling() -> None:
    source = encoded(photo("coffee"), "JPEG", quality=61, subsampling="4:2:2", progressive=True)
    before = Pil.open(io.BytesIO(source))
    after = Pil.open(io.BytesIO(encode_like(decode(source, LIMITS), source, LIMITS)))
    assert after.quantization == before.quantization  # type: ignore[attr-defined]
    assert after.layer == before.layer  # type: ignore[attr-defined]
    assert after.info["progressive"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_undone(orientation: int) -> None:
    exif = Pil.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    source = encoded(gradient(40, 64), "PNG", exif=exif.tobytes())
    header, upright = read_header(source, LIMITS), decode(source, LIMITS)
    assert upright.shape == (header.height, header.width, 3)
    assert (header.width, header.height) == ((64, 40) if orientation < 5 else (40, 64))
    again = Pil.open(io.BytesIO(encode_like(upright, source, LIMITS)))
    assert np.array_equal(np.asarray(again), gradient(40, 64))
    assert again.getexif()[0x0112] == orientation
    assert again.getexif()[0x010F] == "a camera"


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colour_profile_survives(fmt: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = encoded(gradient(), fmt, icc_profile=profile)
    assert Pil.open(io.BytesIO(encode_like(gradient(), source, LIMITS))).info["icc_profile"] == profile


def test_alpha_of_a_palette_survives() -> None:
    rgba = np.dstack([gradient(), np.full((64, 96), 255, np.uint8)])
    rgba[:10, :10, 3] = 0
    out = io.BytesIO()
    Pil.fromarray(rgba).quantize(64).save(out, format="PNG")
    result = Pil.open(io.BytesIO(encode_like(decode(out.getvalue(), LIMITS), out.getvalue(), LIMITS)))
    assert result.mode == "RGBA"
    assert np.asarray(result)[:10, :10, 3].max() == 0
    assert np.asarray(result)[20:, 20:, 3].min() == 255


def test_grey_stays_grey() -> None:
    source = with_mode("L", "JPEG")
    assert Pil.open(io.BytesIO(encode_like(decode(source, LIMITS), source, LIMITS))).mode == "L"


def test_reduced_decode_keeps_the_picture() -> None:
    source = encoded(photo("coffee", 600))
    small = decode(source, LIMITS, max_side=150)
    assert max(small.shape) == 150
    reference = np.asarray(Pil.fromarray(decode(source, LIMITS)).resize((small.shape[1], small.shape[0])))
    assert np.abs(small.astype(int) - reference).mean() < 4


def exif_with_thumbnail() -> tuple[bytes, bytes]:
    thumbnail = b"\xff\xd8" + b"secret picture" + b"\xff\xd9"
    ifd0 = struct.pack("<H", 1) + struct.pack("<HHII", 0x0112, 3, 1, 1)
    ifd1_at = 8 + len(ifd0) + 4
    picture_at = ifd1_at + 2 + 24 + 4
    ifd1 = struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, picture_at)
    ifd1 += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + struct.pack("<I", 0)
    block = b"II*\x00" + struct.pack("<I", 8) + ifd0 + struct.pack("<I", ifd1_at) + ifd1 + thumbnail
    return b"Exif\x00\x00" + block, thumbnail


def test_thumbnail_of_the_old_picture_is_blanked() -> None:
    exif, thumbnail = exif_with_thumbnail()
    source = encoded(gradient(), "JPEG", exif=exif)
    assert thumbnail in source
    result = encode_like(gradient(), source, LIMITS)
    assert b"secret" not in result
    assert Pil.open(io.BytesIO(result)).getexif()[0x0112] == 1


@pytest.mark.parametrize("block", [b"", b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"MM\x00*" + bytes(3)])
def test_broken_exif_is_left_alone(block: bytes) -> None:
    assert without_thumbnail(block) == block
