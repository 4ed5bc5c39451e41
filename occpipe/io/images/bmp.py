"""BMP: the header, palette and profile of the source, and its pixels, in which the changed ones are replaced.

Source: Microsoft's Bitmap Storage and the headers of version 1 to 5. Pillow writes no BMP with alpha, of 16 bits, or of
version 4 or 5, so the pixels are written here. Run-length coded pixels are written uncompressed.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

from occpipe.io.images.keeping import Keeping, Source
from occpipe.io.images.palettes import like_palette_of
from occpipe.io.images.pictures import holds_picture
from occpipe.io.images.reasons import ImageError, ImageReason

_FILE_HEADER = 14
_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6
_DEFAULT_MASKS = {16: (0x7C00, 0x03E0, 0x001F), 32: (0xFF0000, 0xFF00, 0xFF)}
_V5, _EMBEDDED = 124, b"DEBM"  # `MBED`, little-endian


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes of the header and the palette in bytes, of the picture in pixels; offset of the pixels; colour masks."""

    header: int
    width: int
    height: int
    bits: int
    compression: int
    palette: int
    pixels: int
    masks: tuple[int, int, int]
    profile: tuple[int, int]

    @property
    def row(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def head(self) -> int:
        """Offset of the end of the palette."""
        extra = {_BITFIELDS: 12, _ALPHA_BITFIELDS: 16}.get(self.compression, 0) if self.header == 40 else 0
        return _FILE_HEADER + self.header + extra + self.palette


def write(picture: Pil.Image, source: Source, keeping: Keeping) -> bytes:
    """A BMP with the picture, in the layout of the source."""
    layout = _layout(source.data)
    head = bytearray(source.data[: layout.head])
    if run_length := layout.compression in (_RLE8, _RLE4):
        keeping.lose("run-length coding")
        struct.pack_into("<I", head, 30, _RGB)
    pixels = _pixels(picture, source, layout)
    if pixels is None:
        keeping.lose("palette")
        out = io.BytesIO()
        picture.save(out, "BMP", dpi=source.image.info.get("dpi", (96, 96)))
        return out.getvalue()
    profile = _profile(source.data, layout, keeping)
    if layout.pixels > layout.head or (
        not run_length and len(source.data) > layout.pixels + len(pixels) + layout.profile[1]
    ):
        keeping.lose("data beside the pixels of the BMP")
    struct.pack_into("<I", head, 2, len(head) + len(pixels) + len(profile))
    struct.pack_into("<I", head, 10, len(head))
    if layout.header >= 40:
        struct.pack_into("<I", head, 34, len(pixels))
    if layout.header == _V5:
        place = len(head) + len(pixels) - _FILE_HEADER if profile else 0
        struct.pack_into("<II", head, _FILE_HEADER + 112, place, len(profile))
        if not profile and head[70:74] in (_EMBEDDED, b"KNIL"):
            head[70:74] = b"BGRs"
    if keeping.mark != "none" and not keeping.strips_all:
        keeping.lose("the mark of an edited file")
    return bytes(head) + pixels + profile


def metadata(data: bytes) -> Iterator[bytes]:
    """The metadata of a written BMP. Raises ImageError if there are bytes outside of it."""
    layout = _layout(data)
    end = layout.head + layout.row * abs(layout.height)
    if layout.pixels != layout.head or end + layout.profile[1] != len(data):
        raise ImageError(ImageReason.EMBEDDED_PICTURE, "bytes before or behind the pixels of a BMP")
    yield data[end:]


def is_readable_kind(data: bytes) -> bool:
    """Whether a BMP that Pillow does not open is broken; else it is whole, and of a kind that is not read."""
    return len(data) < 26 or len(data) < int.from_bytes(data[2:6], "little")


def _layout(data: bytes) -> _Layout:
    (pixels, header) = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return _Layout(header, width, height, bits, 0, 3 << bits if bits <= 8 else 0, pixels, (0, 0, 0), (0, 0))
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    (colours,) = struct.unpack_from("<I", data, 46)
    palette = 4 * (colours or 1 << bits) if bits <= 8 else 0
    masks = _DEFAULT_MASKS.get(bits, (0, 0, 0))
    if compression in (_BITFIELDS, _ALPHA_BITFIELDS):
        masks = struct.unpack_from("<III", data, 54)
    profile = (0, 0)
    if header == _V5 and data[70:74] == _EMBEDDED:
        profile = struct.unpack_from("<II", data, _FILE_HEADER + 112)
    return _Layout(header, width, height, bits, compression, palette, pixels, masks, profile)


def _pixels(picture: Pil.Image, source: Source, layout: _Layout) -> bytes | None:
    """The rows of pixels, in the order of the source; None if its palette has no colours for them."""
    step = -1 if layout.height > 0 else 1  # rows from bottom to top, or from top to bottom
    if layout.bits <= 8:
        image = like_palette_of(picture, source.image) if source.image.mode == "P" else picture
        return None if image is None else _padded(_packed(np.asarray(image, np.uint8), layout.bits)[::step], layout)
    new, old = (np.asarray(image.convert("RGB"), np.uint8) for image in (picture, source.image))
    changed = (new != old).any(axis=-1)
    size = layout.bits // 8
    stored = np.frombuffer(source.data, np.uint8, layout.row * abs(layout.height), layout.pixels)
    rows = stored.reshape(-1, layout.row)[::step, : layout.width * size].copy()
    words = rows.reshape(len(rows), layout.width, size)
    words[changed] = _words(words[changed], new[changed], layout)
    return _padded(words.reshape(len(rows), -1)[::step], layout)


def _words(stored: npt.NDArray[np.uint8], rgb: npt.NDArray[np.uint8], layout: _Layout) -> npt.NDArray[np.uint8]:
    """Pixels of 2 to 4 bytes with new colours; other bits, such as alpha, stay."""
    if layout.bits == 24:
        return np.ascontiguousarray(rgb[:, ::-1])
    kind = "<u2" if layout.bits == 16 else "<u4"
    words = np.ascontiguousarray(stored).view(kind)[:, 0].astype(np.uint32)
    for channel, mask in enumerate(layout.masks):
        shift = (mask & -mask).bit_length() - 1 if mask else 0
        top = mask >> shift
        value = (rgb[:, channel].astype(np.uint32) * top + 127) // 255
        words = words & np.uint32(~mask & 0xFFFFFFFF) | value << np.uint32(shift)
    packed: npt.NDArray[np.uint8] = np.frombuffer(words.astype(kind).tobytes(), np.uint8)
    return packed.reshape(len(words), layout.bits // 8)


def _packed(numbers: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    if bits == 8:
        return numbers
    numbers = np.minimum(numbers, (1 << bits) - 1)
    per_byte = 8 // bits
    wide = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % per_byte))).reshape(len(numbers), -1, per_byte)
    shifts = np.arange(per_byte - 1, -1, -1, dtype=np.uint8) * bits
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(wide << shifts, axis=-1)
    return packed


def _padded(rows: npt.NDArray[np.uint8], layout: _Layout) -> bytes:
    return bytes(np.pad(rows, ((0, 0), (0, layout.row - rows.shape[1]))).tobytes())


def _profile(source: bytes, layout: _Layout, keeping: Keeping) -> bytes:
    start, size = _FILE_HEADER + layout.profile[0], layout.profile[1]
    profile = source[start : start + size]
    if not profile:
        return b""
    if len(profile) < size or profile[36:40] != b"acsp" or holds_picture(profile):
        keeping.lose("ICC profile (broken)")
        return b""
    return profile
