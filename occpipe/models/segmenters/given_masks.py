"""`masks:URI`: a mask beside each image says what is removed. Nothing is decided, and no network is loaded.

White is removed. A mask has the size of its image, and is filled as it is: it does not grow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np

from occpipe.core.access import FROM_ENVIRONMENT, Access
from occpipe.core.errors import ConfigError
from occpipe.core.types import Image, Segment, Segmentation
from occpipe.io.images import ImageError, ImageReason, Limits
from occpipe.io.images.labels import decode_grey
from occpipe.io.storage import is_safe_key, open_store, with_retries, within
from occpipe.models.segmenters import UNNAMED, Photo

LABEL = "given mask"
"""The label of the one thing in a photo with a mask."""
THREADS = 16
_DEFAULT = "{stem}.png"


class GivenMasks:
    """Reads the mask of each image.

    Args:
        place: A folder of masks in any store, `{stem}.png` each; or a pattern with `{stem}` (the name of the image below
            INPUT, without its ending) or `{uri}` (with it), such as `s3://bucket/photos/{stem}_mask.png`.
        access: How the store is reached.
        limits: The limits on what is decoded.
        max_bytes: The largest file that is read.
        cut: The share of white from which a pixel is removed.
    """

    def __init__(
        self,
        place: str,
        *,
        access: Access = FROM_ENVIRONMENT,
        limits: Limits | None = None,
        max_bytes: int = 64_000_000,
        cut: float = 0.5,
    ) -> None:
        root, self._pattern = split_pattern(place)
        self._store = open_store(root, access)
        self._limits, self._max_bytes, self._level = limits or Limits(), max_bytes, max(1, round(cut * 255))
        self._threads = ThreadPoolExecutor(THREADS)

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:  # noqa: ARG002 - they have no names
        raise UNNAMED

    def segment_named(self, photos: Sequence[Photo]) -> list[Segmentation | Exception]:
        """One thing for each photo whose mask has white in it, at the size of the photo."""
        return list(self._threads.map(self._attempt, photos))

    def check(self) -> None:
        """Raise StorageError if the masks are out of reach."""
        self._store.check_readable()

    def _attempt(self, photo: Photo) -> Segmentation | Exception:
        try:
            return self._scene(photo)
        except Exception as error:  # noqa: BLE001 - it closes the row of this image, and no other one
            return error

    def _scene(self, photo: Photo) -> Segmentation:
        key = key_of(photo.uri, self._pattern)
        if not is_safe_key(key):
            raise ImageError(ImageReason.UNSAFE_PATH, f"the name of its mask could leave the folder: {key!r}")
        try:
            data = with_retries(lambda: within(self._store.access.read_timeout_s, lambda: self._read(key)))
        except FileNotFoundError:
            raise ImageError(ImageReason.NO_LABEL, f"there is no mask {key}") from None
        try:
            grey = decode_grey(data, self._limits)
        except ImageError as error:
            raise ImageError(ImageReason.LABEL_BROKEN, f"the mask {key}: {error}") from error
        if grey.shape != (photo.height, photo.width):
            size = f"{grey.shape[1]} x {grey.shape[0]}, and the image {photo.width} x {photo.height}"
            raise ImageError(ImageReason.LABEL_SIZE, f"the mask {key} has {size} pixels")
        mask = (grey >= self._level).astype(np.uint8)
        if mask.all():
            raise ImageError(
                ImageReason.LABEL_FULL, f"the mask {key} covers the whole image: nothing is left to fill from"
            )
        things = (Segment.from_mask(LABEL, True, 1.0, mask),) if mask.any() else ()
        return Segmentation(*grey.shape, things)

    def _read(self, key: str) -> bytes:
        return self._store.read(key, self._max_bytes)


def split_pattern(place: str) -> tuple[str, str]:
    """The root of the masks and the pattern of their names below it. Raises ConfigError for another field in braces.

    >>> split_pattern("s3://bucket/photos/{stem}_mask.png")
    ('s3://bucket/photos', '{stem}_mask.png')
    >>> split_pattern("masks")
    ('masks', '{stem}.png')
    """
    head, brace, _ = place.partition("{")
    if not brace:
        return place, _DEFAULT
    root, _, _ = head.rpartition("/")
    pattern = place[len(root) + 1 :] if "/" in head else place
    if others := re.findall(r"\{(?!stem\}|uri\})[^}]*\}?", pattern):
        raise ConfigError(f"segmenter.model: {others[0]} in {place!r:.80}; the fields are {{stem}} and {{uri}}")
    return root or ("/" if head.startswith("/") else "."), pattern


def key_of(uri: str, pattern: str) -> str:
    """The key of the mask of an image.

    >>> key_of("2019/a.jpg", "{stem}_mask.png")
    '2019/a_mask.png'
    """
    stem = str(PurePosixPath(uri).with_suffix(""))
    fields = {"{stem}": stem, "{uri}": uri}
    return re.sub(r"\{(?:stem|uri)\}", lambda match: fields[match[0]], pattern)
