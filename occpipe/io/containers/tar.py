"""Tars as streams: what is in them, and copies in which some members are replaced.

In memory are a chunk of the stream, the names that were seen, and one replaced member.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from occpipe.io.containers.tar_headers import BLOCK, BrokenTarError, Headers, new_header, read_headers, resized
from occpipe.io.images import ImageReason
from occpipe.io.storage import Writer, is_safe_key

CHUNK = 4_000_000
"""Bytes that are read at once: one request of an object store."""
MAX_MEMBERS = 2_000_000
"""Members whose names are held in memory, to find two of one name."""


class TarMember(NamedTuple):
    """A member: its headers begin at byte `start`, its data at `data`; `fault` is why it goes nowhere."""

    name: str
    start: int
    data: int
    size: int
    headers: bytes
    is_file: bool
    fault: tuple[ImageReason, str] | None


class Stream:
    """A file of a known size that is read from its beginning to its end, in chunks; what is passed over is not read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self.at = file, size, 0
        self._chunk, self._start = b"", 0

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next bytes as they come; fewer at the end."""
        while count > 0:
            if not self._start <= self.at < self._start + len(self._chunk):
                self._file.seek(self.at)
                self._chunk, self._start = self._file.read(CHUNK), self.at
            piece = memoryview(self._chunk)[self.at - self._start :][:count]
            if not piece:
                return
            self.at += len(piece)
            count -= len(piece)
            yield piece


def members(stream: Stream) -> Iterator[TarMember]:
    """The members of a tar in their order.

    Raises:
        BrokenTarError: It cannot be read further. All members that are whole have come before.
    """
    if not stream.size:
        raise BrokenTarError(0, "it is empty")
    seen: set[int] = set()
    while True:
        start = stream.at
        headers = read_headers(stream)
        if headers is None:
            return
        data = stream.at
        if data + headers.size > stream.size:
            there = max(0, stream.size - data)
            raise BrokenTarError(start, f"{headers.name!r:.200} has {headers.size} bytes, and {there} are there")
        if len(seen) >= MAX_MEMBERS:
            raise BrokenTarError(start, f"more than {MAX_MEMBERS} members")
        info = headers.info
        fault = _fault(headers, seen)
        yield TarMember(headers.name, start, data, headers.size, headers.raw, not info.isdir(), fault)
        stream.at = data + -(-headers.size // BLOCK) * BLOCK


def copy_tar(
    stream: Stream,
    sink: Writer,
    replace: Callable[[TarMember], bytes | None],
    after: Callable[[TarMember], tuple[str, bytes] | None] = lambda _: None,
) -> dict[int, int]:
    """Copy a tar in which some members are replaced; all others are copied byte for byte.

    A member with a fault is left out. A tar that breaks off is copied up to there, and ended as a tar is.

    Args:
        stream: The tar.
        sink: Takes the copy.
        replace: The bytes in place of those of a member; None: they stay.
        after: Name and bytes of a new file behind a member; None: there is none.

    Returns:
        For each member, by the byte at which its data began, the byte at which it begins now.
    """
    out, places = TarSink(sink), dict[int, int]()
    try:
        for member in members(stream):
            if member.fault:
                continue
            data = replace(member)
            if data is not None:
                places[member.data] = out.add(resized(member.headers, member.name, len(data)), [data])
            else:
                stream.at = member.data
                places[member.data] = out.add(member.headers, stream.pieces(member.size))
            if (extra := after(member)) is not None:
                out.add(new_header(extra[0], len(extra[1]), member.headers), [extra[1]])
    except BrokenTarError:  # a row says so
        pass
    out.end()
    return places


class TarSink:
    """A tar that is written member by member."""

    def __init__(self, sink: Writer) -> None:
        self._sink, self._written = sink, 0

    def add(self, headers: bytes, data: Iterator[memoryview] | list[bytes]) -> int:
        """Write a member; the byte at which its data begins."""
        self._put(headers)
        begin = self._written
        for piece in data:
            self._put(piece)
        self._put(bytes(-(self._written - begin) % BLOCK))
        return begin

    def end(self) -> None:
        """Write the end mark, up to a whole record."""
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-self._written % tarfile.RECORDSIZE))

    def _put(self, data: bytes | memoryview) -> None:
        self._sink.write(data)
        self._written += len(data)


def _fault(headers: Headers, seen: set[int]) -> tuple[ImageReason, str] | None:
    """Why a member goes nowhere: whoever unpacks the copy must not write outside a folder, or one file over another."""
    info = headers.info
    if info.islnk() or info.issym():
        return ImageReason.UNSAFE_PATH, f"a link to {info.linkname!r:.200}"
    if info.isdev():
        return ImageReason.UNSAFE_PATH, "a device or a pipe"
    name = headers.name.rstrip("/") if info.isdir() else headers.name
    while name.startswith("./"):
        name = name[2:]
    if info.isdir() and name in ("", "."):
        return None
    if not is_safe_key(name):
        return ImageReason.UNSAFE_PATH, f"this name could leave a folder: {headers.name!r:.200}"
    if info.isdir():
        return None
    if hash(name) in seen:
        return ImageReason.DUPLICATE_NAME, "another member of the tar has this name"
    seen.add(hash(name))
    return None
