"""WebP: a picture, its alpha and profile, EXIF and XMP; no other chunk is kept.

Source: RFC 9649, 2.3 to 2.7: chunks of a four-byte name, a little-endian size and a payload padded to even.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image as Pil

from occpipe.core.provenance import mark
from occpipe.io.images.exif import exif_values, kept_exif
from occpipe.io.images.keeping import Keeping, Source
from occpipe.io.images.pictures import holds_picture
from occpipe.io.images.reasons import ImageError, ImageReason
from occpipe.io.images.xmp import kept_xmp

_QUALITY = 92  # the quality of the source is not stored
_PIXELS = {b"VP8 ", b"VP8L", b"ALPH", b"VP8X"}
_FRAME = b"ANMF"


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and payload of each chunk; the chunks in a frame of an animation follow the frame."""
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + (16 if name == _FRAME else size + size % 2)


def write(picture: Pil.Image, source: Source, keeping: Keeping) -> bytes:
    """A WebP with the picture, lossless if the source was, and the chunks of the source that are kept."""
    first: dict[bytes, bytes] = {}
    for name, payload in chunks(source.data):
        if name in (b"EXIF", b"XMP ", b"ICCP", *_PIXELS):
            first.setdefault(name, payload)
        elif name not in (_FRAME, b"ANIM"):  # an animation of one frame becomes a picture
            keeping.lose("C2PA manifest" if name == b"C2PA" else f"WebP {name.decode('latin-1')}")
    if source.data[8 + int.from_bytes(source.data[4:8], "little") :].strip(b"\0"):
        keeping.lose("data behind the end of the WebP")
    options: dict[str, Any] = {"quality": _QUALITY}
    if b"VP8L" in first and b"VP8 " not in first:
        options = {"lossless": True, "exact": True}
    if profile := first.get(b"ICCP"):
        if holds_picture(profile):
            keeping.lose("ICC profile (a picture)")
        else:
            options["icc_profile"] = profile
    if exif := kept_exif(first.get(b"EXIF", b""), source.orientation, keeping):
        options["exif"] = exif
    if xmp := mark(kept_xmp(first.get(b"XMP ", b""), keeping), keeping.mark):
        options["xmp"] = xmp
    out = io.BytesIO()
    picture.info = {}
    picture.save(out, "WEBP", **options)
    return out.getvalue()


def metadata(data: bytes) -> Iterator[bytes]:
    """The metadata of a written WebP. Raises ImageError for other chunks or bytes behind its end."""
    length = 12
    for name, payload in chunks(data):
        length += 8 + len(payload) + len(payload) % 2
        if name == b"EXIF":
            yield from (value.data for value in exif_values(payload))
        elif name in (b"XMP ", b"ICCP"):
            yield payload
        elif name not in _PIXELS:
            raise ImageError(ImageReason.EMBEDDED_PICTURE, f"a chunk {name!r}, which may be a picture")
    if length != len(data):
        raise ImageError(ImageReason.EMBEDDED_PICTURE, "bytes behind the end of a WebP")
