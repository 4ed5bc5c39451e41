"""Encoded bytes to upright RGB, within limits.

Images are untrusted: the header is read first, limits are checked before a pixel is decoded, and only the five formats
that occpipe writes are opened. Masks and boxes are in upright pixels (EXIF orientation applied). Encoding turns the picture
back, so that the stored orientation tag stays correct.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from contextlib import nullcontext
from typing import TypeGuard

import numpy as np
from PIL import Image as Pil
from PIL import ImageFile, TiffImagePlugin, UnidentifiedImageError

from occpipe.core.types import Image
from occpipe.io.images import jpeg, kinds
from occpipe.io.images.jpeg_markers import MAX_SCANS, has_many_scans
from occpipe.io.images.reasons import FORMATS, Header, ImageError, ImageReason, Limits

Pil.MAX_IMAGE_PIXELS = None  # `Limits` is checked on the header, before decoding
ImageFile.LOAD_TRUNCATED_IMAGES = False

_ORIENTATION_TAG = 0x0112
# EXIF 2.32, table 6: the operation that turns the stored picture upright, and its inverse.
UPRIGHT = {
    2: (Pil.Transpose.FLIP_LEFT_RIGHT, Pil.Transpose.FLIP_LEFT_RIGHT),
    3: (Pil.Transpose.ROTATE_180, Pil.Transpose.ROTATE_180),
    4: (Pil.Transpose.FLIP_TOP_BOTTOM, Pil.Transpose.FLIP_TOP_BOTTOM),
    5: (Pil.Transpose.TRANSPOSE, Pil.Transpose.TRANSPOSE),
    6: (Pil.Transpose.ROTATE_270, Pil.Transpose.ROTATE_90),
    7: (Pil.Transpose.TRANSVERSE, Pil.Transpose.TRANSVERSE),
    8: (Pil.Transpose.ROTATE_90, Pil.Transpose.ROTATE_270),
}
_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA")
# Pillow raises all of these for broken bytes.
PILLOW_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError),
    *(LookupError, ArithmeticError, RuntimeError, struct.error),
)


LARGE_PIXELS = 25_000_000
large_lock = threading.Lock()


def decode(data: bytes, limits: Limits, max_side: int | None = None) -> Image:
    """Decode to upright RGB uint8, H x W x 3; see `decode_with_header`."""
    return decode_with_header(data, limits, max_side)[1]


def decode_with_header(data: bytes, limits: Limits, max_side: int | None = None) -> tuple[Header, Image]:
    """The header, and the picture as upright RGB uint8, H x W x 3. Raises ImageError, also for broken pixels.

    With `max_side` the long side of the result is at most `max_side`. A JPEG is decoded at the smallest DCT scale (1/2,
    1/4, 1/8) that is still as large. This saves most of the time and memory for a large photo. Pictures above 25 MP are
    decoded one at a time in a process, because four of 100 MP at once would take over 6 GB.
    """
    with (
        open_image(data, limits) as image,
        large_lock if image.width * image.height > LARGE_PIXELS else nullcontext(),
    ):
        header = _header(image)
        if max_side is not None and max(image.size) > max_side:
            scale = max_side / max(image.size)
            image.draft("RGB", (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        load(image)
        rgb: Pil.Image = image.convert("RGB")
        if max_side is not None and max(rgb.size) > max_side:
            rgb.thumbnail((max_side, max_side), Pil.Resampling.BOX, reducing_gap=2.0)
        if header.orientation in UPRIGHT:
            rgb = rgb.transpose(UPRIGHT[header.orientation][0])
        return header, np.array(rgb, dtype=np.uint8)


def open_image(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    """An image with a header within the limits; ImageError otherwise. Pixels are not decoded."""
    if not data:
        raise ImageError(ImageReason.EMPTY_FILE, "the file has no bytes")
    if data.startswith(b"\xff\xd8") and has_many_scans(data):
        raise ImageError(ImageReason.TOO_COMPLEX, f"a JPEG of more than {MAX_SCANS} scans")
    if data.startswith(b"\xff\xd8") and not jpeg.is_readable_kind(data):
        raise kinds.open_error(data, "a JPEG of another coding or depth")  # Pillow opens it and cannot decode it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for a broken EXIF block; the picture may be intact
            image = Pil.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise kinds.open_error(data, "unknown header") from None
    except PILLOW_ERRORS as error:
        raise kinds.open_error(data, str(error)) from error
    _check(image, limits)
    return image


def _check(image: ImageFile.ImageFile, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        message = f"{width} x {height} pixels, the limit is {limits.max_pixels}"
        raise ImageError(ImageReason.TOO_MANY_PIXELS, message)
    if min(width, height) < limits.min_side:
        message = f"{width} x {height} pixels, the minimum of the shortest side is {limits.min_side}"
        raise ImageError(ImageReason.TOO_SMALL, message)
    # An MPO is a JPEG of a phone with a preview or a depth map behind it: its first frame is the photo.
    if image.format != "MPO" and _has_more_frames(image):
        raise ImageError(ImageReason.MULTIPLE_FRAMES, "more than one frame or page")
    rawmode = str(image.tile[0][3]) if image.tile else ""
    # Pillow reads the planes of a 16-bit TIFF as 8-bit planes; only the tag has the true depth.
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)) if _is_tiff(image) else (8,)
    deep = ";16" in rawmode and "BGR;16" not in rawmode  # BGR;16 has 16 bits for all three colours together
    if max(bits) > 8 or deep or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise ImageError(ImageReason.BIT_DEPTH, f"more than 8 bits a sample ({image.mode}, {rawmode})")
    if image.mode not in _EIGHT_BIT_MODES and not (limits.bilevel and image.mode == "1"):
        raise ImageError(ImageReason.COLOUR_MODEL, f"colour model {image.mode} cannot be restored from RGB")


def _has_more_frames(image: ImageFile.ImageFile) -> bool:
    try:
        if not _is_tiff(image):
            return int(getattr(image, "n_frames", 1)) > 1
        image.seek(1)  # counting its pages would take quadratic time
    except EOFError:
        return False
    except PILLOW_ERRORS as error:
        raise ImageError(ImageReason.TRUNCATED, f"broken list of pages: {error}") from error
    return True


def _header(image: ImageFile.ImageFile) -> Header:
    width, height = image.size
    if _is_tiff(image):  # `size` is in stored or in upright pixels, depending on the source of the orientation
        width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    if _stored_orientation(image) >= 5:
        width, height = height, width
    return Header(saved_format(image), width, height, orientation_of(image))


def load(image: ImageFile.ImageFile) -> None:
    """Decode the pixels; ImageError if they are broken."""
    try:
        image.load()
    except PILLOW_ERRORS as error:
        raise ImageError(ImageReason.TRUNCATED, f"decoding stopped: {error}") from error


def _is_tiff(image: Pil.Image) -> TypeGuard[TiffImagePlugin.TiffImageFile]:
    return isinstance(image, TiffImagePlugin.TiffImageFile)


def orientation_of(image: ImageFile.ImageFile) -> int:
    """The orientation to apply after decoding: Pillow 13 turns a TIFF upright in load() and drops the tag."""
    return 1 if _is_tiff(image) else _stored_orientation(image)


def _stored_orientation(image: ImageFile.ImageFile) -> int:
    if image.format == "PNG":
        load(image)  # else Pillow decodes while it looks for EXIF behind the pixels, and accepts broken ones
    try:
        value = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - a hostile EXIF block fails in many ways, and the photo may be intact
        return 1
    return value if value in UPRIGHT else 1


def saved_format(image: ImageFile.ImageFile) -> str:
    """The format in which an image is written."""
    return "JPEG" if image.format == "MPO" else str(image.format)
