"""PNG: the chunks of the source that are on an allow-list and contain no other picture.

Sources: PNG Specification, third edition, 11; extensions to it 1.5.0; C2PA 2.1, A.3.4 (caBX).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as Pil
from PIL import ImageFile

from occpipe.core.provenance import mark
from occpipe.io.images.exif import exif_values, kept_exif
from occpipe.io.images.iptc import kept_resources
from occpipe.io.images.keeping import Keeping, Source
from occpipe.io.images.palettes import like_palette
from occpipe.io.images.pictures import holds_picture
from occpipe.io.images.reasons import ImageError, ImageReason
from occpipe.io.images.xmp import kept_xmp

MAGIC = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp"
# Colour and size stay with every policy, because the picture would look different without them.
_LOOK = {
    b"gAMA",
    b"cHRM",
    b"sRGB",
    b"iCCP",
    b"cICP",
    b"mDCV",
    b"mDCv",
    b"cLLI",
    b"cLLi",
    b"sBIT",
    b"pHYs",
    b"bKGD",
    b"tRNS",
}
_PLAIN = {b"sCAL", b"oFFs", b"pCAL", b"sTER"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_MAX_INFLATED = 8_000_000
Chunk = tuple[bytes, bytes]


def chunks(data: bytes) -> Iterator[Chunk]:
    """Name and payload of each chunk up to and with IEND."""
    at = len(MAGIC)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        yield name, data[at + 8 : at + 8 + size]
        at += 12 + size
        if name == b"IEND":
            return


def chunk(name: bytes, payload: bytes) -> bytes:
    """The bytes of a chunk."""
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def write(picture: Pil.Image, source: Source, keeping: Keeping) -> bytes:
    """A PNG with the picture, in the mode and the depth of the source, and the chunks of the source that are kept."""
    parts = [*chunks(source.data)]
    if len(MAGIC) + sum(12 + len(payload) for _, payload in parts) < len(source.data):
        keeping.lose("data behind the end of the PNG")
    header = next(payload for name, payload in parts if name == b"IHDR")
    if header[12]:
        keeping.lose("interlacing")
    palette = next((payload for name, payload in parts if name == b"PLTE"), b"")
    key = next((payload for name, payload in parts if name == b"tRNS"), b"")
    is_palette = source.image.mode == "P"
    picture = _like(picture, source.image, header, palette, key)
    if is_palette and picture.mode != "P":
        keeping.lose("palette")
        parts = [(name, payload) for name, payload in parts if name not in (b"tRNS", b"bKGD", b"sBIT")]
    out = io.BytesIO()
    options: dict[str, Any] = {"bits": header[8]} if picture.mode in ("P", "L") else {}
    picture.info = {}
    picture.save(out, "PNG", **options)
    pixels = [(name, payload) for name, payload in chunks(out.getvalue()) if name in (b"IHDR", b"IDAT")]
    before, behind = _kept_chunks(parts, source, keeping)
    table = [(b"PLTE", palette)] if picture.mode == "P" else []
    result = [pixels[0], *before, *table, *behind, *pixels[1:], (b"IEND", b"")]
    return MAGIC + b"".join(chunk(*part) for part in result)


def metadata(data: bytes) -> Iterator[bytes]:
    """The metadata of a written PNG, inflated. Raises ImageError for other chunks or bytes behind its end."""
    length = len(MAGIC)
    for name, payload in chunks(data):
        length += 12 + len(payload)
        if name == b"eXIf":
            yield from (value.data for value in exif_values(payload))
        elif name in _TEXTS:
            yield payload
            yield _text(name, payload)[1] or b""
        elif name == b"iCCP":
            yield _inflated(payload.partition(b"\0")[2][1:]) or b""
        elif name in _LOOK | _PLAIN:
            yield payload
        elif name not in _PIXELS:
            raise ImageError(ImageReason.EMBEDDED_PICTURE, f"a chunk {name!r}, which may be a picture")
    if length != len(data):
        raise ImageError(ImageReason.EMBEDDED_PICTURE, "bytes behind the end of a PNG")


def _like(picture: Pil.Image, original: ImageFile.ImageFile, header: bytes, palette: bytes, key: bytes) -> Pil.Image:
    """The picture in the mode of the source. Only pixels that had the transparent colour have it now."""
    if original.mode == "P":
        alphas = np.frombuffer(key.ljust(len(palette) // 3, b"\xff"), np.uint8)
        numbers = like_palette(picture, original, np.frombuffer(palette, np.uint8).reshape(-1, 3), alphas)
        if numbers is None and key:
            picture.putalpha(original.convert("RGBA").getchannel("A"))
        return numbers or picture
    if original.mode not in ("RGB", "L") or len(key) not in (2, 6):
        return picture
    scale = 255 // (2 ** header[8] - 1)
    transparent = np.frombuffer(key, ">u2").astype(np.int32) * (scale if original.mode == "L" else 1)
    new, old = (np.atleast_3d(np.asarray(image, np.uint8)) for image in (picture, original))
    was, is_now = ((pixels == transparent).all(axis=-1) for pixels in (old, new))
    pixels = new.copy()
    pixels[was] = old[was]
    near = int(transparent[-1])
    pixels[is_now & ~was, -1] = near - scale if near >= scale else near + scale
    return Pil.fromarray(pixels.reshape(np.asarray(picture).shape))


def _kept_chunks(parts: list[Chunk], source: Source, keeping: Keeping) -> tuple[list[Chunk], list[Chunk]]:
    """The chunks before the palette, and those behind it."""
    before: list[Chunk] = []
    behind: list[Chunk] = []
    xmp = b""
    exif = next((payload for name, payload in parts if name == b"eXIf"), b"") or _raw_exif(source.image)
    names: set[bytes] = set()
    for name, payload in parts:
        if name in _TEXTS:
            key, text = _text(name, payload)
            if key == _XMP and text is not None:
                xmp = text
            elif not keeping.strips_all:
                behind += _kept_text(name, payload, key, text, keeping)
        elif name in _LOOK or (name in _PLAIN and not keeping.strips_all):
            body = _inflated(payload.partition(b"\0")[2][1:]) if name == b"iCCP" else payload
            if name in names or body is None or holds_picture(body):
                keeping.lose(f"PNG {name.decode('latin-1')}")
            else:
                (behind if name in (b"tRNS", b"bKGD") else before).append((name, payload))
            names.add(name)
        elif name not in _PIXELS and name != b"eXIf":
            keeping.lose("C2PA manifest" if name == b"caBX" else f"PNG {name.decode('latin-1')}")
    if exif := kept_exif(exif, source.orientation, keeping):
        behind.append((b"eXIf", exif[6:]))
    if xmp := mark(kept_xmp(xmp, keeping), keeping.mark):
        behind.append((b"iTXt", _XMP + b"\0\0\0\0\0" + xmp))
    return before, behind


def _kept_text(name: bytes, payload: bytes, key: bytes, text: bytes | None, keeping: Keeping) -> list[Chunk]:
    """A text, unchanged. ImageMagick stores EXIF and IPTC as texts of hexadecimal digits, which are rewritten."""
    label = f"PNG text {key.decode('latin-1')}"
    if key in (b"Raw profile type exif", b"Raw profile type APP1"):
        return []  # goes into eXIf
    if key in (b"Raw profile type iptc", b"Raw profile type 8bim"):
        block = _raw_profile(text or b"")
        kept = kept_resources(block.removeprefix(b"Photoshop 3.0\0"), keeping)
        if not kept:
            keeping.lose(label)
            return []
        kind = key.rpartition(b" ")[2]
        digits = kept.hex().encode()
        lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        return [(b"zTXt", key + b"\0\0" + zlib.compress(b"\n%s\n%8d\n%s\n" % (kind, len(kept), lines)))]
    if text is None or holds_picture(text) or key.startswith(b"Raw profile type"):
        keeping.lose(label)
        return []
    return [(name, payload)]


def _raw_profile(text: bytes) -> bytes:
    try:
        return bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
    except ValueError:
        return b""


def _raw_exif(original: ImageFile.ImageFile) -> bytes:
    """EXIF in a text, as ImageMagick writes it."""
    text = original.info.get("Raw profile type exif") or original.info.get("Raw profile type APP1")
    return _raw_profile(text.encode("latin-1", "replace")) if isinstance(text, str) else b""


def _text(name: bytes, payload: bytes) -> tuple[bytes, bytes | None]:
    """Keyword and inflated text; None for a text that cannot be read or is too long."""
    key, _, rest = payload.partition(b"\0")
    if name == b"tEXt":
        return key, rest
    if name == b"zTXt":
        return key, _inflated(rest[1:])
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return key, None
    return key, _inflated(parts[2]) if rest[:1] == b"\x01" else parts[2]


def _inflated(data: bytes) -> bytes | None:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(data, _MAX_INFLATED)
    except zlib.error:
        return None
    return text if inflate.eof and not inflate.unused_data else None
