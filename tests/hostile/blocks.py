"""What hostile files are built of: chunks, segments and tags by hand, and small valid files of the five formats."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image as Pil

from occpipe.core.types import Image
from tests.helpers.scenes import encoded, gradient

SIDE = 64
"""Pixels on both sides of what is built by hand: above the smallest side that is read, and small."""

EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
MAGIC_PNG = b"\x89PNG\r\n\x1a\n"
START, END = b"\xff\xd8", b"\xff\xd9"


def noisy(height: int = 96, width: int = 128) -> Image:
    """A gradient with noise on one half: something for every coder to do, H x W x 3."""
    picture = gradient(height, width)
    noise = np.random.default_rng(0).integers(0, 256, (height, width // 2, 3), dtype=np.uint8)
    return np.concatenate([picture[:, : width - width // 2], noise], axis=1)


@cache
def valid(fmt: str) -> bytes:
    """A valid file of one of the five formats, 128 x 96 pixels."""
    return encoded(noisy(), fmt)


def saved(mode: str, fmt: str, side: int = SIDE) -> bytes:
    """A valid file in one of Pillow's modes."""
    out = io.BytesIO()
    Pil.fromarray(gradient(side, side)).convert(mode).save(out, format=fmt)
    return out.getvalue()


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    """The bytes with some of them overwritten from `at` on."""
    return data[:at] + new + data[at + len(new) :]


@cache
def zeros_deflated(megabytes: int) -> bytes:
    """A zlib stream that grows a thousandfold: so many megabytes of zeros."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


# PNG (ISO 15948): chunks of a length, a name, a body and a checksum.


def chunk(kind: bytes, body: bytes = b"", checksum: int | None = None) -> bytes:
    """One chunk; with a `checksum` that one instead of the right one."""
    right = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right if checksum is None else checksum)


def ihdr(width: int = SIDE, height: int = SIDE, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """The header chunk; colour 0 is grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def idat(row_bytes: int = 3 * SIDE, rows: int = SIDE) -> bytes:
    """The pixels: rows of one filter byte and `row_bytes` samples."""
    return chunk(b"IDAT", zlib.compress(b"".join(bytes([0]) + bytes([row % 256]) * row_bytes for row in range(rows))))


def png(*chunks: bytes, header: bytes | None = None, pixels: bytes | None = None, end: bytes | None = None) -> bytes:
    """A PNG with more chunks before its pixels, and each of its own chunks in place of the valid one."""
    body = (ihdr() if header is None else header, *chunks, idat() if pixels is None else pixels)
    return MAGIC_PNG + b"".join(body) + (chunk(b"IEND") if end is None else end)


# JPEG (ITU T.81, annex B): segments of a marker, a length that counts itself, and a body.


def segment(marker: int, body: bytes = b"", length: int | None = None) -> bytes:
    """One segment; with a `length` that one instead of the right one."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2 if length is None else length) + body


def jpeg(*segments: bytes, source: bytes | None = None) -> bytes:
    """A valid JPEG with more segments at its start."""
    source = valid("JPEG") if source is None else source
    return START + b"".join(segments) + source[2:]


def jpeg_with(marker: int, new: bytes, source: bytes | None = None) -> bytes:
    """A valid JPEG whose first segment of a kind is replaced by `new`, which may be nothing."""
    source = valid("JPEG") if source is None else source
    at = 2
    while source[at + 1] != marker:
        at += 2 + int.from_bytes(source[at + 2 : at + 4], "big")
    end = at + 2 + int.from_bytes(source[at + 2 : at + 4], "big")
    return source[:at] + new + source[end:]


def frame(width: int, height: int, components: int = 3, kind: int = 0xC0, bits: int = 8, sampling: int = 0x11) -> bytes:
    """A start of frame; `kind` is its marker: 0xC0 is baseline, 0xC2 progressive, 0xC9 arithmetic coding."""
    parts = b"".join(bytes([index + 1, sampling, 0]) for index in range(components))
    return segment(kind, struct.pack(">BHHB", bits, height, width, components) + parts)


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG whose scans walk over all coefficients and change none: 30 bytes each, work for width x height.

    One code says that the next 27,306 blocks are empty, so a scan of a large picture takes a few bytes.
    """
    blocks = -(-width // 8) * -(-height // 8)
    bits = "010101010101010" * -(-blocks // 27_306)
    bits += "0" * (-len(bits) % 8)
    table = segment(0xC4, bytes([0x10, 1, *[0] * 15, 0xE0]))
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + int(bits, 2).to_bytes(len(bits) // 8, "big")
    quantisation = segment(0xDB, bytes([0]) + bytes([1]) * 64)
    return START + quantisation + frame(width, height, 1, 0xC2) + table + scan * scans + END


# TIFF 6.0: a directory of tags, each with a type, a count and a value or an offset to it.


class Tag(NamedTuple):
    """The entry of a tag as it stands in a file: its type, the number of its values, and the value or its offset.

    Types are 2 ASCII, 3 SHORT, 4 LONG, 5 RATIONAL, 7 UNDEFINED, 9 SLONG.
    """

    type: int
    length: int
    value: int


def short(value: int) -> Tag:
    """One 16-bit number."""
    return Tag(3, 1, value)


def long(value: int, count: int = 1) -> Tag:
    """One 32-bit number, or the offset of several."""
    return Tag(4, count, value)


PLAIN_TIFF: Mapping[int, Tag] = {
    256: short(SIDE),
    257: short(SIDE),
    258: short(8),
    259: short(1),
    262: short(1),
    273: long(8),
    277: short(1),
    278: short(SIDE),
    279: long(SIDE * SIDE),
}
"""Width, height, bits, compression, photometric, strip offset, samples, rows a strip, strip bytes of a grey picture."""

PAYLOAD = bytes(range(256)) * (SIDE * SIDE // 256)
"""The pixels of that picture, which stand at offset 8."""


def directory(tags: Mapping[int, Tag], order: str = "<", following: int = 0, entries: int | None = None) -> bytes:
    """A directory with the offset of the next; with `entries` that number of them instead of the right one."""
    body = struct.pack(f"{order}H", len(tags) if entries is None else entries)
    for number, tag in sorted(tags.items()):
        body += struct.pack(f"{order}HHI", number, tag.type, tag.length)
        body += struct.pack(f"{order}HH", tag.value, 0) if tag[:2] == (3, 1) else struct.pack(f"{order}I", tag.value)
    return body + struct.pack(f"{order}I", following)


def tiff(
    changes: Mapping[int, Tag | None] | None = None,
    payload: bytes = PAYLOAD,
    order: str = "<",
    following: int | None = None,
    entries: int | None = None,
) -> bytes:
    """A grey TIFF, its payload at offset 8 and its directory behind that, with tags changed or (None) left out.

    `following` is the offset of the next directory, counted from this one.
    """
    tags = {number: tag for number, tag in {**PLAIN_TIFF, **(changes or {})}.items() if tag is not None}
    at = 8 + len(payload)
    behind = 0 if following is None else at + following
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, at)
    return head + payload + directory(tags, order, behind, entries)


def exif(tags: Mapping[int, Tag], following: int = 0, rest: bytes = b"") -> bytes:
    """An EXIF block of one directory at offset 8, and bytes behind it."""
    return b"Exif\x00\x00II*\x00" + struct.pack("<I", 8) + directory(tags, following=following) + rest


# BMP: a file header of 14 bytes, an information header of 40 or other sizes, a palette, the pixels.


def bmp(
    width: int = SIDE,
    height: int = SIDE,
    bits: int = 8,
    compression: int = 0,
    colours: int = 0,
    palette: bytes = bytes(range(256)) * 4,
    pixels: bytes = PAYLOAD,
    offset: int | None = None,
    planes: int = 1,
) -> bytes:
    """A BMP with an information header of 40 bytes; bits, compression and palette as they are given."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, planes, bits, compression, len(pixels), 0, 0, colours, 0)
    start = 14 + len(header) + len(palette) if offset is None else offset
    size = 14 + len(header) + len(palette) + len(pixels)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, start) + header + palette + pixels


# WebP (RFC 9649): a RIFF file of chunks of a name, a length and a body that is padded to even.


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    """A WebP of some chunks; with a `size` that one instead of the right one."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def webp_chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """One chunk; with a `size` that one instead of the right one."""
    return name + struct.pack("<I", len(body) if size is None else size) + body + bytes(len(body) % 2)


def webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks of a WebP by their names, the last of each kind, whole."""
    found, at = {}, 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        found[data[at : at + 4]] = data[at : at + 8 + size + size % 2]
        at += 8 + size + size % 2
    return found


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    """The extended header; flags are 2 animation, 4 XMP, 8 EXIF, 16 alpha, 32 ICC."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sizes)


def vp8l(width: int, height: int, rest: int = 0b0001_0001_0001_0001_0001_000) -> bytes:
    """A lossless picture of one colour: its five codes have one symbol each, so that a pixel takes no bit at all.

    `rest` are the bits behind the header, read from the lowest: no transform, no cache, no tiles, and the codes.
    """
    bits = (width - 1) | (height - 1) << 14 | rest << 32
    return webp_chunk(b"VP8L", b"\x2f" + bits.to_bytes(16, "little"))


def one_frame(width: int, height: int) -> bytes:
    """A WebP of a large canvas, of which one frame of 128 x 96 covers a corner."""
    size = (127).to_bytes(3, "little") + (95).to_bytes(3, "little")
    body = bytes(6) + size + bytes(4) + webp_chunks(valid("WEBP"))[b"VP8 "]
    return riff(vp8x(width, height, 2), webp_chunk(b"ANIM", bytes(6)), webp_chunk(b"ANMF", body))
