from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from occpipe.core.types import Image
from occpipe.io.images import ImageError, ImageReason, Limits, decode, decode_with_header, encode_like
from tests.helpers.scenes import encoded, gradient, moving, photo

PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="VP8L"/></rdf:RDF></x:xmpmeta>'
)
LIMITS = Limits(max_pixels=1_000_000, min_side=16)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff_with_a_broken_page() -> bytes:
    """A TIFF whose list of pages goes on with a page that has no tags."""
    data = bytearray(encoded(gradient(), "TIFF"))
    (ifd,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, ifd)
    struct.pack_into("<I", data, ifd + 2 + 12 * entries, len(data))
    return bytes(data) + bytes(6)


def with_mode(mode: str, fmt: str) -> bytes:
    out = io.BytesIO()
    Pil.fromarray(gradient()).convert(mode).save(out, format=fmt)
    return out.getvalue()


def sixteen_bit_png() -> bytes:
    out = io.BytesIO()
    Pil.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(out, format="PNG")
    return out.getvalue()


def planar_tiff(planes: Image, orientation: int = 1) -> bytes:
    """An uncompressed TIFF that stores its channels one after the other (PlanarConfiguration 2)."""
    height, width, channels = planes.shape
    ifd = ImageFileDirectory_v2()
    ifd[256], ifd[257], ifd[258] = width, height, (8 * planes.itemsize,) * channels
    ifd[259], ifd[262], ifd[277], ifd[284] = 1, 2, channels, 2
    ifd[273] = tuple(range(0, planes.nbytes, planes.nbytes // channels))
    ifd[278], ifd[279] = height, (planes.nbytes // channels,) * channels
    ifd[274] = orientation
    out = io.BytesIO()
    ifd.save(out)
    out.write(planes.transpose(2, 0, 1).tobytes())
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", ImageReason.EMPTY_FILE),
        (b"this is text", ImageReason.NOT_AN_IMAGE),
        (b"GIF89a" + bytes(100), ImageReason.UNSUPPORTED),
        (encoded(gradient())[:500], ImageReason.TRUNCATED),
        (encoded(gradient(), "PNG")[:200], ImageReason.TRUNCATED),
        (tiff_with_a_broken_page(), ImageReason.TRUNCATED),
        (png_claiming(30_000, 30_000), ImageReason.TOO_MANY_PIXELS),
        (png_claiming(100, 100), ImageReason.TRUNCATED),
        (encoded(gradient(1, 1), "PNG"), ImageReason.TOO_SMALL),
        (moving("WEBP"), ImageReason.MULTIPLE_FRAMES),
        (moving("PNG"), ImageReason.MULTIPLE_FRAMES),
        (moving("TIFF"), ImageReason.MULTIPLE_FRAMES),
        (with_mode("CMYK", "JPEG"), ImageReason.COLOUR_MODEL),
        (with_mode("CMYK", "TIFF"), ImageReason.COLOUR_MODEL),
        (sixteen_bit_png(), ImageReason.BIT_DEPTH),
        (planar_tiff(gradient().astype("<u2") * 257), ImageReason.BIT_DEPTH),
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
    header, upright = decode_with_header(source, LIMITS)
    assert upright.shape == (header.height, header.width, 3)
    assert (header.width, header.height) == ((64, 40) if orientation < 5 else (40, 64))
    again = Pil.open(io.BytesIO(encode_like(upright, source, LIMITS)))
    assert np.array_equal(np.asarray(again), gradient(40, 64))
    assert again.getexif()[0x0112] == orientation
    assert again.getexif()[0x010F] == "a camera"


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}
"""EXIF 2.32, table 6, written down a second time: where row 0 and column 0 of the stored picture are seen."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_decoded_is_what_a_viewer_shows(fmt: str, orientation: int) -> None:
    exif = Pil.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if fmt == "WEBP" else {}
    source = encoded(gradient(40, 64), fmt, exif=exif.tobytes(), **options)
    assert np.array_equal(decode(source, LIMITS), UPRIGHT[orientation](gradient(40, 64)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["raw", "tiff_lzw", "planar", "alpha", "xmp"])
def test_a_rotated_tiff_is_stored_upright(kind: str, orientation: int) -> None:
    stored = gradient(40, 64)
    truth = UPRIGHT[orientation](stored)
    alpha = stored[..., 0]
    if kind == "planar":
        source = planar_tiff(stored, orientation)
    elif kind == "xmp":
        source = encoded(stored, "TIFF", tiffinfo={700: f'<x tiff:Orientation="{orientation}"/>'.encode()})
    else:
        pixels = np.dstack([stored, alpha]) if kind == "alpha" else stored
        source = encoded(pixels, "TIFF", tiffinfo={0x0112: orientation}, compression=kind.replace("alpha", "raw"))

    header, upright = decode_with_header(source, LIMITS)
    assert (header.height, header.width, header.orientation) == (*truth.shape[:2], 1)
    assert np.array_equal(upright, truth)

    written = encode_like(upright, source, LIMITS)
    assert np.array_equal(decode(written, LIMITS), truth)
    with Pil.open(io.BytesIO(written)) as again:
        assert again.getexif().get(0x0112, 1) == 1
        assert again.size == (header.width, header.height)
        if kind == "alpha":
            assert np.array_equal(np.asarray(again)[..., 3], UPRIGHT[orientation](alpha[..., None])[..., 0])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "LA"])
def test_a_tiff_of_another_mode_stays_readable(mode: str, compression: str) -> None:
    out = io.BytesIO()
    Pil.fromarray(photo("coffee")).convert(mode).save(out, format="TIFF", compression=compression)
    seen = decode(out.getvalue(), LIMITS)
    written = encode_like(seen, out.getvalue(), LIMITS)
    assert np.array_equal(decode(written, LIMITS), seen)
    with Pil.open(io.BytesIO(written)) as again:
        assert (again.mode, again.info["compression"]) == (mode, compression)


def test_a_planar_tiff_stays_readable() -> None:
    source = planar_tiff(photo("coffee"))
    assert np.array_equal(decode(encode_like(decode(source, LIMITS), source, LIMITS), LIMITS), photo("coffee"))


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        ("RGB", "packbits", "packbits"),
        ("RGB", "tiff_deflate", "tiff_adobe_deflate"),
        ("RGB", "zstd", "zstd"),
        ("RGB", "jpeg", "jpeg"),
        ("RGBA", "jpeg", "tiff_adobe_deflate"),  # alpha would become lossy
    ],
)
def test_tiff_compression(mode: str, before: str, after: str) -> None:
    out = io.BytesIO()
    picture = Pil.fromarray(photo("coffee")).convert(mode)
    picture.save(out, format="TIFF", compression=before)
    seen = decode(out.getvalue(), LIMITS)
    written = encode_like(seen, out.getvalue(), LIMITS)
    assert Pil.open(io.BytesIO(written)).info["compression"] == after
    assert np.abs(decode(written, LIMITS).astype(int) - seen).mean() < (1.5 if after == "jpeg" else 1e-9)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_keeps_what_describes_it_and_nothing_else(compression: str) -> None:
    texts = {
        270: "a photo",
        271: "a maker",
        272: "a model",
        305: "a tool",
        306: "2020:01:02 03:04:05",
        315: "Zoë".encode(),
    }
    tags = {**texts, 282: 118.5, 283: 117.25, 296: 3, 700: PACKET, 317: 2 if compression == "tiff_lzw" else 1}
    thumbnail = {34377: b"8BIM\x04\x0c" + b"secret picture", 650: "unknown"}
    ifds: dict[int, Any] = {34665: {36867: "2020:01:02 03:04:05"}, 34853: {1: "N"}}
    source = encoded(photo("coffee"), "TIFF", compression=compression, tiffinfo={**tags, **thumbnail})
    if compression == "raw":  # Pillow writes no EXIF beside compressed pixels
        source = encoded(photo("coffee"), "TIFF", compression=compression, tiffinfo={**tags, **thumbnail, **ifds})
    seen = decode(source, LIMITS)
    written = encode_like(seen, source, LIMITS)
    assert np.array_equal(decode(written, LIMITS), seen)
    assert b"secret" in source
    assert b"secret" not in written
    before, after = Pil.open(io.BytesIO(source)), Pil.open(io.BytesIO(written))
    for tag in (*texts, 282, 283, 296, 700):
        assert after.tag_v2[tag] == before.tag_v2[tag], tag  # type: ignore[attr-defined]
    for tag, fields in ifds.items() if compression == "raw" else ():
        assert after.getexif().get_ifd(tag) == fields


def test_a_tiff_without_a_resolution_is_written() -> None:
    ifd = ImageFileDirectory_v2()
    ifd[282], ifd[283], ifd[296] = 0, 0, 9
    source = encoded(gradient(), "TIFF", tiffinfo=ifd)
    assert np.array_equal(decode(encode_like(gradient(), source, LIMITS), LIMITS), gradient())


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("metadata", [(), ("icc_profile",), ("icc_profile", "exif", "xmp")])
def test_webp_stays_lossless_or_lossy(lossless: bool, metadata: tuple[str, ...]) -> None:
    profile = bytes(133) if lossless else b"VP8L" + bytes(129)  # what stands first must not decide
    values = {"icc_profile": profile, "exif": exif_with_thumbnail()[0], "xmp": PACKET}
    source = encoded(photo("coffee"), "WEBP", lossless=lossless, **{name: values[name] for name in metadata})
    seen = decode(source, LIMITS)
    written = encode_like(seen, source, LIMITS)
    assert np.array_equal(decode(written, LIMITS), seen) is lossless
    assert all(name in Pil.open(io.BytesIO(written)).info for name in metadata)


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_noise_is_written(progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    clean = encoded(gradient(600, 900), "JPEG", quality=100, subsampling=0, progressive=progressive)
    written = encode_like(noise, clean, LIMITS)
    assert len(written) > 2 * 600 * 900  # more than Pillow's buffer for a file that is optimised
    assert np.abs(decode(written, LIMITS).astype(int) - noise).mean() < 1.5
    assert Pil.open(io.BytesIO(written)).quantization == Pil.open(io.BytesIO(clean)).quantization  # type: ignore[attr-defined]


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_another_size_than_the_source_is_refused(fmt: str) -> None:
    with pytest.raises(ImageError) as caught:
        encode_like(gradient(40, 64), encoded(gradient(64, 96), fmt), LIMITS)
    assert caught.value.reason is ImageReason.STAGE_FAILED


@pytest.mark.parametrize("written", [b"", b"not a picture", encoded(gradient(), "PNG"), with_mode("CMYK", "JPEG")])
def test_what_cannot_be_read_again_is_refused(written: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    source = encoded(gradient())
    monkeypatch.setattr(Pil.Image, "save", lambda self, fp, **options: fp.write(written))
    with pytest.raises(ImageError) as caught:
        encode_like(gradient(), source, LIMITS)
    assert caught.value.reason is ImageReason.STAGE_FAILED


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
    assert result.mode == "P"
    alpha = np.asarray(result.convert("RGBA"))[..., 3]
    assert alpha[:10, :10].max() == 0
    assert alpha[20:, 20:].min() == 255


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
