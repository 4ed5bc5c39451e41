"""A corpus that exists only in its listing: `synthetic://FOLDERS/NAMES/MORE`, for benchmarks over millions of images.

It has so many folders with so many names each, and a last folder of `MORE` images. Every image is the same small JPEG.
"""

from __future__ import annotations

import io
from typing import Any

import fsspec
import numpy as np
from PIL import Image


class SyntheticFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """Folders `d00000`, `d00001`, ...; `e` holds what was added later."""

    protocol = "synthetic"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        picture = io.BytesIO()
        Image.fromarray(np.full((64, 96, 3), 128, np.uint8)).save(picture, "JPEG")
        self._data = picture.getvalue()

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return str(path).removeprefix("synthetic://").strip("/")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ARG002 - always in detail
        """The folders of the root, or the images of a folder."""
        path = self._strip_protocol(path)
        root, _slash, below = path.rpartition("/") if path.count("/") > 2 else (path, "", "")
        folders, images, more = (int(part) for part in root.split("/"))
        if not below:
            inside = [f"d{number:05d}" for number in range(folders)] + (["e"] if more else [])
            return [{"name": f"{root}/{name}", "size": 0, "type": "directory"} for name in inside]
        count = more if below == "e" else images
        size = len(self._data)
        about: dict[str, Any] = {"size": size, "type": "file", "etag": "a"}
        return [{"name": f"{path}/{number:05d}.jpg", **about} for number in range(count)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Everything is there."""
        name = self._strip_protocol(path)
        kind = "file" if name.endswith(".jpg") else "directory"
        return {"name": name, "size": len(self._data), "type": kind, "etag": "a"}

    def exists(self, path: str, **_: Any) -> bool:  # noqa: ARG002
        """Whether a name is there."""
        return True

    def size(self, path: str) -> int:  # noqa: ARG002
        """Bytes of an image."""
        return len(self._data)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:  # noqa: ARG002
        """The bytes of an image: all are the same."""
        return self._data[start:end]


fsspec.register_implementation("synthetic", SyntheticFileSystem, clobber=True)
