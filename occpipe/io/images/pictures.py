"""Whether bytes contain a picture: by the signatures of formats, also in base64 or hexadecimal text.

This detects previews that programs store in metadata. It cannot detect a picture without a signature. So metadata is kept
from allow-lists only, and this is a second check.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings

from PIL import Image as Pil

_PIXEL_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# Too long to occur by accident; these formats are not opened here.
_CERTAIN = (
    *(b"\x89PNG\r\n\x1a\n", b"jP  \r\n\x87\n", b"JXL \r\n\x87\n", b"\xff\x4f\xff\x51\x00"),
    *(b"8BPS\x00\x01", b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftypavif", b"ftypmp4", b"ftypisom"),
    *(b"ftypqt  ", b"ftypM4V", b"ftyp3gp", b"ftypavc1", b"ftypjxl "),
)
# Short signatures, each with the number of bytes of the picture before it; Pillow tries to open what follows.
_POSSIBLE = (
    *((b"\xff\xd8\xff", 0), (b"WEBPVP8", 8), (b"II*\x00", 0), (b"MM\x00*", 0), (b"II+\x00", 0), (b"MM\x00+", 0)),
    *((b"BM", 0), (b"GIF87a", 0), (b"GIF89a", 0)),
)
_GIFS = (b"GIF87a", b"GIF89a")
MAX_CANDIDATES = 64
"""Positions that look like a picture; a block with more of them counts as one with a picture."""
_TEXT_RUN = re.compile(rb"[0-9A-Za-z+/=\s]{160,}")
_ESCAPED_BREAK = re.compile(rb"&#(?:x[aAdD]|1[03]);")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}|\s)+")


def holds_picture(block: bytes) -> bool:
    """Whether a picture begins anywhere in these bytes, or in their decoded base64 or hexadecimal text."""
    if len(block) < 26:  # the smallest picture of these formats is longer
        return False
    return _has_signature(block) or any(_has_signature(decoded) for decoded in _decoded_texts(block))


def _has_signature(block: bytes) -> bool:
    if any(signature in block for signature in _CERTAIN):
        return True
    candidates = 0
    for signature, before in _POSSIBLE:
        at = block.find(signature)
        while at >= 0:
            if _is_likely(block, at, signature):
                candidates += 1
                if candidates > MAX_CANDIDATES or _begins_jpeg(block, at) or signature in _GIFS:
                    return True
                if _opens(block[max(0, at - before) :]):
                    return True
            at = block.find(signature, at + 1)
    return False


def _is_likely(block: bytes, at: int, signature: bytes) -> bool:
    """Whether the bytes behind a signature can be a header, because two bytes also occur by accident."""
    if signature == b"BM":  # reserved fields are zero, and the size of the header is one of the known ones
        header = int.from_bytes(block[at + 14 : at + 18], "little")
        return block[at + 6 : at + 10] == bytes(4) and header in (12, 40, 52, 56, 64, 108, 124)
    if signature in _GIFS:  # else it is a text about the format
        return not block[at + 6 : at + 13].decode("latin-1").isprintable()
    if signature == b"\xff\xd8\xff":
        return block[at + 3 : at + 4] >= b"\xc0"
    return True


def _begins_jpeg(block: bytes, at: int) -> bool:
    """Whether a start marker is followed by a segment and the marker of the next one, as in a JPEG."""
    end = at + 4 + int.from_bytes(block[at + 4 : at + 6], "big")
    return (
        block.startswith(b"\xff\xd8\xff", at)
        and block[end : end + 1] == b"\xff"
        and block[end + 1 : end + 2] >= b"\xc0"
    )


def _opens(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pil.open(io.BytesIO(data), formats=_PIXEL_FORMATS) as picture:
                return picture.width > 1 and picture.height > 1
    except Exception:  # noqa: BLE001 - Pillow raises many kinds of errors for other bytes
        return False


def _decoded_texts(block: bytes) -> list[bytes]:
    texts = []
    for run in _TEXT_RUN.findall(_ESCAPED_BREAK.sub(b"", block)):
        text = b"".join(run.split())
        if _HEX.fullmatch(text):
            texts.append(binascii.unhexlify(text[: len(text) // 2 * 2]))
        try:
            texts.append(base64.b64decode(text + b"=" * (-len(text) % 4)))
        except binascii.Error:  # padding in the middle
            continue
    return texts
