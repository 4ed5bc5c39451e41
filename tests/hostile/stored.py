"""Hostile TIFF and BMP files: offsets, counts and sizes that lie."""

from __future__ import annotations

import struct
import zlib

from tests.helpers.scenes import encoded, moving
from tests.hostile.blocks import (
    PAYLOAD,
    PLAIN_TIFF,
    SIDE,
    Tag,
    bmp,
    directory,
    long,
    noisy,
    png,
    replaced,
    saved,
    short,
    tiff,
    valid,
    zeros_deflated,
)

_RLE8, _RLE4, _FIELDS = 1, 2, 3
_HUGE = 0xFFFF_FFFF

# What is changed in a plain grey TIFF. 256 is the width, 257 the height, 258 the bits of a sample, 259 the compression,
# 262 the photometric interpretation, 273 the strip offsets, 277 the samples of a pixel, 278 the rows of a strip, 279 the
# strip bytes, 284 the planes, 320 the palette, 322 to 325 the tiles, 339 the sample format.
_CHANGES: dict[str, dict[int, Tag | None]] = {
    "no width": {256: None},
    "no height": {257: None},
    "width is a text": {256: Tag(2, 4, 0x34363436)},
    "width is a fraction": {256: Tag(5, 1, 8)},
    "width is negative": {256: Tag(9, 1, 0xFFFF_FFC0)},
    "width has two values": {256: Tag(3, 2, 0x0040_0040)},
    "width has 4 thousand million values": {256: Tag(4, _HUGE, 8)},
    "no bits": {258: None},
    "bits 0": {258: short(0)},
    "bits 64": {258: short(64)},
    "bits 65,535": {258: short(65_535)},
    "bits of 2,000 samples": {258: Tag(3, 2_000, 8), 277: short(2_000)},
    "no compression tag": {259: None},
    "compression unknown": {259: short(65_000)},
    "compression is a text": {259: Tag(2, 3, 0x0041_4141)},
    "LZW of rubbish": {259: short(5)},
    "old JPEG without tables": {259: short(6), 262: short(6)},
    "JPEG of rubbish": {259: short(7)},
    "CCITT of rubbish": {259: short(4), 258: short(1)},
    "PackBits of rubbish": {259: short(32_773)},
    "deflate of rubbish": {259: short(8)},
    "LZMA of rubbish": {259: short(34_925)},
    "ZStandard of rubbish": {259: short(50_000)},
    "WebP of rubbish": {259: short(50_001)},
    "LERC of rubbish": {259: short(34_887)},
    "JPEG 2000 of rubbish": {259: short(34_712)},
    "photometric 65,535": {262: short(65_535)},
    "no photometric": {262: None},
    "palette without a palette": {262: short(3)},
    "palette that is short": {262: short(3), 320: Tag(3, 6, 8)},
    "palette outside the file": {262: short(3), 320: Tag(3, 768, _HUGE)},
    "YCbCr with sampling 0": {262: short(6), 277: short(3), 530: Tag(3, 2, 0), 259: short(5)},
    "no strip offsets": {273: None},
    "no strips": {273: Tag(4, 0, 0), 279: Tag(4, 0, 0)},
    "strips outside the file": {273: long(2**31)},
    "strips at the end of what 32 bits hold": {273: long(_HUGE)},
    "strip offset 0": {273: long(0)},
    "60,000 strips": {273: long(8, 60_000), 278: short(1)},
    "strip offsets have 4 thousand million values": {273: Tag(4, _HUGE, 8)},
    "strip offset is a text": {273: Tag(2, 4, 0x38383838)},
    "strip bytes 0": {279: long(0)},
    "strip bytes 4 GB": {279: long(_HUGE)},
    "strip bytes 0, deflate": {259: short(8), 279: long(0)},
    "strip bytes 4 GB, deflate": {259: short(8), 279: long(_HUGE)},
    "samples 0": {277: short(0)},
    "samples 65,535": {277: short(65_535)},
    "samples 4 thousand million": {277: long(_HUGE)},
    "rows of a strip 0": {278: short(0)},
    "rows of a strip 4 thousand million": {278: long(_HUGE)},
    "rows of a strip 0, deflate": {259: short(8), 278: short(0)},
    "planes 2, one strip": {284: short(2), 277: short(3), 262: short(2)},
    "planes 9": {284: short(9)},
    "tiles of no width": {273: None, 324: long(8), 322: short(0), 323: short(16)},
    "tiles without a size": {273: None, 324: long(8)},
    "tiles of 4 thousand million": {273: None, 324: long(8), 322: long(_HUGE), 323: long(_HUGE)},
    "tiles of 4 thousand million, deflate": {
        273: None,
        279: None,
        259: short(8),
        324: long(8),
        325: long(100),
        322: long(0xFFFF_FFF0),
        323: long(0xFFFF_FFF0),
    },
    "tiles of 65,520, LZW": {
        273: None,
        279: None,
        259: short(5),
        324: long(8),
        325: long(100),
        322: short(65_520),
        323: short(65_520),
    },
    "tiles": {273: None, 279: None, 322: short(64), 323: short(64), 324: long(8), 325: long(4096)},
    "tiles outside the picture": {273: None, 322: short(16), 323: short(16), 324: Tag(4, 900, 8)},
    "samples are floats": {339: short(3), 258: short(32)},
    "sample format 9": {339: short(9)},
    "predictor 3": {317: short(3), 259: short(8)},
    "predictor 60,000": {317: short(60_000), 259: short(5)},
    "fill order 2": {266: short(2)},
    "fill order 2, LZW": {266: short(2), 259: short(5)},
    "orientation 9": {274: short(9)},
    "orientation 6, cut": {274: short(6), 273: long(4_000)},
    "orientation is a text": {274: Tag(2, 4, 0x39393939)},
    "resolution 0 / 0": {282: Tag(5, 1, 4_000), 283: Tag(5, 1, 4_000), 296: short(2)},
    "resolution is a text": {282: Tag(2, 4, 0x39393939), 283: Tag(2, 4, 0x39393939)},
    "EXIF is the directory": {34665: long(8 + len(PAYLOAD)), 34853: long(8 + len(PAYLOAD))},
    "EXIF outside the file": {34665: long(_HUGE)},
    "EXIF before the file": {34665: Tag(9, 1, 0xFFFF_FFF0)},
    "EXIF is a text": {34665: Tag(2, 4, 0x39393939)},
    "directory below is the directory": {330: long(8 + len(PAYLOAD))},
    "profile is a number": {34675: long(7)},
    "profile outside the file": {34675: Tag(7, 5_000, _HUGE)},
    "Photoshop block is a number": {34377: short(3)},
    "XMP is a number": {700: short(3)},
    "description of 4 GB": {270: Tag(2, _HUGE, 8)},
    "types unknown": {270: Tag(99, 1, 0), 271: Tag(0, 1, 0), 272: Tag(65_535, 1, 0)},
    "extra samples 9": {338: short(9), 277: short(2)},
    "Windows Media Photo": {0xBC01: short(1)},
}


def tiff_files() -> dict[str, bytes]:
    """Directories that loop, tags that lie, compressions that are not there."""
    at = 8 + len(PAYLOAD)
    whole, big = valid("TIFF"), _big_tiff()
    bomb = zeros_deflated(100)
    # Pages of the fewest tags, each behind the last, that share their pixels.
    needed = {number: PLAIN_TIFF[number] for number in (256, 257, 258, 262, 273)}
    first, size = at + len(directory(PLAIN_TIFF)), len(directory(needed))
    pages = b"".join(directory(needed, following=first + size * (i + 1)) for i in range(2_500)) + directory(needed)
    strips = {259: short(8), 273: long(8), 279: long(len(bomb)), 278: short(SIDE)}
    same_row = zlib.compress(bytes(5_000))
    table = struct.pack("<I", 8) * 5_000 + struct.pack("<I", len(same_row)) * 5_000
    start = 8 + len(same_row)
    shared = {
        256: short(5_000),
        257: short(5_000),
        259: short(8),
        278: short(1),
        273: long(start, 5_000),
        279: long(start + 20_000, 5_000),
    }
    return {
        **{name: tiff(changes) for name, changes in _CHANGES.items()},
        "next directory is itself": tiff(following=0),
        "next directory outside the file": tiff(following=10**9),
        "next directory is the pixels": tiff(following=8 - at),
        "two directories in a ring": tiff(following=first - at) + directory(needed, following=at),
        "2,500 pages": tiff(following=first - at) + pages,
        "2,500 pages of nothing": tiff(following=first - at)
        + b"".join(directory({}, following=first + 6 * (i + 1)) for i in range(2_500)),
        "65,535 tags": tiff(entries=65_535),
        "65,535 tags of one kind": tiff()[:at]
        + struct.pack("<H", 65_535)
        + struct.pack("<HHII", 256, 3, 1, 64) * 15_000,
        "no tags": tiff(entries=0),
        "directory at 0": replaced(whole, 4, bytes(4)),
        "directory in the header": replaced(whole, 4, struct.pack("<I", 4)),
        "directory outside the file": replaced(whole, 4, b"\xff" * 4),
        "byte order is a lie": b"MM" + tiff()[2:],
        "version 41": replaced(whole, 2, b"\x29"),
        "big-endian": tiff(order=">"),
        "big-endian, cut": tiff(order=">")[: at + 60],
        "BigTIFF": big,
        "BigTIFF, cut": big[:60],
        "BigTIFF, directory outside": replaced(big, 8, b"\xff" * 8),
        "BigTIFF, tags without end": replaced(big, 16, b"\xff" * 8),
        "several pages": moving("TIFF"),
        "pixels inflate to 100 MB": tiff(strips, payload=bomb),
        "25 million pixels from one row": tiff(shared, payload=same_row + table),
        "tiled": encoded(noisy(), "TIFF", compression="tiff_lzw", tiffinfo={322: 64, 323: 64}),
        "CMYK": saved("CMYK", "TIFF"),
        "LAB": saved("LAB", "TIFF"),
        "floats": saved("F", "TIFF"),
        **{
            f"{name} with a hole": replaced(encoded(noisy(), "TIFF", compression=name), 500, bytes(900))
            for name in ("jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd")
        },
    }


def _big_tiff() -> bytes:
    """The plain grey picture with offsets of 64 bits."""
    tags = {256: SIDE, 257: SIDE, 258: 8, 259: 1, 262: 1, 273: 16 + 8 + 20 * 9 + 8, 277: 1, 278: SIDE, 279: SIDE * SIDE}
    entries = b"".join(struct.pack("<HHQQ", number, 4, 1, value) for number, value in tags.items())
    return b"II+\x00\x08\x00\x00\x00" + struct.pack("<QQ", 16, len(tags)) + entries + bytes(8) + PAYLOAD


def bmp_files() -> dict[str, bytes]:
    """Sizes, palettes and run lengths that go beyond the picture."""
    grey = bytes(value for level in range(256) for value in (level, level, level, 0))
    whole = valid("BMP")
    old = struct.pack("<IHHHH", 12, SIDE, SIDE, 1, 8)
    start = struct.pack("<IHHI", 5_000, 0, 0, 14 + 12 + 768)
    longer = struct.pack("<IiiHHIIiiII", 64, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(24)
    fields = struct.pack("<III", 0, 0, 0)
    files = {
        "negative height": bmp(height=-SIDE),
        "most negative height": bmp(height=-(2**31)),
        "negative width": bmp(width=-SIDE),
        "no width": bmp(width=0),
        "no planes": bmp(planes=0),
        "65,535 planes": bmp(planes=65_535),
        "4 thousand million colours": bmp(colours=_HUGE),
        "65,536 colours": bmp(colours=65_536),
        "no palette": bmp(palette=b""),
        "palette of 3 bytes": bmp(palette=b"\x01\x02\x03", pixels=b""),
        "palette of 2, indices to 255": bmp(colours=2, palette=bytes(range(8))),
        "palette of 1": bmp(colours=1, palette=b"\x01\x02\x03\x00"),
        "grey palette": bmp(palette=grey),
        "1 bit": bmp(bits=1, palette=bytes(range(8))),
        "4 bit": bmp(bits=4, palette=bytes(range(64))),
        "16 bit": bmp(bits=16, palette=b""),
        "32 bit": bmp(bits=32, palette=b"", pixels=PAYLOAD * 4),
        "pixels in the header": bmp(offset=14),
        "pixels at 0": bmp(offset=0),
        "pixels outside the file": bmp(offset=_HUGE),
        "no pixels": bmp(pixels=b""),
        "file size 0": replaced(whole, 2, bytes(4)),
        "compression JPEG": bmp(compression=4, pixels=valid("JPEG")),
        "compression PNG": bmp(compression=5, pixels=png()),
        "compression 4 thousand million": replaced(whole, 30, b"\xff" * 4),
        "bit fields of zeros": bmp(bits=32, compression=_FIELDS, palette=fields, pixels=PAYLOAD * 4),
        "bit fields of 8 bit": bmp(compression=_FIELDS),
        "bit fields cut": bmp(bits=16, compression=_FIELDS, palette=b"", pixels=b""),
        "runs beyond the row": bmp(compression=_RLE8, pixels=b"\xff\x01" * 5_000),
        "runs of nothing": bmp(compression=_RLE8, pixels=b"\x00\x01"),
        "runs that move beyond the end": bmp(compression=_RLE8, pixels=b"\x00\x02\xff\xff" * 5_000),
        "runs that move by nothing": bmp(compression=_RLE8, pixels=b"\x00\x02\x00\x00" * 20_000),
        "runs of no end of lines": bmp(compression=_RLE8, pixels=b"\x00\x00" * 50_000),
        "runs cut in a literal": bmp(compression=_RLE8, pixels=b"\x00\xff\x01"),
        "runs of 4 bit": bmp(bits=4, compression=_RLE4, pixels=b"\xff\x12" * 3_000),
        "runs of 4 bit, cut": bmp(bits=4, compression=_RLE4, pixels=b"\x00\x07\x12"),
        "runs that move over 25 million pixels": bmp(5_000, 5_000, compression=_RLE8, pixels=b"\x00\x02\x00\xff" * 20),
        "runs of 24 bit": bmp(bits=24, compression=_RLE8),
        "runs upside down": bmp(height=-SIDE, compression=_RLE8, pixels=b"\x40\x07" * SIDE),
        "OS/2": b"BM" + start + old + bytes(range(256)) * 3 + PAYLOAD,
        "OS/2, cut": b"BM" + start + old + bytes(range(256)),
        "OS/2, second version": b"BM" + struct.pack("<IHHI", 20_000, 0, 0, 78) + longer + PAYLOAD * 3,
    }
    bits = {f"bits {bits}": bmp(bits=bits) for bits in (0, 2, 3, 15, 64, 65_535)}
    sizes = (0, 11, 13, 39, 41, 108, 124, 0x7FFF_FFFF, _HUGE)
    return files | bits | {f"header of {size} bytes": replaced(whole, 14, struct.pack("<I", size)) for size in sizes}
