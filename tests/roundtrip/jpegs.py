"""JPEG files of the collection."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageCms

from tests.helpers.scenes import encoded, gradient, photo
from tests.roundtrip import blocks
from tests.roundtrip.blocks import IPTC, PREVIEW, exif, resource, xmp

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_XMP, _EXTENDED = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_MOVIE = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(400)


def scene(side: int = 160) -> np.ndarray:
    """The photo of the collection; its shorter side is no multiple of 16."""
    return photo("chelsea", side)


def segment(marker: int, payload: bytes) -> bytes:
    """A segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg(*segments: tuple[int, bytes], behind: bytes = b"", **options: object) -> bytes:
    """A photo as a JPEG, with segments behind its first one and bytes behind its end."""
    data = encoded(scene(), "JPEG", **({"quality": 88} | options))
    at = 4 + int.from_bytes(data[4:6], "big")
    return data[:at] + b"".join(segment(*item) for item in segments) + data[at:] + behind


def renumbered(data: bytes, numbers: dict[int, int]) -> bytes:
    """The same picture with other numbers for its quantisation tables."""
    out, at = bytearray(data), 2
    while out[at + 1] != 0xDA:
        size = int.from_bytes(out[at + 2 : at + 4], "big")
        if out[at + 1] == 0xDB:
            for place in range(at + 4, at + 2 + size, 65):
                out[place] = numbers[out[place]]
        elif out[at + 1] == 0xC0:
            for component in range(3):
                out[at + 12 + 3 * component] = numbers[out[at + 12 + 3 * component]]
        at += 2 + size
    return bytes(out)


def sampled(factors: int, **options: int) -> bytes:
    """A JPEG of a sampling that Pillow does not write, by OpenCV."""
    parameters = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors, cv2.IMWRITE_JPEG_QUALITY, 85]
    for name, value in options.items():
        parameters += [getattr(cv2, name), value]
    ok, data = cv2.imencode(".jpg", scene()[:, :, ::-1], parameters)
    assert ok
    return bytes(data.tobytes())


def extended(packet: bytes, extension: bytes) -> list[tuple[int, bytes]]:
    """A packet and its extended one, in two parts of which the second stands first."""
    guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    named = packet.replace(
        b" xmp:Rating", b' xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s" xmp:Rating' % guid
    )
    half = len(extension) // 2
    parts = [(half, extension[half:]), (0, extension[:half])]
    head = _EXTENDED + guid
    return [
        (0xE1, _XMP + named),
        *((0xE1, head + struct.pack(">II", len(extension), at) + part) for at, part in parts),
    ]


def mpf() -> tuple[int, bytes]:
    """A list of two pictures (CIPA DC-007)."""
    entry = struct.pack("<IIIHH", 0x030000, 1000, 0, 0, 0) + struct.pack("<IIIHH", 0, len(PREVIEW), 1000, 0, 0)
    fields = [(0xB000, 7, b"0100"), (0xB001, 4, struct.pack("<I", 2)), (0xB002, 7, entry)]
    return 0xE2, b"MPF\0II*\0" + struct.pack("<I", 8) + blocks.directory("<", fields, 8)


def app1(block: bytes) -> tuple[int, bytes]:
    """A segment of EXIF."""
    return 0xE1, block


def jpegs() -> Iterator[tuple[str, bytes]]:
    """Names and bytes."""
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            name = f"{subsampling.replace(':', '')}{' progressive' * progressive}"
            yield f"sampling {name}", jpeg(subsampling=subsampling, progressive=progressive)
    for name, factors in (("440", 0x121111), ("411", 0x411111)):
        yield f"sampling {name}", sampled(factors)
        yield f"sampling {name} progressive", sampled(factors, IMWRITE_JPEG_PROGRESSIVE=1)
    for quality in (30, 75, 95, 100):
        yield f"quality {quality}", jpeg(quality=quality)
    plain = jpeg(quality=85)
    for name, numbers in (("2 and 3", {0: 2, 1: 3}), ("swapped", {0: 1, 1: 0}), ("0 and 2", {0: 0, 1: 2})):
        yield f"tables {name}", renumbered(plain, numbers)
    coarse, middle, fine = [40 + n for n in range(64)], [300] * 64, [2 + n // 8 for n in range(64)]
    yield "tables three", jpeg(qtables=[fine, coarse, [7] * 64], subsampling=0)
    yield "tables of 16 bits", jpeg(qtables=[fine, middle])
    yield "tables one", jpeg(qtables=[coarse])
    yield "RGB", jpeg(keep_rgb=True)
    yield "Adobe YCbCr", jpeg()[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01") + jpeg()[20:]
    yield "no JFIF", jpeg()[:2] + jpeg()[20:]
    yield "grey", encoded(scene(), "JPEG")[:0] + grey()
    yield "grey progressive", grey(progressive=True)
    yield "restart markers", jpeg(restart_marker_blocks=4)
    yield "dots an inch", jpeg(dpi=(300, 300))
    yield "comment", jpeg((0xFE, b"a comment"), (0xFE, b"another one"))
    yield "comment with a picture", jpeg((0xFE, PREVIEW), (0xFE, b"a comment"))
    yield "comment with base64", jpeg((0xFE, base64.b64encode(PREVIEW)))
    yield "profile", jpeg(icc_profile=PROFILE)
    yield "profile in parts", jpeg(icc_profile=PROFILE + bytes(80_000))
    for order in "<>":
        name = {"<": "little", ">": "big"}[order]
        yield f"EXIF {name}", jpeg(app1(exif(order)))
        yield f"EXIF {name} thumbnail", jpeg(app1(exif(order, thumbnail=PREVIEW)))
        yield (
            f"EXIF {name} thumbnail, length too long",
            jpeg(app1(exif(order, thumbnail=PREVIEW, length=len(PREVIEW) + 1))),
        )
        yield f"EXIF {name} thumbnail, no length", jpeg(app1(exif(order, thumbnail=PREVIEW, length=0)))
        yield f"EXIF {name} thumbnail of pixels", jpeg(app1(exif(order, thumbnail=blocks.RAW_PREVIEW, raw=True)))
    for maker, note in blocks.NOTES.items():
        yield f"maker note {maker}", jpeg(app1(exif(note=note)))
    for orientation in range(2, 9):
        yield f"orientation {orientation}", jpeg(app1(exif(orientation=orientation)))
    remark = blocks.field("<", 0x9287, 7, b"\0" * 8 + PREVIEW)
    yield "EXIF unknown tag with a picture", jpeg(app1(exif(more_taken=[remark])))
    yield "EXIF artist with a picture", jpeg(app1(exif(more=[blocks.field("<", 0x013C, 7, PREVIEW)])))
    yield "EXIF padding", jpeg(app1(exif(more=[blocks.field("<", 0xEA1C, 7, bytes(2000))])))
    yield "EXIF broken", jpeg(app1(b"Exif\0\0II*\0\xff\xff\xff\xff"))
    yield "XMP", jpeg((0xE1, _XMP + xmp()))
    yield "XMP orientation", jpeg((0xE1, _XMP + xmp('xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"')))
    yield "XMP thumbnails", jpeg((0xE1, _XMP + blocks.XMP_THUMBNAILS))
    yield "XMP own words", jpeg((0xE1, _XMP + xmp('xmlns:my="http://example.org/my/" my:word="mine"')))
    yield "XMP no XML", jpeg((0xE1, _XMP + b"<x:xmpmeta>"))
    yield "XMP with definitions", jpeg((0xE1, _XMP + b'<!DOCTYPE a [<!ENTITY b "c">]>' + xmp()))
    depth = xmp(
        'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" GDepth:Data="'
        + base64.b64encode(PREVIEW).decode()
        + '"'
    )
    caption = (
        "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>"
        + "word " * 4000
        + "</rdf:li></rdf:Alt></dc:description>"
    )
    yield "extended XMP", jpeg(*extended(xmp(), xmp(elements=caption)))
    yield "extended XMP depth map", jpeg(*extended(xmp(), depth))
    yield "extended XMP lost part", jpeg(*extended(xmp(), xmp(elements=caption))[:2])
    irb = b"Photoshop 3.0\0" + resource(1028, IPTC)
    yield "IPTC", jpeg((0xED, irb))
    yield "IPTC preview", jpeg((0xED, b"Photoshop 3.0\0" + resource(1028, blocks.IPTC_PREVIEW)))
    yield "Photoshop thumbnail", jpeg((0xED, irb + blocks.THUMBNAIL_RESOURCE + resource(1005, bytes(16))))
    yield "Photoshop thumbnail of the old kind", jpeg((0xED, irb + resource(1033, bytes(28) + blocks.RAW_PREVIEW)))
    yield "JFIF thumbnail", thumbnail_in_jfif()
    yield "JFXX thumbnail", jpeg((0xE0, b"JFXX\0\x10" + PREVIEW))
    yield "MPF", jpeg(mpf(), behind=PREVIEW)
    yield "Ultra HDR", jpeg((0xE1, _XMP + blocks.XMP_GAIN_MAP), mpf(), behind=PREVIEW)
    yield "ISO gain map", jpeg((0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"), behind=PREVIEW)
    yield "motion photo", jpeg((0xE1, _XMP + blocks.XMP_MOTION), behind=_MOVIE)
    yield "Samsung trailer", jpeg(behind=b"\0\0\1\n\x0e\0\0\0Image_UTC_Data1700000000000SEFH" + bytes(20) + b"SEFT")
    yield "depth map behind", jpeg(behind=b"edof" + bytes(60) + blocks.RAW_PREVIEW)
    yield "C2PA", jpeg((0xEB, b"JP\0\1\0\0\0\1\0\0\0\x1cjumb\0\0\0\x14jumdc2pa\0\x11\0\x10" + PREVIEW))
    yield "FlashPix", jpeg((0xE2, b"FPXR\0\0\1" + bytes(40)))
    yield "Ducky", jpeg((0xEC, b"Ducky\0\1\0\4\0\0\0\x3c"))
    yield (
        "all",
        jpeg(
            app1(exif(note=blocks.NOTES["Nikon"], thumbnail=PREVIEW)),
            (0xE1, _XMP + blocks.XMP_PLACE),
            (0xED, irb + blocks.THUMBNAIL_RESOURCE),
            (0xFE, b"a comment"),
            icc_profile=PROFILE,
            dpi=(240, 240),
        ),
    )


def grey(**options: bool) -> bytes:
    """A JPEG of one component."""
    out = io.BytesIO()
    Pil.fromarray(scene()).convert("L").save(out, "JPEG", **options)
    return out.getvalue()


def thumbnail_in_jfif() -> bytes:
    """A JFIF header with a thumbnail of pixels."""
    data = jpeg()
    pixels = gradient(8, 8).tobytes()
    return data[:2] + segment(0xE0, data[6:18] + bytes([8, 8]) + pixels) + data[20:]
