"""PNG files of the collection."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image as Pil

from tests.roundtrip import blocks
from tests.roundtrip.blocks import PREVIEW, exif, png_chunk, raw_profile, resource, xmp
from tests.roundtrip.jpegs import PROFILE, scene

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(*chunks: bytes, mode: str = "RGB", behind: bytes = b"", **options: object) -> bytes:
    """A photo as a PNG, with chunks behind its header and bytes behind its end."""
    out = io.BytesIO()
    picture = Pil.fromarray(scene())
    if mode in ("RGBA", "LA"):
        picture.putalpha(ramp(picture))
    picture.convert(mode).save(out, "PNG", **options)
    data = out.getvalue()
    return data[:33] + b"".join(chunks) + data[33:] + behind


def ramp(picture: Pil.Image) -> Pil.Image:
    """Alpha from none to all."""
    row = np.linspace(0, 255, picture.width).astype(np.uint8)
    return Pil.fromarray(np.tile(row, (picture.height, 1)))


def palette(bits: int, transparent: bool = False) -> bytes:
    """A PNG of 2 to 256 colours."""
    image = Pil.fromarray(scene()).quantize(1 << bits)
    out = io.BytesIO()
    options = {"transparency": bytes([0, 128])} if transparent else {}
    image.save(out, "PNG", bits=bits, **options)
    return out.getvalue()


def grey(bits: int) -> bytes:
    """A grey PNG of few bits."""
    step = 255 // (2**bits - 1)
    pixels = np.asarray(Pil.fromarray(scene()).convert("L")) // step * step
    out = io.BytesIO()
    Pil.fromarray(pixels.astype(np.uint8)).save(out, "PNG", bits=bits)
    return out.getvalue()


def interlaced() -> bytes:
    """Adam7."""
    pixels = scene()
    rows = b""
    for x, y, across, down in _PASSES:
        part = pixels[y::down, x::across]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return blocks_of((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def blocks_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def itxt(key: bytes, text: bytes, compressed: bool = False) -> bytes:
    """An international text."""
    return png_chunk(
        b"iTXt", key + b"\0" + bytes([compressed]) + b"\0\0\0" + (zlib.compress(text) if compressed else text)
    )


def pngs() -> Iterator[tuple[str, bytes]]:
    """Names and bytes."""
    for mode in ("RGB", "RGBA", "L", "LA"):
        yield f"mode {mode}", png(mode=mode)
    for bits in (1, 2, 4, 8):
        yield f"palette of {bits} bits", palette(bits)
        yield f"palette of {bits} bits, transparent", palette(bits, transparent=True)
    for bits in (2, 4):
        yield f"grey of {bits} bits", grey(bits)
    colour = tuple(int(value) for value in scene()[40, 60])
    yield "one colour transparent", png(png_chunk(b"tRNS", struct.pack(">3H", *colour)))
    yield "one grey transparent", png(png_chunk(b"tRNS", struct.pack(">H", 100)), mode="L")
    yield "interlaced", interlaced()
    yield "gAMA", png(png_chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield (
        "gAMA and cHRM",
        png(
            png_chunk(b"gAMA", struct.pack(">I", 45_455)),
            png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        ),
    )
    yield "sRGB", png(png_chunk(b"sRGB", b"\1"))
    yield "cICP", png(png_chunk(b"cICP", b"\x09\x10\x00\x01"))
    yield "profile", png(icc_profile=PROFILE)
    yield "pHYs", png(png_chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)))
    yield "pHYs without a unit", png(png_chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0)))
    yield "sBIT and bKGD", png(png_chunk(b"sBIT", b"\5\6\5"), png_chunk(b"bKGD", bytes(6)))
    yield "time", png(png_chunk(b"tIME", struct.pack(">HBBBBB", 2026, 1, 2, 3, 4, 5)))
    yield (
        "texts",
        png(
            png_chunk(b"tEXt", b"Author\0A. Photographer"),
            png_chunk(b"zTXt", b"Description\0\0" + zlib.compress(b"Palace, with a cat")),
            itxt(b"Copyright", "© 2026".encode()),
            itxt(b"Comment", b"a remark", compressed=True),
        ),
    )
    yield "text with a picture in base64", png(png_chunk(b"tEXt", b"Preview\0" + base64.b64encode(PREVIEW)))
    yield "text with a picture, compressed", png(png_chunk(b"zTXt", b"Preview\0\0" + zlib.compress(PREVIEW)))
    yield "text with a picture in digits", png(itxt(b"Preview", PREVIEW.hex().encode(), compressed=True))
    for order in "<>":
        name = {"<": "little", ">": "big"}[order]
        yield f"EXIF {name}", png(png_chunk(b"eXIf", exif(order)[6:]))
        yield f"EXIF {name} thumbnail", png(png_chunk(b"eXIf", exif(order, thumbnail=PREVIEW)[6:]))
    yield "EXIF in a text", png(raw_profile("exif", exif(thumbnail=PREVIEW)))
    yield "EXIF in a text, turned", png(raw_profile("exif", exif(orientation=6)))
    for orientation in range(2, 9):
        yield f"orientation {orientation}", png(png_chunk(b"eXIf", exif(orientation=orientation)[6:]))
    yield "maker note", png(png_chunk(b"eXIf", exif(note=blocks.NOTES["Nikon"])[6:]))
    yield "XMP", png(itxt(b"XML:com.adobe.xmp", xmp()))
    yield "XMP compressed", png(itxt(b"XML:com.adobe.xmp", xmp(), compressed=True))
    yield "XMP thumbnails", png(itxt(b"XML:com.adobe.xmp", blocks.XMP_THUMBNAILS))
    yield "IPTC", png(raw_profile("iptc", resource(1028, blocks.IPTC)))
    yield "Photoshop thumbnail", png(raw_profile("8bim", resource(1028, blocks.IPTC) + blocks.THUMBNAIL_RESOURCE))
    yield "C2PA", png(png_chunk(b"caBX", b"\0\0\0\x1cjumb" + PREVIEW))
    yield "private chunk", png(png_chunk(b"prVw", PREVIEW), png_chunk(b"vpAg", bytes(9)))
    yield "private chunk of pixels", png(png_chunk(b"prVw", blocks.RAW_PREVIEW))
    yield "another PNG behind", png(behind=blocks.SMALL_PNG)
    yield "a JPEG behind", png(behind=PREVIEW)
    yield (
        "all",
        png(
            png_chunk(b"eXIf", exif(thumbnail=PREVIEW)[6:]),
            itxt(b"XML:com.adobe.xmp", blocks.XMP_PLACE),
            png_chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
            png_chunk(b"tEXt", b"Author\0A. Photographer"),
            mode="RGBA",
            icc_profile=PROFILE,
        ),
    )
