"""JPEG: the segments of the source that are on an allow-list and contain no other picture.

Sources: ITU-T T.81, annex B; T.871 (JFIF); EXIF 3.0, 4.7; XMP specification, part 3; CIPA DC-007 (MPF).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image as Pil

from occpipe.core.provenance import MAX_IN_JPEG, mark
from occpipe.io.images.exif import exif_values, kept_exif
from occpipe.io.images.iptc import kept_resources, resource_values
from occpipe.io.images.jpeg_markers import FRAMES
from occpipe.io.images.jpeg_pixels import encoded
from occpipe.io.images.keeping import Keeping, Source
from occpipe.io.images.pictures import holds_picture
from occpipe.io.images.reasons import ImageError, ImageReason
from occpipe.io.images.xmp import kept_xmp, names_anything, with_extension

EOI, SOS, APP0, COM = 0xD9, 0xDA, 0xE0, 0xFE
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_JFIF, _EXIF, _XMP = b"JFIF\x00", b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_EXTENDED, _ICC, _PHOTOSHOP = b"http://ns.adobe.com/xmp/extension/\x00", b"ICC_PROFILE\x00", b"Photoshop 3.0\x00"
_ADOBE = b"Adobe"
_MAX_PAYLOAD = 65_533
Segment = tuple[int, bytes]


def segments(data: bytes) -> Iterator[Segment]:
    """Marker and payload of each segment up to and with the first scan."""
    for marker, start, end in _places(data):
        yield marker, data[start + 4 : end]


def _places(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to and with the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        yield marker, at, end
        if marker in (SOS, EOI):
            return
        at = end


def segment(marker: int, payload: bytes) -> bytes:
    """The bytes of a segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def write(picture: Pil.Image, source: Source, keeping: Keeping) -> bytes:
    """A JPEG with the picture, coded like the source, and the segments of the source that are kept."""
    head = _kept_segments(source, keeping)
    data = encoded(picture, source.image, keeping)
    start = 2
    if data[3] == APP0:  # the JFIF header of the encoder; that of the source replaces it
        start += 2 + int.from_bytes(data[4:6], "big")
        if not any(marker == APP0 for marker, _ in head):
            head.insert(0, (APP0, data[6:start]))
    return data[:2] + b"".join(segment(*block) for block in head) + data[start:]


def metadata(data: bytes) -> Iterator[bytes]:
    """The metadata of a written JPEG. Raises ImageError for a thumbnail, a further picture, or bytes behind its end."""
    if not data.endswith(b"\xff\xd9") or _edges(data, _first_scan(data)) != 1:
        raise ImageError(ImageReason.EMBEDDED_PICTURE, "a JPEG that continues behind its end")
    resources = b""
    for marker, payload in segments(data):
        if payload.startswith(_EXIF):
            yield from (value.data for value in exif_values(payload))
        elif payload.startswith(_JFIF) and payload[12:] != b"\0\0":
            raise ImageError(ImageReason.EMBEDDED_PICTURE, "a JFIF thumbnail")
        elif payload.startswith(_PHOTOSHOP):
            resources += payload.removeprefix(_PHOTOSHOP)
        elif marker == COM or payload.startswith((_JFIF, _XMP, _EXTENDED, _ICC, _ADOBE)):
            yield payload
        elif 0xE0 <= marker <= 0xEF:
            raise ImageError(ImageReason.EMBEDDED_PICTURE, f"a segment APP{marker - 0xE0}, which may be a picture")
    yield from resource_values(resources)


def is_readable_kind(data: bytes) -> bool:
    """Whether the frame is sequential or progressive, of 8 bits, which is decoded; also True without a frame."""
    for marker, payload in segments(data):
        if marker in FRAMES:
            return marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) and payload[:1] == b"\x08"
    return True


def _edges(data: bytes, start: int) -> int:
    """How many pictures begin or end behind a position; compared as pairs of bytes, at even and at odd positions."""
    views = [np.frombuffer(data, "<u2", max(0, len(data) - at) // 2, at) for at in (start, start + 1) if at < len(data)]
    return sum(int(np.count_nonzero(view == edge)) for view in views for edge in (0xD8FF, 0xD9FF))


def _kept_segments(source: Source, keeping: Keeping) -> list[Segment]:
    """APP0, EXIF, XMP, Photoshop with IPTC, the colour profile and comments, in this order."""
    first: dict[bytes, bytes] = {}
    comments, resources, extended, profile = [], b"", [], []
    for marker, payload in segments(source.data):
        if marker == APP0 and payload.startswith(_JFIF) and len(payload) >= 14:
            first.setdefault(_JFIF, payload[:12] + b"\0\0")
            if payload[12:14] != b"\0\0":
                keeping.lose("JFIF thumbnail")
        elif marker == 0xE1 and payload.startswith((_EXIF, _XMP)):
            kind = _EXIF if payload.startswith(_EXIF) else _XMP
            if kind in first:
                keeping.lose(f"a second {'EXIF' if kind == _EXIF else 'XMP'}")
            first.setdefault(kind, payload.removeprefix(_XMP))
        elif marker == 0xE1 and payload.startswith(_EXTENDED):
            extended.append(payload.removeprefix(_EXTENDED))
        elif marker == 0xE2 and payload.startswith(_ICC):
            profile.append((marker, payload))
        elif marker == 0xED and payload.startswith(_PHOTOSHOP):
            resources += payload.removeprefix(_PHOTOSHOP)
        elif marker == COM:
            comments.append(payload)
        elif 0xE0 <= marker <= 0xEF and not (marker == 0xEE and payload.startswith(_ADOBE)):
            keeping.lose(_name(marker, payload))
        elif marker in _ARITHMETIC:
            keeping.lose("arithmetic coding")
    if _ends_early(source.data):
        keeping.lose("data behind the end of the JPEG")
    kept: list[Segment] = [(APP0, first[_JFIF])] if _JFIF in first else []
    if exif := kept_exif(first.get(_EXIF, b""), source.orientation, keeping):
        if len(exif) > _MAX_PAYLOAD:
            keeping.lose("EXIF (too long)")
            exif = kept_exif(b"", source.orientation, keeping)
        kept += [(0xE1, exif)] if exif else []
    kept += _xmp_segments(first.get(_XMP, b""), extended, keeping)
    resources = kept_resources(resources, keeping)
    step = _MAX_PAYLOAD - len(_PHOTOSHOP)
    kept += [(0xED, _PHOTOSHOP + resources[at : at + step]) for at in range(0, len(resources), step)]
    if holds_picture(b"".join(payload[14:] for _, payload in profile)):
        keeping.lose("ICC profile (a picture)")
        profile = []
    kept += profile
    for comment in comments:
        if holds_picture(comment):
            keeping.lose("comment (a picture)")
        elif not keeping.strips_all:
            kept.append((COM, comment))
    return kept


def _xmp_segments(packet: bytes, parts: list[bytes], keeping: Keeping) -> list[Segment]:
    """The XMP packet with the mark, and its extended packet if there is one (XMP specification, part 3, 1.1.3.1)."""
    extension = kept_xmp(_joined(packet, parts, keeping), keeping)
    if not names_anything(extension):
        extension = b""
    packet = kept_xmp(packet, keeping)
    guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    if extension:
        linked = with_extension(packet, guid)
        if linked == packet or len(linked) > MAX_IN_JPEG:
            keeping.lose("extended XMP")
            extension = b""
        else:
            packet = linked
    packet = mark(packet, keeping.mark, MAX_IN_JPEG)
    if len(packet) > MAX_IN_JPEG:
        keeping.lose("XMP (too long)")
        return []
    kept: list[Segment] = [(0xE1, _XMP + packet)] if packet else []
    for at in range(0, len(extension), 65_400):
        head = _EXTENDED + guid + struct.pack(">II", len(extension), at)
        kept.append((0xE1, head + extension[at : at + 65_400]))
    return kept


def _joined(packet: bytes, parts: list[bytes], keeping: Keeping) -> bytes:
    """The extended packet that the main one names, from parts in any order; empty if it is incomplete."""
    named = {part[:32]: int.from_bytes(part[32:36], "big") for part in parts if part[:32] in packet and len(part) > 40}
    if not parts:
        return b""
    if len(named) == 1:
        ((guid, size),) = named.items()
        own = sorted((int.from_bytes(part[36:40], "big"), part[40:]) for part in parts if part[:32] == guid)
        whole = b"".join(data for _, data in own)
        if len(whole) == size and all(at == sum(len(d) for _, d in own[:n]) for n, (at, _) in enumerate(own)):
            return whole
    keeping.lose("extended XMP")
    return b""


def _name(marker: int, payload: bytes) -> str:
    """The name of a segment that is not kept."""
    if payload.startswith(b"MPF\x00"):
        return "further pictures (MPF)"
    if marker == 0xEB and payload.startswith(b"JP"):
        return "C2PA manifest" if b"c2pa" in payload[:400] else "JUMBF"
    if payload.startswith(b"urn:iso:std:iso:ts:21496:-1"):
        return "gain map"
    if payload.startswith(b"JFXX\x00"):
        return "JFIF thumbnail"
    label = payload[:40].split(b"\0")[0].decode("latin-1")
    return f"APP{marker - 0xE0} {label if label.isprintable() else ''}".strip()


def _ends_early(data: bytes) -> bool:
    """Whether bytes other than zeros follow the end of the picture."""
    end = data.find(b"\xff\xd9", _first_scan(data))
    return end >= 0 and bool(data[end + 2 :].strip(b"\0"))


def _first_scan(data: bytes) -> int:
    """The offset of the first scan; the end of the file if there is none."""
    return next((end for marker, _, end in _places(data) if marker == SOS), len(data))
