"""Blocks of metadata and other pictures, built byte by byte, without the code that is tested."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pil

from tests.helpers.scenes import encoded, photo

Field = tuple[int, int, bytes]
"""Tag, type and the bytes of the values."""

PREVIEW = encoded(photo("coffee", 96), "JPEG", quality=80)
RAW_PREVIEW = np.asarray(Pil.fromarray(photo("coffee", 24))).tobytes()
SMALL_PNG = encoded(photo("coffee", 48), "PNG")
SECRETS = (PREVIEW[len(PREVIEW) // 2 :][:40], RAW_PREVIEW[400:440], SMALL_PNG[len(SMALL_PNG) // 2 :][:40])
"""Bytes from within the pictures above: where they are found, the picture is still there."""

DESCRIPTION = "Palace, with a cat"
ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
_SIZES = {1: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, 13: 4, 16: 8}
_CODES = {1: "B", SHORT: "H", LONG: "I", RATIONAL: "I", 13: "I", 16: "Q"}


def field(order: str, tag: int, type_: int, *values: int | str | bytes) -> Field:
    """A field of numbers, of a text or of bytes."""
    if isinstance(values[0], str):
        return tag, type_, values[0].encode("latin-1") + b"\0"
    if isinstance(values[0], bytes):
        return tag, type_, values[0]
    return tag, type_, struct.pack(f"{order}{len(values)}{_CODES[type_]}", *values)


def directory(order: str, fields: Sequence[Field], at: int, following: int = 0, big: bool = False) -> bytes:
    """A directory at an offset, with its values behind it."""
    width, number = (8, "Q") if big else (4, "I")
    head = struct.pack(order + ("Q" if big else "H"), len(fields))
    size = len(head) + len(fields) * (4 + 2 * width) + width
    values = b""
    for tag, type_, data in sorted(fields):
        place = data.ljust(width, b"\0")
        if len(data) > width:
            place = struct.pack(order + number, at + size + len(values))
            values += data + b"\0" * (len(data) % 2)
        head += struct.pack(f"{order}HH{number}", tag, type_, len(data) // _SIZES[type_]) + place
    return head + struct.pack(order + number, following) + values


def described(order: str) -> list[Field]:
    """What the first directory says of a photo."""
    texts = ((270, DESCRIPTION), (271, "A maker"), (272, "A model"), (315, "A. Photographer"), (33432, "(c) 2026"))
    fields = [field(order, tag, ASCII, text) for tag, text in texts]
    return [
        *fields,
        field(order, 282, RATIONAL, 300, 1),
        field(order, 283, RATIONAL, 300, 1),
        field(order, 296, SHORT, 2),
    ]


def taken(order: str) -> list[Field]:
    """What the EXIF directory says."""
    return [
        field(order, 0x829A, RATIONAL, 1, 250),
        field(order, 0x9003, ASCII, "2026:01:02 03:04:05"),
        field(order, 0x9286, UNDEFINED, b"ASCII\0\0\0a remark"),
        field(order, 0xA434, ASCII, "A lens"),
    ]


def placed(order: str) -> list[Field]:
    """What the GPS directory says."""
    return [
        field(order, 1, ASCII, "N"),
        field(order, 2, RATIONAL, 48, 1, 51, 1, 29, 1),
        field(order, 3, ASCII, "E"),
        field(order, 4, RATIONAL, 2, 1, 17, 1, 40, 1),
    ]


def exif(
    order: str = "<",
    orientation: int = 1,
    note: bytes = b"",
    thumbnail: bytes = b"",
    length: int | None = None,
    more: Sequence[Field] = (),
    more_taken: Sequence[Field] = (),
    raw: bool = False,
) -> bytes:
    """An EXIF block with all directories; `raw` stores the thumbnail as pixels without a signature."""
    main = [*described(order), field(order, 0x0112, SHORT, orientation), *more]
    main += [field(order, 0x8769, LONG, 0), field(order, 0x8825, LONG, 0)]
    photo_fields = [*taken(order), *more_taken]
    if note:
        photo_fields.append(field(order, 0x927C, UNDEFINED, note))
    at = 8 + len(directory(order, main, 8))
    sub = directory(order, photo_fields, at)
    gps = directory(order, placed(order), at + len(sub))
    last = at + len(sub) + len(gps)
    places = {0x8769: at, 0x8825: at + len(sub)}
    main = [field(order, f[0], LONG, places[f[0]]) if f[0] in places else f for f in main]
    second = b""
    if thumbnail:
        tags = (0x0111, 0x0117) if raw else (0x0201, 0x0202)
        begin = last + 2 + 12 * 3 + 4
        begin += begin % 2
        size = len(thumbnail) if length is None else length
        entries = [field(order, 0x0103, SHORT, 1 if raw else 6), field(order, tags[0], LONG, begin)]
        second = directory(order, [*entries, field(order, tags[1], LONG, size)], last)
        second = second.ljust(begin - last, b"\0") + thumbnail
    block = directory(order, main, 8, last if thumbnail else 0) + sub + gps + second
    return b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + block


def nikon_note() -> bytes:
    """Nikon, type 3: an own TIFF header, and a directory of the preview."""
    at = 26
    note = b"Nikon\0\x02\x10\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0011, 4, 1, at, 0)
    entries = [(0x0103, 3, 6), (0x0201, 4, at + 42), (0x0202, 4, len(PREVIEW))]
    note += struct.pack("<H", 3) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries)
    return note + bytes(4) + PREVIEW


NOTES = {
    "Nikon": nikon_note(),
    "Pentax": b"AOC\0MM" + struct.pack(">H", 2) + struct.pack(">HHII", 3, 4, 1, len(PREVIEW)) + bytes(16) + PREVIEW,
    "Casio": b"QVC\0\0\0" + struct.pack(">HHHII", 1, 0x2000, 7, len(PREVIEW), 24) + bytes(4) + PREVIEW,
    "Sony Ericsson": b"SEMC MS\0\0\0\0\0" + struct.pack("<H", 0) + PREVIEW,
    "pixels": b"OLYMP\0\x01\0" + bytes(8) + RAW_PREVIEW,
}

_DESCRIPTION = (
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'dc:source="archive 7" xmp:Rating="4"{attributes}><dc:title><rdf:Alt><rdf:li xml:lang="x-default">Palace</rdf:li>'
    "</rdf:Alt></dc:title>{elements}</rdf:Description>"
)


def xmp(attributes: str = "", elements: str = "") -> bytes:
    """A packet with a source, a rating and a title."""
    inner = _DESCRIPTION.format(attributes=f" {attributes}" if attributes else "", elements=elements)
    head = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    return (head + inner + "</rdf:RDF></x:xmpmeta>").encode()


def base64_lines(data: bytes) -> str:
    """Base64 with breaks as Adobe's programs write them."""
    text = base64.b64encode(data).decode()
    return "&#xA;".join(text[at : at + 76] for at in range(0, len(text), 76))


XMP_THUMBNAILS = xmp(
    'xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/"',
    '<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource"><xmpGImg:format>JPEG</xmpGImg:format><xmpGImg:image>'
    + base64_lines(PREVIEW)
    + "</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>",
)
XMP_GAIN_MAP = xmp(
    'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" hdrgm:Version="1.0"',
    '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" '
    f'Item:Mime="image/jpeg" Item:Length="{len(PREVIEW)}"/></rdf:li></rdf:Seq></Container:Directory>',
)
XMP_MOTION = xmp(
    'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="9000"'
)
XMP_PLACE = xmp(
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'photoshop:City="Paris" exif:GPSLatitude="48,51.5N"'
)

IPTC = b"".join(
    b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value
    for number, value in (
        (80, b"A. Photographer"),
        (90, b"Paris"),
        (116, b"(c) 2026 Agency."),
        (120, b"Palace, with a cat"),
    )
)
IPTC_PREVIEW = IPTC + b"\x1c\x02\xc8\x00\x02\x00\x0b\x1c\x02\xca" + struct.pack(">H", len(PREVIEW)) + PREVIEW


def resource(number: int, data: bytes) -> bytes:
    """A resource of Photoshop's."""
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)


THUMBNAIL_RESOURCE = resource(1036, struct.pack(">IIIIIIHH", 1, 96, 64, 288, 18432, len(PREVIEW), 24, 1) + PREVIEW)


def png_chunk(name: bytes, payload: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def raw_profile(kind: str, data: bytes) -> bytes:
    """A profile as hexadecimal digits, as ImageMagick writes it."""
    digits = data.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = f"\n{kind}\n{len(data):8}\n{lines}\n".encode()
    return png_chunk(b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(text))
