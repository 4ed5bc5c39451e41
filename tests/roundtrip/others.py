"""WebP, TIFF and BMP files of the collection."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as Pil

from tests.roundtrip import blocks
from tests.roundtrip.blocks import PREVIEW, directory, exif, field, resource, xmp
from tests.roundtrip.jpegs import PROFILE, scene
from tests.roundtrip.pngs import ramp


def saved(fmt: str, mode: str = "RGB", **options: Any) -> bytes:
    """The photo in a mode, by Pillow."""
    out = io.BytesIO()
    picture = Pil.fromarray(scene())
    if mode in ("RGBA", "LA"):
        picture.putalpha(ramp(picture))
    picture.convert(mode).save(out, fmt, **options)
    return out.getvalue()


def webp(*chunks: tuple[bytes, bytes], behind: bytes = b"", **options: Any) -> bytes:
    """A WebP with further chunks at its end, and bytes behind it."""
    data = saved("WEBP", **options)
    for name, payload in chunks:
        data += name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:] + behind


def webps() -> Iterator[tuple[str, bytes]]:
    """Names and bytes."""
    for lossless, mode in itertools.product((False, True), ("RGB", "RGBA")):
        name = f"{'lossless' if lossless else 'lossy'} {mode}"
        yield name, webp(mode=mode, lossless=lossless)
        yield (
            f"{name} all",
            webp(mode=mode, lossless=lossless, exif=exif(thumbnail=PREVIEW), xmp=blocks.XMP_PLACE, icc_profile=PROFILE),
        )
    for orientation in (3, 6, 8):
        yield f"orientation {orientation}", webp(lossless=True, exif=exif(orientation=orientation))
    yield "lossy, EXIF without a prefix", webp(exif=exif(">", thumbnail=PREVIEW)[6:])
    yield "lossy, maker note", webp(exif=exif(note=blocks.NOTES["Pentax"]))
    yield "lossy, XMP thumbnails", webp(xmp=blocks.XMP_THUMBNAILS)
    yield "lossy, private chunk", webp((b"prvw", PREVIEW), xmp=xmp())
    yield "lossy, a JPEG behind", webp(behind=PREVIEW)
    yield "lossy, C2PA", webp((b"C2PA", b"\0\0\0\x1cjumb" + PREVIEW), xmp=xmp())


def tiff(order: str = "<", big: bool = False, compressed: bool = True, preview: str = "", **more: bytes) -> bytes:
    """A TIFF with EXIF, GPS, XMP, IPTC and a profile, of two strips; `preview` says where another picture stands."""
    pixels = scene()
    height, width = pixels.shape[:2]
    half = height // 2
    strips = [part.tobytes() for part in (pixels[:half], pixels[half:])]
    strips = [zlib.compress(strip) if compressed else strip for strip in strips]
    strips = [strip + b"\0" * (len(strip) % 2) for strip in strips]
    body = b"".join(strips) + (PREVIEW + b"\0" * (len(PREVIEW) % 2) if preview else b"")
    head = 16 if big else 8
    starts = [head, head + len(strips[0])]
    sizes, extra = [*map(len, strips)], head + len(strips[0]) + len(strips[1])
    fields = [
        *blocks.described(order),
        field(order, 256, 4, width),
        field(order, 257, 4, height),
        field(order, 258, 3, 8, 8, 8),
        field(order, 259, 3, 8 if compressed else 1),
        field(order, 262, 3, 2),
        field(order, 273, 4, *starts),
        field(order, 277, 3, 3),
        field(order, 278, 4, half),
        field(order, 279, 4, *sizes),
        field(order, 700, 1, xmp()),
        field(order, 33723, 7, blocks.IPTC),
        field(
            order,
            34377,
            7,
            resource(1028, blocks.IPTC) + (blocks.THUMBNAIL_RESOURCE if preview == "Photoshop" else b""),
        ),
        field(order, 34675, 7, PROFILE),
        field(order, 33550, 7, bytes(24)),
        field(order, 50000, 7, PREVIEW if preview == "private" else b"private data"),
    ]
    if half * 2 != height:
        raise ValueError("an odd height makes three strips")
    pointers = [34665, 34853] + ([330] if preview == "sub-image" else [])
    at = head + len(body)
    kind = 16 if big else 4
    fields += [field(order, tag, kind, 0) for tag in pointers]
    ifd = directory(order, fields, at, big=big)
    below = {34665: blocks.taken(order), 34853: blocks.placed(order)}
    below[330] = [field(order, 259, 3, 7), field(order, 273, 4, extra), field(order, 279, 4, len(PREVIEW))]
    if preview == "maker note":
        below[34665].append(field(order, 0x927C, 7, blocks.NOTES["Nikon"]))
    tail, places = b"", {}
    for tag in pointers:
        places[tag] = at + len(ifd) + len(tail)
        tail += directory(order, below[tag], places[tag], big=big)
    following = 0
    fields = [field(order, f[0], kind, places[f[0]]) if f[0] in places else f for f in fields]
    ifd = directory(order, fields, at, following, big=big)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    magic += struct.pack(order + ("HHQ" if big else "I"), *((8, 0, at) if big else (at,)))
    return magic + body + ifd + tail


def tiffs() -> Iterator[tuple[str, bytes]]:
    """Names and bytes."""
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        for mode in ("RGB", "L", "RGBA", "P"):
            yield f"{compression} {mode}", saved("TIFF", mode, compression=compression)
    yield "raw LA", saved("TIFF", "LA")
    yield "jpeg RGB", saved("TIFF", compression="jpeg", quality=90)
    yield "jpeg L", saved("TIFF", "L", compression="jpeg", quality=90)
    yield "lzw predicted", saved("TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    for order, big, compressed in itertools.product("<>", (False, True), (False, True)):
        if big and order == ">":
            continue  # Pillow reads no such file
        name = " ".join(
            ("big" if order == ">" else "little", "BigTIFF" if big else "TIFF", "deflate" if compressed else "raw")
        )
        yield f"{name}, all", tiff(order, big, compressed)
        for preview in ("sub-image", "Photoshop", "maker note", "private"):
            yield f"{name}, {preview}", tiff(order, big, compressed, preview)
    for orientation in range(2, 9):
        yield f"orientation {orientation}", saved("TIFF", tiffinfo={274: orientation, 282: 300.0, 283: 150.0, 296: 2})


def bmp(
    bits: int, header: int = 40, masks: tuple[int, ...] = (), behind: bytes = b"", gap: bytes = b"", **more: Any
) -> bytes:
    """A BMP of 16, 24 or 32 bits; `masks` are those of red, green, blue and alpha."""
    pixels = scene().astype(np.uint32)
    height, width = pixels.shape[:2]
    places = masks or ((0x7C00, 0x03E0, 0x1F) if bits == 16 else (0xFF0000, 0xFF00, 0xFF))
    words = np.zeros((height, width), np.uint32)
    for channel, mask in enumerate(places[:3]):
        shift = (mask & -mask).bit_length() - 1
        words |= pixels[..., channel] * (mask >> shift) // 255 << shift
    if len(places) > 3:
        words |= np.tile(np.linspace(0, 255, width).astype(np.uint32), (height, 1)) << 24
    rows = words.astype("<u4").view(np.uint8).reshape(height, width, 4)[..., : bits // 8].reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    if not more.get("top_down"):
        rows = rows[::-1]
    body = rows.tobytes()
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        signed = -height if more.get("top_down") else height
        kind = 3 if masks else 0
        head = struct.pack("<IiiHHIIiiII", header, width, signed, 1, bits, kind, len(body), 11811, 11811, 0, 0)
        head += struct.pack(f"<{len(masks)}I", *masks)
        head = head.ljust(header if header > 40 else len(head), b"\0")
    profile: bytes = more.get("profile", b"")
    if profile:
        start = len(head) + len(gap) + len(body)
        head = head[:56] + b"DEBM" + head[60:112] + struct.pack("<II", start, len(profile)) + head[120:]
    offset = 14 + len(head) + len(gap)
    whole = offset + len(body) + len(profile)
    return b"BM" + struct.pack("<IHHI", whole, 0, 0, offset) + head + gap + body + profile + behind


def palette_bmp(bits: int, run_length: bool = False) -> bytes:
    """A BMP of 2 to 256 colours; run-length coded, each pixel is a run."""
    image = Pil.fromarray(scene()).quantize(1 << bits)
    numbers = np.asarray(image)
    height, width = numbers.shape
    colours = np.zeros((1 << bits, 4), np.uint8)
    known = np.frombuffer(bytes(image.getpalette() or ()), np.uint8).reshape(-1, 3)[: 1 << bits]
    colours[: len(known), :3] = known[:, ::-1]
    if run_length:
        runs = np.dstack([np.ones_like(numbers), numbers])[::-1]
        body = b"".join(row.tobytes() + b"\0\0" for row in runs) + b"\0\1"
    else:
        each = 8 // bits
        wide = np.pad(numbers, ((0, 0), (0, -width % (each * 4)))).reshape(height, -1, each)
        shifts = [bits * (each - 1 - n) for n in range(each)]
        body = np.bitwise_or.reduce(wide << np.array(shifts, np.uint8), axis=-1).astype(np.uint8)[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, int(run_length), len(body), 2835, 2835, 1 << bits, 0)
    offset = 14 + len(head) + colours.nbytes
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + head + colours.tobytes() + body


def bmps() -> Iterator[tuple[str, bytes]]:
    """Names and bytes."""
    yield "24 bits", bmp(24)
    yield "24 bits, version 1", bmp(24, header=12)
    yield "24 bits, from the top", bmp(24, top_down=True)
    yield "24 bits, version 5, profile", bmp(24, header=124, profile=PROFILE)
    yield "32 bits", bmp(32)
    yield "32 bits, alpha", bmp(32, header=108, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    yield "16 bits", bmp(16)
    yield "16 bits, 565", bmp(16, masks=(0xF800, 0x07E0, 0x1F))
    for bits in (1, 4, 8):
        yield f"palette of {bits} bits", palette_bmp(bits)
    yield "run-length coded", palette_bmp(8, run_length=True)
    yield "grey", saved("BMP", "L")
    yield "a JPEG before the pixels", bmp(24, gap=PREVIEW + b"\0" * (-len(PREVIEW) % 4))
    yield "a JPEG behind", bmp(24, behind=PREVIEW)
