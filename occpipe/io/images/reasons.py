"""The formats that are opened, the limits, and the reasons for not processing an image."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


class ImageReason(StrEnum):
    """Why an image was skipped, or could not be processed."""

    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    MULTIPLE_FRAMES = "multiple_frames"
    COLOUR_MODEL = "colour_model"
    BIT_DEPTH = "bit_depth"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    ARCHIVED = "archived"
    UNREACHABLE = "unreachable"
    UNSAFE_PATH = "unsafe_path"
    STAGE_FAILED = "stage_failed"
    EMBEDDED_PICTURE = "embedded_picture"
    CRASHED = "crashed"
    TOO_COMPLEX = "too_complex"
    SOURCE_CHANGED = "source_changed"
    BROKEN_CONTAINER = "broken_container"
    DUPLICATE_NAME = "duplicate_name"
    NO_IMAGES = "no_images"
    NO_LABEL = "no_label"  # given labels have none for this image
    LABEL_SIZE = "label_size"
    LABEL_FULL = "label_full"
    LABEL_BROKEN = "label_broken"


SKIPPED_REASONS = frozenset(
    {
        ImageReason.UNSUPPORTED,
        ImageReason.TOO_SMALL,
        ImageReason.MULTIPLE_FRAMES,
        ImageReason.COLOUR_MODEL,
        ImageReason.BIT_DEPTH,
        ImageReason.NO_IMAGES,
        ImageReason.NO_LABEL,
    }
)
"""Reasons for skipping a valid image on purpose; every other reason is an error."""


class ImageError(Exception):
    """An image that cannot or must not be decoded, with the reason."""

    def __init__(self, reason: ImageReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what is decoded: pixels in the file (width × height), and the shortest side in pixels.

    `bilevel` takes pictures of one bit a pixel, which are masks.
    """

    max_pixels: int = 100_000_000
    min_side: int = 32
    bilevel: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file; width and height are in upright pixels.

    The orientation is still to be applied to the decoded picture: 1 for a TIFF, which Pillow turns while it decodes.
    """

    format: str
    width: int
    height: int
    orientation: int
