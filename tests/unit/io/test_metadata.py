"""Metadata of an edited file: the policies, the check for a second picture, and what is not to be had as it was."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pil
from PIL import JpegImagePlugin

from occpipe.core.provenance import MetadataPolicy, SourceType
from occpipe.io.images import (
    ImageError,
    ImageReason,
    Limits,
    check_no_other_picture,
    decode,
    encode_like,
    encode_with_losses,
)
from occpipe.io.images.pictures import MAX_CANDIDATES, holds_picture
from tests.helpers.scenes import encoded, gradient
from tests.roundtrip import blocks
from tests.roundtrip.blocks import PREVIEW, RAW_PREVIEW, SMALL_PNG, exif, png_chunk, resource, xmp
from tests.roundtrip.collection import Sample, samples, trip
from tests.roundtrip.facts import facts
from tests.roundtrip.jpegs import PROFILE, jpeg, renumbered, scene, segment
from tests.roundtrip.others import bmp, saved, tiff, webp
from tests.roundtrip.pngs import png

LIMITS = Limits()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
PLACES = ("GPS", "GeoTIFF")
LOOK = {
    *("mode", "bit depth", "progressive", "chroma subsampling", "quantisation tables", "RGB or YCbCr", "transparency"),
    *(
        "palette",
        "gamma (gAMA)",
        "chromaticities (cHRM)",
        "rendering intent (sRGB)",
        "code points (cICP)",
        "ICC profile",
    ),
    *("significant bits and background", "lossless or lossy", "compression", "byte order, BigTIFF", "header and masks"),
    *("density", "density in EXIF"),
}
ALL_IN_ONE = [s for s in samples() if s.name.endswith(("all", "BigTIFF deflate, all"))]


@pytest.mark.parametrize("sample", ALL_IN_ONE, ids=lambda sample: sample.id)
def test_places_go_where_they_are_to_go_and_nothing_else_does(sample: Sample) -> None:
    before, after = (
        facts(trip(sample, policy).data) for policy in (MetadataPolicy.KEEP, MetadataPolicy.STRIP_LOCATION)
    )
    assert not {*after} & {*PLACES}
    assert {*before} - {*after} <= {*PLACES}
    assert b"Paris" not in trip(sample, MetadataPolicy.STRIP_LOCATION).data
    assert b"48,51.5N" not in trip(sample, MetadataPolicy.STRIP_LOCATION).data
    assert after.get("XMP") == before.get("XMP")


@pytest.mark.parametrize("sample", ALL_IN_ONE, ids=lambda sample: sample.id)
def test_all_goes_but_what_the_picture_needs(sample: Sample) -> None:
    before, after = (facts(trip(sample, policy).data) for policy in (MetadataPolicy.KEEP, MetadataPolicy.STRIP_ALL))
    assert {*after} == {*before} & LOOK
    assert trip(sample, MetadataPolicy.STRIP_ALL).lost == []


def test_a_turned_photo_stays_turned_without_metadata() -> None:
    source = jpeg((0xE1, exif(orientation=6)))
    upright = decode(source, LIMITS)
    written, _ = encode_with_losses(upright, source, LIMITS, policy=MetadataPolicy.STRIP_ALL)
    assert decode(written, LIMITS).shape == upright.shape
    assert {*Pil.open(io.BytesIO(written)).getexif()} == {0x0112, 282, 283, 296}


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    return data[:2] + segment(marker, payload) + data[2:]


def with_chunk(data: bytes, name: bytes, payload: bytes) -> bytes:
    return data[:33] + png_chunk(name, payload) + data[33:]


OTHER_PICTURES = {
    "JPEG, another one behind": ("JPEG", jpeg() + PREVIEW),
    "JPEG, pixels behind": ("JPEG", jpeg() + RAW_PREVIEW),
    "JPEG, EXIF thumbnail": ("JPEG", jpeg((0xE1, exif(thumbnail=PREVIEW)))),
    "JPEG, EXIF thumbnail of pixels": ("JPEG", jpeg((0xE1, exif(thumbnail=RAW_PREVIEW, raw=True)))),
    "JPEG, maker note": ("JPEG", jpeg((0xE1, exif(note=blocks.NOTES["Nikon"])))),
    "JPEG, EXIF value": ("JPEG", jpeg((0xE1, exif(more=[blocks.field("<", 0x013C, 7, PREVIEW)])))),
    "JPEG, XMP": ("JPEG", jpeg((0xE1, _XMP + blocks.XMP_THUMBNAILS))),
    "JPEG, comment": ("JPEG", jpeg((0xFE, b"see " + SMALL_PNG))),
    "JPEG, base64": ("JPEG", jpeg((0xFE, base64.b64encode(PREVIEW)))),
    "JPEG, Photoshop": ("JPEG", jpeg((0xED, b"Photoshop 3.0\0" + blocks.THUMBNAIL_RESOURCE))),
    "JPEG, JFXX": ("JPEG", jpeg((0xE0, b"JFXX\0\x13" + bytes(40)))),
    "JPEG, MPF": ("JPEG", jpeg((0xE2, b"MPF\0" + bytes(40)))),
    "JPEG, unknown segment of pixels": ("JPEG", jpeg((0xE4, RAW_PREVIEW))),
    "JPEG, Photoshop pixels": ("JPEG", jpeg((0xED, b"Photoshop 3.0\0" + resource(1033, bytes(28) + RAW_PREVIEW)))),
    "JPEG, EXIF with bytes between": ("JPEG", jpeg((0xE1, exif() + RAW_PREVIEW))),
    "JPEG, GIF": ("JPEG", jpeg((0xE5, b"GIF89a" + bytes(40)))),
    "JPEG, HEIC": ("JPEG", jpeg((0xE5, b"\0\0\0\x18ftypheic" + bytes(40)))),
    "PNG, another one behind": ("PNG", png(behind=SMALL_PNG)),
    "PNG, private chunk": ("PNG", with_chunk(png(), b"prVw", RAW_PREVIEW)),
    "PNG, text": ("PNG", with_chunk(png(), b"zTXt", b"a\0\0" + zlib.compress(PREVIEW))),
    "PNG, EXIF": ("PNG", with_chunk(png(), b"eXIf", exif(thumbnail=PREVIEW)[6:])),
    "WebP, private chunk": ("WEBP", webp((b"prvw", RAW_PREVIEW))),
    "WebP, XMP": ("WEBP", webp(xmp=blocks.XMP_THUMBNAILS)),
    "WebP, behind": ("WEBP", webp(behind=PREVIEW)),
    "TIFF, sub-image": ("TIFF", tiff(preview="sub-image")),
    "TIFF, Photoshop": ("TIFF", tiff(preview="Photoshop")),
    "BMP, before the pixels": ("BMP", bmp(24, gap=bytes(8) + RAW_PREVIEW)),
    "BMP, behind": ("BMP", bmp(24, behind=PREVIEW)),
}


@pytest.mark.parametrize("name", OTHER_PICTURES)
def test_a_file_with_another_picture_does_not_pass(name: str) -> None:
    fmt, data = OTHER_PICTURES[name]
    with pytest.raises(ImageError) as caught:
        check_no_other_picture(data, fmt)
    assert caught.value.reason is ImageReason.EMBEDDED_PICTURE


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_the_check_runs_whenever_a_file_is_written(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.io.images.encode.holds_picture", lambda block: True)
    source = saved(fmt)
    if fmt in ("TIFF", "BMP"):
        source = tiff() if fmt == "TIFF" else bmp(24, header=124, profile=PROFILE)
    with pytest.raises(ImageError) as caught:
        encode_like(decode(source, LIMITS), source, LIMITS, SourceType.COMPOSITE)
    assert caught.value.reason is ImageReason.EMBEDDED_PICTURE


def test_a_broken_picture_is_one_too() -> None:
    assert holds_picture(b"see " + PREVIEW[:400])
    assert holds_picture(b"see " + PREVIEW[:100] + bytes(400))


def test_what_looks_like_pictures_costs_a_bounded_time() -> None:
    assert not holds_picture(b"\xff\xd8\xff\xe0" * MAX_CANDIDATES + b"text")
    assert holds_picture(b"\xff\xd8\xff\xe0" * 100_000)
    noise = np.random.default_rng(0).integers(0, 256, 2_000_000, dtype=np.uint8).tobytes()
    assert not holds_picture(noise)
    assert not holds_picture(b"word " * 100_000)
    assert not holds_picture(b"converted from GIF89a, JPEG 2000 and BM files of 24 bits")


def test_tables_that_the_encoder_refuses_become_its_own_at_the_nearest_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    save = Pil.Image.save

    def refuse(image: Pil.Image, fp: io.BytesIO, fmt: str, **options: object) -> None:
        if "qtables" in options:
            raise ValueError("Invalid quantization table")
        save(image, fp, fmt, **options)

    source = jpeg(quality=61)
    monkeypatch.setattr(Pil.Image, "save", refuse)
    written, lost = encode_with_losses(decode(source, LIMITS), source, LIMITS)
    assert lost == ["quantisation tables"]
    assert tables_of(written) == tables_of(source)


def tables_of(data: bytes) -> list[list[int]]:
    with Pil.open(io.BytesIO(data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return [list(image.quantization[layer[3]]) for layer in image.layer]


def lossless_jpeg() -> bytes:
    """A JPEG of Huffman-coded differences (SOF3), as raw files and scanners hold it."""
    frame = segment(0xC3, struct.pack(">BHHB", 8, 64, 64, 1) + b"\1\x11\0")
    return b"\xff\xd8" + frame + segment(0xDA, b"\1\1\0\1\0\0") + bytes(100) + b"\xff\xd9"


def twelve_bits() -> bytes:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC1, 12
    return bytes(data)


def tiff_of(photometric: int) -> bytes:
    """A whole TIFF of a kind that Pillow does not decode."""
    data = bytearray(tiff(compressed=False))
    at = data.index(struct.pack("<HHI", 262, 3, 1))
    data[at + 8 : at + 10] = struct.pack("<H", photometric)
    return bytes(data)


UNKNOWN = {
    "GIF": encoded(gradient(), "GIF"),
    "AVIF": b"\0\0\0\x20ftypavif" + bytes(400),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(400),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(400),
    "JPEG 2000": cv2.imencode(".jp2", gradient())[1].tobytes(),
    "netpbm": encoded(gradient(), "PPM"),
    "Photoshop": b"8BPS\0\1" + bytes(400),
    "lossless JPEG": lossless_jpeg(),
    "JPEG of 12 bits": twelve_bits(),
    "TIFF of another colour model": tiff_of(32845),
    "BigTIFF, big-endian": tiff(">", big=True),
    "BMP of a PNG": b"BM"
    + struct.pack("<IHHI", 154, 0, 0, 54)
    + struct.pack("<IiiHHI", 40, 64, 64, 1, 0, 5)
    + bytes(120),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_whole_file_of_another_kind_is_unsupported(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(UNKNOWN[name], LIMITS)
    assert caught.value.reason is ImageReason.UNSUPPORTED, str(caught.value)


@pytest.mark.parametrize("name", ["TIFF of another colour model", "BMP of a PNG"])
def test_a_part_of_such_a_file_is_truncated(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(UNKNOWN[name][: len(UNKNOWN[name]) * 2 // 3], LIMITS)
    assert caught.value.reason in (ImageReason.TRUNCATED, ImageReason.NOT_AN_IMAGE)


def test_names_of_what_is_lost_are_printable_and_few() -> None:
    unknown = [(b"a%03d" % n, b"x") for n in range(200)]
    _, lost = encode_with_losses(scene(), webp((b"zz\x1bz", b"x"), *unknown), LIMITS)
    assert len(lost) == 32
    assert "WebP zz?z" in lost


def test_iptc_and_comment_stay_and_the_gain_map_is_no_longer_named() -> None:
    iptc = jpeg((0xED, b"Photoshop 3.0\0" + resource(1028, blocks.IPTC)), (0xFE, b"a comment"))
    hdr = jpeg((0xE1, _XMP + blocks.XMP_GAIN_MAP), behind=PREVIEW)
    written, rewritten = (encode_like(scene(), source, LIMITS) for source in (iptc, hdr))
    assert blocks.IPTC in written
    assert b"a comment" in written
    for word in (b"GainMap", b"hdrgm", b"Container"):
        assert word in hdr
        assert word not in rewritten
    assert b"archive 7" in rewritten


def test_each_component_keeps_its_table_whatever_its_number() -> None:
    plain = jpeg(quality=85)
    for numbers in ({0: 2, 1: 3}, {0: 1, 1: 0}, {0: 0, 1: 2}):
        source = renumbered(plain, numbers)
        assert tables_of(encode_like(decode(source, LIMITS), source, LIMITS)) == tables_of(plain)


def test_a_packet_nested_too_deeply_is_left_out() -> None:
    deep = xmp(elements="<dc:a>" * 20_000 + "</dc:a>" * 20_000)
    written, lost = encode_with_losses(scene(), webp(xmp=deep, lossless=True), LIMITS)
    assert lost == ["XMP (unreadable)"]
    assert b"archive 7" not in written
