"""Encoded bytes to upright RGB and back, with the metadata of the source and without any other picture in the file.

`decode` reads and `encode` writes. A module for each format copies metadata from allow-lists. Start with `encode`.
It imports `core` only.
"""

from occpipe.io.images.decode import decode, decode_with_header
from occpipe.io.images.encode import check_no_other_picture, encode_like, encode_with_losses
from occpipe.io.images.reasons import FORMATS, SKIPPED_REASONS, Header, ImageError, ImageReason, Limits

__all__ = [
    "FORMATS",
    "SKIPPED_REASONS",
    "Header",
    "ImageError",
    "ImageReason",
    "Limits",
    "check_no_other_picture",
    "decode",
    "decode_with_header",
    "encode_like",
    "encode_with_losses",
]
