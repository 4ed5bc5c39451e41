"""Photoshop's image resources and the IPTC records in them, from allow-lists.

Sources: Adobe Photoshop File Formats, "Image Resource Blocks"; IPTC-NAA IIM 4.2, chapters 1 and 6.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from occpipe.io.images.keeping import Keeping
from occpipe.io.images.pictures import holds_picture

IPTC = 0x0404
_DIGEST = 0x0425
# resolution, alpha names, caption, borders, background, print flags, JPEG quality, grid, copyrighted, URL, angle and
# altitude of light, seed of identifiers, list of URLs, version
_RESOURCES = {
    *(0x03ED, 0x03EE, 0x03F0, 0x03F1, 0x03F2, 0x03F3, 0x0406, 0x0408, 0x040A, 0x040B, 0x040D, 0x0411, 0x0414),
    *(0x0419, 0x041A, 0x041E, 0x0421, 0x0425, 0x2710),
}
_THUMBNAILS = {0x0409, 0x040C}
_OBJECT_PREVIEW = {200, 201, 202}
_PLACES = {26, 27, 90, 92, 95, 100, 101}  # content location; city, sublocation, province, code and name of the country
_PLAIN_RECORDS = {1, 2}  # records 7, 8 and 9 contain an object, which may be a picture


def kept_resources(block: bytes, keeping: Keeping) -> bytes:
    """Image resources without thumbnails, with IPTC records without previews; empty if nothing stays."""
    if keeping.strips_all or not block:
        return b""
    kept: list[tuple[int, bytes, bytes]] = []
    try:
        for number, name, data in resources(block):
            if number in _THUMBNAILS:
                keeping.lose("Photoshop thumbnail")
            elif number == IPTC:
                kept.append((number, name, kept_iptc(data, keeping)))
            elif number not in _RESOURCES or holds_picture(data):
                keeping.lose(f"Photoshop resource 0x{number:04x}")
            else:
                kept.append((number, name, data))
    except ValueError:
        keeping.lose("Photoshop resources (broken)")
    records = b"".join(data for number, _, data in kept if number == IPTC)
    out = b""
    for number, name, data in kept:
        if number == IPTC and not data:
            continue
        value = hashlib.md5(records, usedforsecurity=False).digest() if number == _DIGEST else data
        out += (
            b"8BIM"
            + struct.pack(">H", number)
            + name
            + struct.pack(">I", len(value))
            + value
            + b"\0" * (len(value) % 2)
        )
    return out


def resource_values(block: bytes) -> Iterator[bytes]:
    """The data of all resources; ValueError for a resource that is not on the list."""
    for number, _, data in resources(block):
        if number != IPTC and number not in _RESOURCES:
            raise ValueError(f"a resource 0x{number:04x} of Photoshop")
        yield data


def resources(block: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, padded name and data of each resource; ValueError for a broken block."""
    at = 0
    while at < len(block):
        if block[at : at + 4] not in (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR") or at + 12 > len(block):
            if block[at:].strip(b"\0"):
                raise ValueError("not a resource")
            return
        (number,) = struct.unpack_from(">H", block, at + 4)
        length = block[at + 6] + 1
        name = block[at + 6 : at + 6 + length + length % 2]
        at += 6 + len(name)
        size = int.from_bytes(block[at : at + 4], "big")
        data = block[at + 4 : at + 4 + size]
        if len(data) < size:
            raise ValueError("a resource ends too early")
        yield number, name, data
        at += 4 + size + size % 2


def kept_iptc(block: bytes, keeping: Keeping) -> bytes:
    """IPTC records of text, unchanged and in their order."""
    if keeping.strips_all:
        return b""
    out, at = b"", 0
    while at + 5 <= len(block) and block[at] == 0x1C:
        record, dataset, size = struct.unpack_from(">BBH", block, at + 1)
        start = at + 5
        if size & 0x8000:  # an extended dataset: the low bits count the bytes of the length
            wide = size & 0x7FFF
            size = int.from_bytes(block[start : start + wide], "big")
            start += wide
        end = start + size
        if end > len(block):
            break
        if record not in _PLAIN_RECORDS or dataset in _OBJECT_PREVIEW or holds_picture(block[start:end]):
            keeping.lose(f"IPTC {record}:{dataset}")
        elif not (keeping.strips_location and record == 2 and dataset in _PLACES):
            out += block[at:end]
        at = end
    if block[at:].strip(b"\0"):
        keeping.lose("IPTC (broken)")
    return out
