"""What images a container holds, and where; what is wrong with it is a member, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from occpipe.io.containers.parquet import BrokenParquetError, image_column, reading
from occpipe.io.containers.place import Member, Place, fault
from occpipe.io.containers.tar import Stream, members
from occpipe.io.containers.tar_headers import BrokenTarError
from occpipe.io.images import ImageReason

MAX_IMAGES = 1 << 18
"""Images of a container: its rows are published as one file, which is in memory as a whole once."""
ENDINGS = (".tar", ".parquet")


def index(
    file: BinaryIO, key: str, size: int, etag: str, column: str | None, is_image: Callable[[str], bool]
) -> list[Member]:
    """The images of a container in their order.

    A broken container has a member without a name for what is wrong with it, behind those that can be read, and one
    without an image has such a member, too.

    Args:
        file: The container.
        key: Its key, which tells by its ending what it is.
        size: Its bytes.
        etag: Its tag.
        column: The column with images; None: the likeliest.
        is_image: Whether a name is that of an image.

    Raises:
        OSError: As its store does.
    """
    found: list[Member] = []
    try:
        if key.lower().endswith(".parquet"):
            found += _of_parquet(file, etag, column)
        else:
            for member in _of_tar(file, size, etag, is_image):  # one by one: those before a break stay
                found.append(member)
                if len(found) == MAX_IMAGES:
                    raise BrokenTarError(0, f"{MAX_IMAGES} images and more; divide it")
    except (BrokenTarError, BrokenParquetError) as error:
        found.append(Member("", None, fault(ImageReason.BROKEN_CONTAINER, str(error), etag)))
    return found or [Member("", None, fault(ImageReason.NO_IMAGES, "there is no image in it", etag))]


def _of_tar(file: BinaryIO, size: int, etag: str, is_image: Callable[[str], bool]) -> Iterator[Member]:
    seen: set[str] = set()
    for member in members(Stream(file, size)):
        if not member.fault and not (member.is_file and is_image(member.name)):
            continue
        base = name = member.name.encode("utf-8", "backslashreplace").decode()
        number = 1
        while name in seen:  # a row has a name of its own
            number += 1
            name = f"{base}#{number}"
        seen.add(name)
        if member.fault:
            yield Member(name, member.size, fault(*member.fault, etag))
        else:
            yield Member(name, member.size, Place("tar", str(member.data), etag))


def _of_parquet(file: BinaryIO, etag: str, column: str | None) -> list[Member]:
    with reading(file) as opened:
        rows = opened.metadata.num_rows
        chosen = image_column(opened.schema_arrow, column)
    if chosen is None:
        raise BrokenParquetError(f"no column of images{f' with the name {column}' if column else ''}")
    if rows > MAX_IMAGES:
        raise BrokenParquetError(f"{rows} rows, the limit is {MAX_IMAGES}; divide it")
    place = Place("parquet", chosen, etag)
    return [Member(str(row), None, place) for row in range(rows)]
