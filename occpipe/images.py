"""Encoded bytes to upright RGB and back, within limits, without losing what the file carried.

Images come from strangers: the header is read first, limits are checked before a pixel is decoded, and only the five
formats that occpipe writes are opened at all. Masks and boxes live in upright pixels (EXIF orientation applied);
encoding turns the picture back, so that the stored orientation tag stays true.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeGuard

import numpy as np
from PIL import Image as Pil
from PIL import ImageFile, TiffImagePlugin, UnidentifiedImageError

from occpipe.encoding import save_options
from occpipe.encoding import without_thumbnail as without_thumbnail  # the public name stays here
from occpipe.jpeg import MAX_SCANS, has_many_scans
from occpipe.provenance import SourceType
from occpipe.types import Image

Pil.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header, before decoding
ImageFile.LOAD_TRUNCATED_IMAGES = False

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_ORIENTATION_TAG = 0x0112
# EXIF 2.32, table 6: what turns the stored picture upright; the second column undoes it.
_UPRIGHT = {
    2: (Pil.Transpose.FLIP_LEFT_RIGHT, Pil.Transpose.FLIP_LEFT_RIGHT),
    3: (Pil.Transpose.ROTATE_180, Pil.Transpose.ROTATE_180),
    4: (Pil.Transpose.FLIP_TOP_BOTTOM, Pil.Transpose.FLIP_TOP_BOTTOM),
    5: (Pil.Transpose.TRANSPOSE, Pil.Transpose.TRANSPOSE),
    6: (Pil.Transpose.ROTATE_270, Pil.Transpose.ROTATE_90),
    7: (Pil.Transpose.TRANSVERSE, Pil.Transpose.TRANSVERSE),
    8: (Pil.Transpose.ROTATE_90, Pil.Transpose.ROTATE_270),
}
_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA")
# What Pillow lets through, for bytes that are broken in one way or another.
_PILLOW_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError),
    *(LookupError, ArithmeticError, RuntimeError, struct.error),
)


_LARGE_PIXELS = 25_000_000
_one_large = threading.Lock()


class ImageReason(StrEnum):
    """Why an image was skipped, or could not be processed."""

    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    MULTIPLE_FRAMES = "multiple_frames"
    COLOUR_MODEL = "colour_model"
    BIT_DEPTH = "bit_depth"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    UNREACHABLE = "unreachable"
    UNSAFE_PATH = "unsafe_path"
    STAGE_FAILED = "stage_failed"
    CRASHED = "crashed"
    TOO_COMPLEX = "too_complex"
    SOURCE_CHANGED = "source_changed"


SKIPPED_REASONS = frozenset(
    {ImageReason.TOO_SMALL, ImageReason.MULTIPLE_FRAMES, ImageReason.COLOUR_MODEL, ImageReason.BIT_DEPTH}
)
"""A valid image that occpipe leaves alone on purpose; every other reason is an error."""


class ImageError(Exception):
    """An image that cannot or must not be decoded; `reason` says why."""

    def __init__(self, reason: ImageReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What is decoded at all: pixels in the file (width × height), and the shortest side in pixels."""

    max_pixels: int = 100_000_000
    min_side: int = 32


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself; width and height are upright pixels.

    The orientation is what is left to apply to the decoded picture: 1 for a TIFF, which Pillow turns as it decodes.
    """

    format: str
    width: int
    height: int
    orientation: int


def decode(data: bytes, limits: Limits, max_side: int | None = None) -> Image:
    """Decode to upright RGB uint8, H x W x 3; see `decode_with_header`."""
    return decode_with_header(data, limits, max_side)[1]


def decode_with_header(data: bytes, limits: Limits, max_side: int | None = None) -> tuple[Header, Image]:
    """The header, and the picture as upright RGB uint8, H x W x 3. Raises ImageError, also where the pixels are broken.

    With `max_side` a JPEG is decoded at the largest DCT scale (1/2, 1/4, 1/8) whose long side is not below it, which
    saves most of the time and memory for a large photo; the result is then at most `max_side` long. Pictures above
    25 MP are decoded one at a time in a process: four of 100 MP at once would take over 6 GB.
    """
    with _open(data, limits) as image, _one_large if image.width * image.height > _LARGE_PIXELS else nullcontext():
        header = _header(image)
        if max_side is not None and max(image.size) > max_side:
            scale = max_side / max(image.size)
            image.draft("RGB", (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        _load(image)
        rgb: Pil.Image = image.convert("RGB")
        if max_side is not None and max(rgb.size) > max_side:
            rgb.thumbnail((max_side, max_side), Pil.Resampling.BOX, reducing_gap=2.0)
        if header.orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[header.orientation][0])
        return header, np.array(rgb, dtype=np.uint8)


def encode_like(rgb: Image, source: bytes, limits: Limits, kind: SourceType = SourceType.NONE) -> bytes:
    """Encode upright RGB, H x W x 3, as the source was: format, quantisation, alpha, EXIF, ICC, XMP and orientation.

    A JPEG keeps its quantisation tables and chroma subsampling, so what was not touched is stored almost as it was.
    With a `kind` the file is marked as edited by software. A rotated TIFF is stored upright. The EXIF thumbnail is blanked:
    it would still show what was removed.

    Raises ImageError (stage_failed) where nothing could be written, or the header of it says something else.
    """
    with _open(source, limits) as original, _one_large if rgb.size > 3 * _LARGE_PIXELS else nullcontext():
        orientation = _orientation(original)
        picture = Pil.fromarray(rgb)
        if orientation in _UPRIGHT:
            picture = picture.transpose(_UPRIGHT[orientation][1])
        format_ = _saved_format(original)
        try:
            picture = _like_mode(picture, original)
            attempts = save_options(original, source, picture.mode, kind)
        except _PILLOW_ERRORS as error:  # a palette or an EXIF block that cannot be read
            raise ImageError(ImageReason.STAGE_FAILED, f"its {format_} cannot be written anew: {error}") from error
        result = _saved(picture, format_, attempts)
        _check_written(result, format_, original.size, orientation, limits)
        return result


def _saved(picture: Pil.Image, format_: str, attempts: list[dict[str, Any]]) -> bytes:
    failures = []
    for options in attempts:
        out = io.BytesIO()
        try:
            picture.save(out, format=format_, **options)
        except _PILLOW_ERRORS as error:
            failures.append(f"{type(error).__name__}: {error}")
        else:
            return out.getvalue()
    raise ImageError(ImageReason.STAGE_FAILED, f"encoding as {format_} failed: {'; '.join(failures)}")


def _check_written(result: bytes, format_: str, size: tuple[int, int], orientation: int, limits: Limits) -> None:
    try:
        with _open(result, limits) as written:
            found = _saved_format(written), written.size, _orientation(written)
    except ImageError as error:
        raise ImageError(ImageReason.STAGE_FAILED, f"what was written cannot be opened: {error}") from error
    if found != (format_, size, orientation):
        wanted = (format_, size, orientation)
        message = f"wrote {found} (format, size, orientation) for a source that is {wanted}"
        raise ImageError(ImageReason.STAGE_FAILED, message)


def _open(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    if not data:
        raise ImageError(ImageReason.EMPTY_FILE, "the file has no bytes")
    if data.startswith(b"\xff\xd8") and has_many_scans(data):
        raise ImageError(ImageReason.TOO_COMPLEX, f"a JPEG of more than {MAX_SCANS} scans")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken EXIF block warns; the picture may still be fine
            image = Pil.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(ImageReason.NOT_AN_IMAGE, f"not one of {', '.join(FORMATS)}") from None
    except _PILLOW_ERRORS as error:
        raise ImageError(ImageReason.TRUNCATED, f"broken header: {error}") from error
    _check(image, limits)
    return image


def _check(image: ImageFile.ImageFile, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        message = f"{width} x {height} pixels, the limit is {limits.max_pixels}"
        raise ImageError(ImageReason.TOO_MANY_PIXELS, message)
    if min(width, height) < limits.min_side:
        message = f"{width} x {height} pixels, the shortest side must have {limits.min_side}"
        raise ImageError(ImageReason.TOO_SMALL, message)
    # MPO is what phones write for a JPEG with a preview or a depth map behind it: its first frame is the photo.
    if image.format != "MPO" and _has_more_frames(image):
        raise ImageError(ImageReason.MULTIPLE_FRAMES, "more than one frame or page")
    rawmode = str(image.tile[0][3]) if image.tile else ""
    # Pillow reads the planes of a 16-bit TIFF as 8-bit ones; only the tag tells.
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)) if _is_tiff(image) else (8,)
    if max(bits) > 8 or ";16" in rawmode or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise ImageError(ImageReason.BIT_DEPTH, f"more than 8 bits a sample ({image.mode}, {rawmode})")
    if image.mode not in _EIGHT_BIT_MODES:
        raise ImageError(ImageReason.COLOUR_MODEL, f"colour model {image.mode} would not survive the way through RGB")


def _has_more_frames(image: ImageFile.ImageFile) -> bool:
    try:
        if not _is_tiff(image):
            return int(getattr(image, "n_frames", 1)) > 1
        image.seek(1)  # to count its pages would take a time that grows with their square
    except EOFError:
        return False
    except _PILLOW_ERRORS as error:
        raise ImageError(ImageReason.TRUNCATED, f"broken list of pages: {error}") from error
    return True


def _header(image: ImageFile.ImageFile) -> Header:
    width, height = image.size
    if _is_tiff(image):  # `size` is stored pixels or upright ones, depending on where the orientation comes from
        width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    if _stored_orientation(image) >= 5:
        width, height = height, width
    return Header(_saved_format(image), width, height, _orientation(image))


def _load(image: ImageFile.ImageFile) -> None:
    try:
        image.load()
    except _PILLOW_ERRORS as error:
        raise ImageError(ImageReason.TRUNCATED, f"decoding stopped: {error}") from error


def _is_tiff(image: Pil.Image) -> TypeGuard[TiffImagePlugin.TiffImageFile]:
    return isinstance(image, TiffImagePlugin.TiffImageFile)


def _orientation(image: ImageFile.ImageFile) -> int:
    """What is left to apply after decoding: Pillow 13 turns a TIFF upright in load() and drops the tag."""
    return 1 if _is_tiff(image) else _stored_orientation(image)


def _stored_orientation(image: ImageFile.ImageFile) -> int:
    if image.format == "PNG":
        _load(image)  # Pillow would do it where it looks for EXIF behind the pixels, and what is broken pass as decoded
    try:
        value = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - a hostile EXIF block breaks Pillow in many ways, and the photo may be fine
        return 1
    return value if value in _UPRIGHT else 1


def _saved_format(image: ImageFile.ImageFile) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def _like_mode(picture: Pil.Image, original: ImageFile.ImageFile) -> Pil.Image:
    _load(original)
    if original.mode in ("L", "LA"):
        grey = picture.convert("L")
        return Pil.merge("LA", (grey, original.getchannel("A"))) if original.mode == "LA" else grey
    has_alpha = original.mode in ("RGBA", "PA") or "transparency" in original.info
    if has_alpha:
        picture.putalpha(original.convert("RGBA").getchannel("A"))
    return picture
