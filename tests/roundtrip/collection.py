"""The collection: every file is generated, and each goes through a removal."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from PIL import Image as Pil

from occpipe.core.provenance import MetadataPolicy, SourceType
from occpipe.core.types import Image, Mask
from occpipe.io.images import Limits, decode, encode_with_losses
from tests.roundtrip.blocks import SECRETS
from tests.roundtrip.jpegs import jpegs
from tests.roundtrip.others import bmps, tiffs, webps
from tests.roundtrip.pngs import pngs

LIMITS = Limits()
FORMATS = {"JPEG": jpegs, "PNG": pngs, "WebP": webps, "TIFF": tiffs, "BMP": bmps}


@dataclass(frozen=True)
class Sample:
    """A file of the collection, by its format and name."""

    format: str
    name: str
    data: bytes

    @property
    def id(self) -> str:
        """How a test is called."""
        return f"{self.format} {self.name}"


@cache
def samples() -> tuple[Sample, ...]:
    """All files."""
    return tuple(Sample(fmt, name, data) for fmt, make in FORMATS.items() for name, data in make())


@dataclass(frozen=True)
class Trip:
    """A file before and after a removal, upright, and what its row says is lost."""

    before: Image
    hole: Mask
    after: Image
    data: bytes
    lost: list[str]


@cache
def trip(sample: Sample, policy: MetadataPolicy = MetadataPolicy.KEEP) -> Trip:
    """Decode, fill a disc with what lies on the other side of the photo, and encode."""
    before = decode(sample.data, LIMITS)
    hole = np.zeros(before.shape[:2], np.uint8)
    height, width = before.shape[:2]
    cv2.circle(hole, (width // 2, height // 2), min(height, width) // 5, 1, -1)
    filled = np.where(hole[..., None] == 1, before[::-1, ::-1], before)
    data, lost = encode_with_losses(filled, sample.data, LIMITS, SourceType.NONE, policy)
    return Trip(before, hole, decode(data, LIMITS), data, lost)


def other_pictures(data: bytes) -> list[str]:
    """Pictures in a file besides its main one, found by brute force: wherever a signature stands, also behind a coding."""
    found = [
        f"bytes of a known picture, {n}" for n, secret in enumerate(SECRETS) if any(secret in d for d in _decoded(data))
    ]
    for place, layer in enumerate(_decoded(data)):
        for match in re.finditer(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF....WEBP|ftyp", layer, re.DOTALL):
            at = match.start()
            if place == 0 and at == 0:
                continue
            if match[0] == b"ftyp" or _opens(layer[at:]):
                found.append(f"{match[0]!r} at {at} of layer {place}")
    return found


def _opens(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pil.open(io.BytesIO(data)) as image:
                image.load()
                return True
    except Exception:  # noqa: BLE001 - Pillow raises many kinds of errors for what is no picture
        return False


def _decoded(data: bytes) -> list[bytes]:
    """The file, and what is in it deflated, as base64 and as digits."""
    layers = [data]
    if data.startswith(b"\x89PNG"):
        layers += [*_inflated_chunks(data)]
    for layer in [*layers]:
        text = layer.replace(b"&#xA;", b"").replace(b"\n", b"")
        for run in re.findall(rb"[0-9A-Za-z+/=]{120,}", text):
            for decode_text in (base64.b64decode, binascii.unhexlify):
                try:
                    layers.append(decode_text(run[: len(run) // 4 * 4]))
                except (ValueError, binascii.Error):
                    continue
    return layers


def _inflated_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] in (b"zTXt", b"iTXt", b"iCCP"):
            payload = data[at + 8 : at + 8 + size]
            for start in range(len(payload)):
                if payload[start] == 0x78:
                    try:
                        yield zlib.decompress(payload[start:])
                    except zlib.error:
                        continue
        at += 12 + size
