"""The picture of a JPEG, coded like its source: tables by component, any chroma sampling, RGB or YCbCr.

Source: ITU-T T.81, annexes A and B. Pillow has three samplings. For another one each component is encoded as a grey JPEG
of its own size. Their scans are put into one file, because a scan of one component has the same code in both.
"""

from __future__ import annotations

import io
import re
import struct
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageFile, JpegImagePlugin

from occpipe.io.images.jpeg_markers import FRAMES
from occpipe.io.images.keeping import Keeping

_SOS, _EOI, _DQT = 0xDA, 0xD9, 0xDB
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_Table = list[int]


def encoded(picture: Pil.Image, original: ImageFile.ImageFile, keeping: Keeping) -> bytes:
    """A JPEG without metadata. Properties of the source that the encoder cannot keep are named in `keeping`."""
    if not isinstance(original, JpegImagePlugin.JpegImageFile):  # an MPO is a subclass
        raise TypeError(f"not a JPEG: {original.format}")
    layers = original.layer
    tables = [[*original.quantization.get(layer[3], ())] for layer in layers]
    sampling = [(int(layer[1]), int(layer[2])) for layer in layers]
    progressive = bool(original.info.get("progressive"))
    keep_rgb = is_rgb(original)
    if picture.mode == "RGB" and not keep_rgb and JpegImagePlugin.get_sampling(original) < 0:
        try:
            return _stitched(picture, sampling, tables, progressive)
        except (OSError, ValueError, TypeError):
            keeping.lose("chroma subsampling")
    while len(tables) > 2 and tables[-1] == tables[-2]:
        tables.pop()  # Pillow uses the last table for all further components
    options = {"keep_rgb": keep_rgb, "subsampling": max(JpegImagePlugin.get_sampling(original), 0)}
    # libjpeg optimises in a buffer for the whole file, and Pillow's guess of two bytes a pixel can be too low.
    for optimize in (True, False):
        try:
            attempt = {"qtables": tables, "optimize": optimize, "progressive": progressive and optimize}
            data = _saved(picture, options | attempt)
        except (OSError, ValueError, TypeError):
            continue
        if progressive and not optimize:
            keeping.lose("progressive")
        return data
    keeping.lose("quantisation tables")
    return _saved(picture, options | {"quality": _nearest_quality(tables[0])})


def is_rgb(original: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether the components are red, green and blue and not YCbCr, by the rules of libjpeg."""
    if len(original.layer) != 3 or "jfif" in original.info:
        return False
    if "adobe" in original.info:
        return original.info.get("adobe_transform") == 0
    return tuple(int(layer[0]) for layer in original.layer) == (82, 71, 66)


def _saved(picture: Pil.Image, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    picture.info = {}
    picture.save(out, "JPEG", **options)
    return out.getvalue()


def _nearest_quality(table: _Table) -> int:
    """The quality whose luma table has about the same sum as this one."""
    total = sum(table)
    return min(range(1, 101), key=lambda quality: abs(_coarseness(quality) - total))


@cache
def _coarseness(quality: int) -> int:
    with JpegImagePlugin.JpegImageFile(io.BytesIO(_saved(Pil.new("L", (8, 8)), {"quality": quality}))) as image:
        return sum(image.quantization[0])


def _stitched(picture: Pil.Image, sampling: list[tuple[int, int]], tables: list[_Table], progressive: bool) -> bytes:
    """One JPEG of three components, each encoded alone at its own size."""
    wide, high = (max(factors) for factors in zip(*sampling, strict=True))
    frame, quantisation, components, scans = 0xC0, b"", b"", b""
    for number, (channel, (h, v), table) in enumerate(zip(_components(picture), sampling, tables, strict=True)):
        small = -(-picture.width * h // wide), -(-picture.height * v // high)
        if wide % h == 0 and high % v == 0:
            channel = channel.reduce((wide // h, high // v))
        elif channel.size != small:
            channel = channel.resize(small, Pil.Resampling.BOX)
        grey = _saved(channel, {"qtables": [table], "optimize": True, "progressive": progressive})
        marker, coarse, coded = _parts_of_grey(grey, number + 1)
        frame = max(frame, marker)
        quantisation += (
            struct.pack(">BBH", 0xFF, _DQT, len(coarse) + 2) + bytes([coarse[0] & 0xF0 | number]) + coarse[1:]
        )
        components += bytes([number + 1, h << 4 | v, number])
        scans += coded
    head = struct.pack(">BBHBHHB", 0xFF, frame, 8 + len(components), 8, picture.height, picture.width, 3)
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    return b"\xff\xd8" + jfif + quantisation + head + components + scans + b"\xff\xd9"


def _components(picture: Pil.Image) -> tuple[Pil.Image, ...]:
    """Y, Cb and Cr of an RGB picture; the conversion of Pillow rounds down, which darkens by half a level."""
    y, cr, cb = cv2.split(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2YCrCb))
    return tuple(map(Pil.fromarray, (y, cb, cr)))


def _parts_of_grey(data: bytes, number: int) -> tuple[int, bytes, bytes]:
    """The marker of the frame, the table and the scans with Huffman tables of a grey JPEG, renamed to a component."""
    at, frame, table, coded = 2, 0, b"", b""
    while data[at + 1] != _EOI:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + size
        if marker in FRAMES:
            frame = marker
        elif marker == _DQT:
            table = data[at + 4 : end]
        elif marker == _SOS:
            match = _NEXT_MARKER.search(data, end)
            end = match.start() if match else len(data)
            coded += data[at : at + 5] + bytes([number]) + data[at + 6 : end]
        elif frame:
            coded += data[at:end]
        at = end
    return frame, table, coded
