"""Where an image lies within a container. It is written into the tag of the image, and so travels with every row.

    tar@1536:ETAG            its bytes begin at this byte of the tar that has this tag
    parquet@image:ETAG       it is a value of this column; the row is in its URI
    fault@REASON%2FTEXT:ETAG    it cannot be read, and why

No store gives a tag of this form, so a loose file whose name has a `#` is never taken for a member.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

from occpipe.io.images import ImageError, ImageReason

_TAG = re.compile(r"(tar|parquet|fault)@([^:@]*):(.*)", re.DOTALL)
Kind = Literal["tar", "parquet", "fault"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a container whose tag is `etag`: a byte of a tar, a column of a Parquet file, or why there is none."""

    kind: Kind
    where: str
    etag: str

    def __str__(self) -> str:
        return f"{self.kind}@{quote(self.where, safe='')}:{self.etag}"

    def check(self) -> None:
        """Raise the ImageError that a fault stands for."""
        if self.kind == "fault":
            reason, _, text = self.where.partition("/")
            raise ImageError(ImageReason(reason), text)


class Member(NamedTuple):
    """An image of a container, or a fault of it: its name or row, size in bytes if known, and where it is."""

    name: str
    size: int | None
    place: Place


def fault(reason: ImageReason, text: str, etag: str) -> Place:
    """The place of what cannot be read."""
    return Place("fault", f"{reason}/{text}", etag)


def place_of(tag: str | None) -> Place | None:
    """The place that a tag carries; None for the tag of a loose file."""
    match = _TAG.fullmatch(tag or "")
    return Place(match[1], unquote(match[2]), match[3]) if match else None  # type: ignore[arg-type]  # as the pattern says


def split_uri(uri: str) -> tuple[str, str]:
    """The key of a container and the name within it; the name is empty for the container as a whole.

    >>> split_uri("a/00012.tar#000120034.jpg")
    ('a/00012.tar', '000120034.jpg')
    """
    container, _, name = uri.partition("#")
    return container, name
