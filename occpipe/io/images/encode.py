"""Upright RGB back to the bytes of a file like its source, with the metadata that may stay and no other picture.

Pillow encodes only the pixels. A module for each format adds the metadata of the source, from allow-lists. The last check
reads the written file, independently of these modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

from PIL import Image as Pil
from PIL import ImageFile

from occpipe.core.provenance import MetadataPolicy, SourceType
from occpipe.core.types import Image
from occpipe.io.images import bmp, jpeg, png, tiff, webp
from occpipe.io.images.decode import (
    LARGE_PIXELS,
    PILLOW_ERRORS,
    UPRIGHT,
    large_lock,
    load,
    open_image,
    orientation_of,
    saved_format,
)
from occpipe.io.images.ifd import IfdError
from occpipe.io.images.keeping import Keeping, Source
from occpipe.io.images.pictures import holds_picture
from occpipe.io.images.reasons import ImageError, ImageReason, Limits

_Write = Callable[[Pil.Image, Source, Keeping], bytes]
_WRITERS: dict[str, _Write] = {
    "JPEG": jpeg.write,
    "PNG": png.write,
    "WEBP": webp.write,
    "TIFF": tiff.write,
    "BMP": bmp.write,
}
_METADATA: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "JPEG": jpeg.metadata,
    "PNG": png.metadata,
    "WEBP": webp.metadata,
    "TIFF": tiff.metadata,
    "BMP": bmp.metadata,
}


def encode_like(rgb: Image, source: bytes, limits: Limits, kind: SourceType = SourceType.NONE) -> bytes:
    """Encode upright RGB, H x W x 3, like the source; see `encode_with_losses`."""
    return encode_with_losses(rgb, source, limits, kind)[0]


def encode_with_losses(
    rgb: Image,
    source: bytes,
    limits: Limits,
    kind: SourceType = SourceType.NONE,
    policy: MetadataPolicy = MetadataPolicy.KEEP,
) -> tuple[bytes, list[str]]:
    """Encode upright RGB, H x W x 3, like the source, and name the metadata that is not kept.

    A JPEG keeps its quantisation tables and chroma subsampling, so unchanged pixels are stored with almost equal values.
    With a `kind` the file is marked as edited by software. A rotated TIFF is stored upright. Thumbnails, previews and all
    other pictures of the source are left out, because they would still show the removed things.

    Raises ImageError: stage_failed if nothing could be written, or its header differs from the source; embedded_picture if
    the written file has another picture in it.
    """
    with open_image(source, limits) as original, large_lock if rgb.size > 3 * LARGE_PIXELS else nullcontext():
        orientation = orientation_of(original)
        picture = Pil.fromarray(rgb)
        if orientation in UPRIGHT:
            picture = picture.transpose(UPRIGHT[orientation][1])
        format_ = saved_format(original)
        keeping = Keeping(policy, kind)
        try:
            load(original)
            if picture.size != original.size:
                raise ValueError(f"{picture.size} for a source of {original.size}")
            result = _WRITERS[format_](_like_mode(picture, original), Source(source, original, orientation), keeping)
        except PILLOW_ERRORS as error:  # a broken palette or block
            raise ImageError(ImageReason.STAGE_FAILED, f"the {format_} cannot be written: {error}") from error
        _check_header(result, format_, original.size, orientation, limits)
    check_no_other_picture(result, format_)
    return result, keeping.lost


def check_no_other_picture(result: bytes, format_: str) -> None:
    """Raise ImageError (embedded_picture) if a file has a picture besides its main one, or metadata that cannot be read."""
    try:
        for block in _METADATA[format_](result):
            if holds_picture(block):
                raise ImageError(ImageReason.EMBEDDED_PICTURE, f"a picture of {len(block)} bytes in the metadata")
    except (IfdError, LookupError, ValueError) as error:
        raise ImageError(ImageReason.EMBEDDED_PICTURE, f"metadata that cannot be read: {error}") from error


def _check_header(result: bytes, format_: str, size: tuple[int, int], orientation: int, limits: Limits) -> None:
    try:
        with open_image(result, limits) as written:
            header = saved_format(written), written.size, orientation_of(written)
    except ImageError as error:
        raise ImageError(ImageReason.STAGE_FAILED, f"the written file cannot be opened: {error}") from error
    if header != (expected := (format_, size, orientation)):
        message = f"the written file has {header} (format, size, orientation), the source has {expected}"
        raise ImageError(ImageReason.STAGE_FAILED, message)


def _like_mode(picture: Pil.Image, original: ImageFile.ImageFile) -> Pil.Image:
    """The picture with the alpha of the source, or grey. With a palette it stays RGB; its module looks the numbers up."""
    if original.mode in ("L", "LA"):
        grey = picture.convert("L")
        return Pil.merge("LA", (grey, original.getchannel("A"))) if original.mode == "LA" else grey
    if original.mode in ("RGBA", "PA"):
        picture.putalpha(original.convert("RGBA").getchannel("A"))
    return picture
