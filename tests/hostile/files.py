"""Over 220 hostile or broken image files, as a stranger may put them into a corpus: the same on every machine.

Nothing here is dangerous to open: the scripts end themselves, and each file is smaller than 200 kB. What grows when it is
unpacked does so within what `Limits` allows, or claims more than that.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
from functools import cache

from tests.helpers.scenes import encoded, gradient
from tests.hostile.blocks import (
    EXTENSIONS,
    SIDE,
    START,
    bmp,
    chunk,
    frame,
    idat,
    ihdr,
    jpeg,
    jpeg_with,
    long,
    many_scans,
    one_frame,
    png,
    replaced,
    riff,
    segment,
    short,
    tiff,
    valid,
    vp8l,
    vp8x,
    webp_chunks,
    zeros_deflated,
)
from tests.hostile.coded import jpeg_files, png_files, webp_files
from tests.hostile.stored import bmp_files, tiff_files

_CUTS = (1, 3, 8, 20, 40, 0.25, 0.5, 0.75, 0.95, -1)
"""Bytes that are left, or the share of them, or (negative) bytes that are cut off."""
_SIZES = ((0, 0), (1, 0), (1, 1), (1, 20_000), (20_000, 1), (31, 31), (32, 32), (32, 20_000), (20_000, 32))
"""Width and height."""

_NAMES = (
    "a space  -rf  --help  -  ~  ~root  ${HOME}  $(exit 1)  `exit 1`  ; exit 1  | exit 1  && exit 1  > x  !  ^",
    "'quoted'  \"quoted\"  *  ?  [a-z]  [!a]  **",
    ".hidden  ..two dots  ...  a..b  CON  con  nul  aux.x  Case  case  Straße  STRASSE  \u00e9  e\u0301  .occpipe/x",
    "x.jpg  x.jpg.exe  x.tar.gz  .jpg  folder.jpg/in a folder called a picture  _temporary/0",
    "%2e%2e  %2e%2e%2fetc%2fpasswd  %00  %25  100%  #anchor  ?query=1  a&b  @  +  a+b  file:x  C:x  %s%n%d  {name}",
    "{0.__class__}  <script>alert(1)<  &lt;b&gt;  =HYPERLINK(1)  =cmd|' exit 1'!A0  +1  a,b  a;b  a=b  ' OR 1=1 --",
    "null  None  nan  1e9  0x10  true",
    "😀  👩\u200d👩\u200d👧  猫  кот  שלום  مرحبا  \u202egpj.exe  a\u200bb  a\u00a0b  \ufeffa",
    "\ufb01  \u0130  \u0131  р\u0430ypal  \U0001d552  a\u0301\u0301\u0301\u0301\u0301\u0301  \u2028  \u0085  \ue000",
)
"""Names two spaces apart: for shells, file systems, URLs, what builds pages, tables and queries, eyes and counters."""


@cache
def hostile_files() -> dict[str, bytes]:
    """All files: relative name to bytes, no two with the same bytes. Every name is safe as a key of a store."""
    families = {
        "cut": (cuts(), ""),
        "damaged": (damages(), ""),
        "bomb": (bombs(), ""),
        "png": (png_files(), ".png"),
        "jpeg": (jpeg_files(), ".jpeg"),
        "webp": (webp_files(), ".webp"),
        "tiff": (tiff_files(), ".tiff"),
        "bmp": (bmp_files(), ".bmp"),
        "liar": (liars(), ""),
        "size": (sizes(), ""),
    }
    files = {f"{family}/{name}{end}": data for family, (made, end) in families.items() for name, data in made.items()}
    return files | odd_names()


def cuts() -> dict[str, bytes]:
    """Valid files of which the end is missing, as a broken download leaves them."""
    files = {}
    for fmt, extension in EXTENSIONS.items():
        data = valid(fmt)
        for cut in _CUTS:
            files[f"{fmt} at {cut}{extension}"] = data[: cut if isinstance(cut, int) else int(cut * len(data))]
    return files


def damages() -> dict[str, bytes]:
    """Valid files with flipped bits and overwritten ranges, as a failing disk leaves them, or a fuzzer."""
    files = {}
    for fmt, extension in EXTENSIONS.items():
        data, dice = valid(fmt), random.Random(fmt)
        for number, flips in enumerate((1, 1, 2, 8, 64, 512)):
            broken = bytearray(data)
            for _ in range(flips):
                broken[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            files[f"{fmt} {number} with {flips} bits flipped{extension}"] = bytes(broken)
        for name, filler in {"zeros": b"\x00", "ones": b"\xff", "text": b"A", "its own start": data[:16]}.items():
            at, length = dice.randrange(16, len(data) // 2), dice.randrange(50, 400)
            files[f"{fmt} with {name} in it{extension}"] = replaced(data, at, (filler * length)[:length])
        files[f"{fmt} with a header of noise{extension}"] = replaced(data, 12, dice.randbytes(40))
    return files


def bombs() -> dict[str, bytes]:
    """Small files of many pixels, over the limit by their header or just below it."""
    files: dict[str, bytes] = {}
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (100_001, 1_000), (9_999, 9_999)):
        size = f"{width} x {height}"
        files |= {
            f"PNG {size}.png": png(header=ihdr(width, height)),
            f"BMP {size}.bmp": bmp(width, height, bits=24, palette=b""),
            f"BMP upside down {size}.bmp": bmp(width, -height, bits=24, palette=b""),
            f"TIFF {size}.tif": tiff({256: long(width), 257: long(height), 278: long(height)}),
            f"TIFF deflate {size}.tif": tiff({256: long(width), 257: long(height), 278: long(height), 259: short(8)}),
        }
    lossy = webp_chunks(valid("WEBP"))[b"VP8 "]
    for width, height in ((65_535, 65_535), (60_000, 60_000), (9_999, 9_999)):
        files[f"JPEG {width} x {height}.jpg"] = jpeg_with(0xC0, frame(width, height))
        files[f"JPEG progressive {width} x {height}.jpg"] = many_scans(width, height, 2)
    return files | {
        "WebP lossy 16383 x 16383.webp": riff(replaced(lossy, 14, b"\xff\x3f\xff\x3f")),
        "WebP lossless 16383 x 16383.webp": riff(vp8l(16_383, 16_383)),
        "WebP lossless of 98 million pixels.webp": riff(vp8l(16_383, 6_000)),
        "WebP extended 60000 x 60000.webp": riff(vp8x(60_000, 60_000), lossy),
        "WebP canvas 60000 x 60000.webp": one_frame(60_000, 60_000),
        "WebP canvas 16777215 x 255.webp": one_frame(2**24 - 1, 255),
        "WebP canvas 9999 x 9999.webp": one_frame(9_999, 9_999),
        "PNG of 98 million pixels, 8 bit.png": png(
            header=ihdr(10_000, 9_800, colour=0), pixels=chunk(b"IDAT", zeros_deflated(94))
        ),
        "PNG of 98 million pixels, 1 bit.png": png(
            header=ihdr(10_000, 9_800, depth=1, colour=0), pixels=chunk(b"IDAT", zeros_deflated(12))
        ),
        "PNG interlaced 5000 x 5000.png": png(
            header=ihdr(5_000, 5_000, colour=0, interlace=1), pixels=chunk(b"IDAT", zeros_deflated(25))
        ),
    }


def liars() -> dict[str, bytes]:
    """Other kinds of file under an image's name, and files that are two kinds at once."""
    picture, graphic = valid("JPEG"), b"GIF89a\x40\x00\x40\x00\x80\x00\x00" + bytes(6) + b",\x00" + bytes(20) + b";"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo("../../outside.jpg"), picture)
    html = b"<!doctype html><script>alert(document.domain)</script>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><image href="file:///etc/passwd"/></svg>'
    bomb = zeros_deflated(100)
    return {
        "html.jpg": html,
        "svg.png": svg,
        "svg with a declaration.webp": b'<?xml version="1.0"?>' + svg,
        "pdf.jpg": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert\\(1\\))>>>>endobj\n%%EOF",
        "zip.jpg": archive.getvalue(),
        "gif.jpg": graphic,
        "elf.jpg": b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + bytes(100),
        "exe.bmp": b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\x00\x00" + bytes(100),
        "shell.jpg": b"#!/bin/sh\nexit 1\n",
        "python.png": b"raise SystemExit(1)\n",
        "pickle.jpg": b"cos\nsystem\n(S'exit 1'\ntR.",
        "parquet.tif": b"PAR1" + bytes(100) + struct.pack("<I", 100) + b"PAR1",
        "gzip bomb.jpg": b"\x1f\x8b\x08" + bytes(7) + bomb[2:-4] + bytes(8),
        "tar.jpg": b"../../outside.jpg".ljust(257, b"\x00") + b"ustar\x0000" + bytes(248),
        "postscript.tif": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(%pipe%exit) (w) file\n%%EOF",
        "magick vector.png": b"push graphic-context\nfill 'url(https://127.0.0.1/x.jpg\"|exit \"1)'\npop graphic-context",
        "photoshop.tif": b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(50),
        "jpeg 2000.jpg": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100),
        "avif.webp": b"\x00\x00\x00\x1cftypavif" + bytes(100),
        "heic.jpg": b"\x00\x00\x00\x18ftypheic" + bytes(100),
        "video.jpg": b"\x00\x00\x00\x18ftypisom" + bytes(100),
        "icon.png": b"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x01\x00\x20\x00" + bytes(50),
        "text with a byte order mark.jpg": "\ufeffa text".encode("utf-16"),
        "entities.tiff": b'<!DOCTYPE a [<!ENTITY a "a"><!ENTITY b "&a;&a;&a;&a;">]><a>&b;</a>',
        "picture with a zip behind.jpg": picture + archive.getvalue(),
        "picture with a program behind.png": png() + b"\x7fELF" + bytes(200),
        "picture with html in its comment.jpg": jpeg(segment(0xFE, b"--><script>alert(1)</script>" + html)),
        "picture with php in its text.png": png(chunk(b"tEXt", b"Comment\x00<?php exit(1); ?>")),
        "picture with a script in its palette.bmp": bmp(palette=(b"<script>alert(1)</script>" * 60)[:1024]),
        "gif, then jpeg.jpg": b"GIF89a" + picture,
        "gif, then png.png": graphic + png(),
        "html, then jpeg.jpg": html + picture,
        "jpeg called png.png": jpeg(segment(0xFE, b"I am no PNG")),
        "png called jpeg.jpg": png(chunk(b"tEXt", b"Comment\x00I am no JPEG")),
        "png in a tiff's clothes.tif": b"II*\x00" + png(),
        "jpeg magic, png behind.jpg": START + png(),
        "bmp magic and text.bmp": b"BM is what this text begins with, and it goes on for long enough to be a header.",
        "tiff magic and noise.tif": b"II*\x00" + random.Random(1).randbytes(5_000),
        "webp magic and noise.webp": b"RIFF\xff\xff\x00\x00WEBPVP8 " + random.Random(2).randbytes(5_000),
        "png magic and noise.png": b"\x89PNG\r\n\x1a\n" + random.Random(3).randbytes(5_000),
        "jpeg magic and noise.jpg": b"\xff\xd8\xff\xe0" + random.Random(4).randbytes(5_000),
        "empty.jpg": b"",
        "a zero.png": b"\x00",
        "zeros.jpg": bytes(100_000),
        "ones.jpg": b"\xff" * 100_000,
        "start of jpeg, without end.jpg": START + b"\xff" * 50_000,
        "newlines.bmp": b"\n" * 5_000,
    }


def sizes() -> dict[str, bytes]:
    """Pictures of no pixels, of one, as thin as a line, and at the smallest side that is read."""
    files = {}
    for width, height in _SIZES:
        size = f"{width} x {height}"
        files[f"PNG {size}.png"] = png(header=ihdr(width, height), pixels=idat(3 * width, height))
        files[f"BMP {size}.bmp"] = bmp(width, height, pixels=bytes((width + 3) // 4 * 4 * height)[:150_000])
        tags = {256: long(width), 257: long(height), 278: long(height), 279: long(width * height)}
        files[f"TIFF {size}.tif"] = tiff(tags, payload=bytes(width * height)[:150_000])
        files[f"JPEG {size}.jpg"] = _jpeg_of(width, height)
        if width and height:
            files[f"WebP {size}.webp"] = riff(vp8l(min(width, 16_383), min(height, 16_383)))
    return files


def _jpeg_of(width: int, height: int) -> bytes:
    if width == 0 or height == 0:
        return jpeg_with(0xC0, frame(width, height))
    return encoded(gradient(height, width), "JPEG", quality=20)


def odd_names() -> dict[str, bytes]:
    """Valid pictures under names that aim at shells, file systems, URLs, HTML, tables and the eyes of people."""
    names = [name for line in _NAMES for name in line.split("  ")]
    names += [
        " a space first",
        "a space last ",
        "a" * 251,
        "猫" * 83 + "ab",
        "a/" * 100 + "deep",
        "/".join(["d" * 200] * 4),
    ]
    files = {f"names/{name}.jpg": _named(name) for name in names}
    return files | {"names/upper case.JPG": _named("upper case"), "names/no stem/.png": png(chunk(b"tEXt", b"a\x00b"))}


def _named(name: str) -> bytes:
    return jpeg(segment(0xFE, name.encode()), source=encoded(gradient(SIDE, SIDE)))
