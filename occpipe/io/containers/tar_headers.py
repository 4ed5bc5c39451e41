"""The headers of a tar, read one by one: ustar, GNU long names, pax.

They are not read by `tarfile`, which takes a wrong checksum in the middle of a tar for its end, but each block is checked
and decoded by `tarfile.TarInfo`.
"""

from __future__ import annotations

import re
import tarfile
from typing import NamedTuple, Protocol

BLOCK = 512
MAX_EXTENSION = 1_000_000
"""Bytes of a header that extends another one: a long name and some attributes."""
_GNU_NAME, _GNU_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")
_PAX_SIZE = re.compile(rb"[\n\0]\d+ size=")


class BrokenTarError(ValueError):
    """A tar cannot be read further than byte `at`."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(f"at byte {at}: {text}")


class Source(Protocol):
    """What headers are read from, one after the other."""

    at: int

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        ...


class Headers(NamedTuple):
    """All blocks before the data of a member, what the last one says, and name and size with what the others say."""

    raw: bytes
    info: tarfile.TarInfo
    name: str
    size: int


def read_headers(source: Source) -> Headers | None:
    """The headers of the next member; None at the end of the tar. Raises BrokenTarError."""
    start, raw, name, size = source.at, b"", None, None
    while True:
        block = source.read(BLOCK)
        if not raw and (not block or block.count(0) == BLOCK):
            return None
        if len(block) < BLOCK:
            raise BrokenTarError(start, "a header is cut off")
        info, raw = _parse(block, source.at - BLOCK), raw + block
        if info.type not in (_GNU_NAME, _GNU_LINK, *_PAX, tarfile.XGLTYPE):
            has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
            return Headers(raw, info, name or info.name, (info.size if size is None else size) if has_data else 0)
        if max(info.size, len(raw)) > MAX_EXTENSION:
            raise BrokenTarError(start, f"a header of {max(info.size, len(raw))} bytes")
        body = source.read(-(-info.size // BLOCK) * BLOCK)
        if len(body) < info.size:
            raise BrokenTarError(start, "a header is cut off")
        raw, body = raw + body, body[: info.size]
        if info.type == _GNU_NAME:
            name = _text(body.rstrip(b"\0"))
        elif info.type != _GNU_LINK:
            records = _records(body, start)
            if info.type == tarfile.XGLTYPE and records.keys() & {b"path", b"size", b"linkpath"}:
                raise BrokenTarError(start, "a global header that names files")
            if info.type in _PAX:
                name = _text(records[b"path"]) if b"path" in records else name
                size = _number(records[b"size"], start) if b"size" in records else size


def resized(headers: bytes, name: str, size: int) -> bytes:
    """The headers of a member, where it has another size."""
    head, block = headers[:-BLOCK], headers[-BLOCK:]
    if _PAX_SIZE.search(head):  # their lengths depend on what they say
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        info.name, info.size = name, size
        return info.tobuf(tarfile.PAX_FORMAT)
    block = block[:124] + b"%011o\0" % size + block[136:148] + b" " * 8 + block[156:]
    return head + block[:148] + b"%06o\0 " % sum(block) + block[156:]


def new_header(name: str, size: int, beside: bytes = b"") -> bytes:
    """The header of a new file, with the time of the one beside it."""
    info = tarfile.TarInfo(name)
    info.size = size
    if beside:
        info.mtime = tarfile.TarInfo.frombuf(beside[-BLOCK:], "utf-8", "surrogateescape").mtime
    return info.tobuf(tarfile.PAX_FORMAT)


def _parse(block: bytes, at: int) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        for magic, packer in _PACKERS.items():
            if at == 0 and block.startswith(magic):
                text = f"it is packed with {packer}, so that its members cannot be read one by one"
                raise BrokenTarError(at, text) from None
        raise BrokenTarError(at, f"no header of a tar: {error}") from None
    if info.size < 0:
        raise BrokenTarError(at, "a negative size")
    if info.type == tarfile.GNUTYPE_SPARSE:
        raise BrokenTarError(at, "a sparse file")
    return info


def _records(body: bytes, start: int) -> dict[bytes, bytes]:
    """The records of a pax header."""
    found, at = dict[bytes, bytes](), 0
    while at < len(body) and body[at]:
        match = _RECORD.match(body, at)
        stop = at + int(match[1]) if match else 0
        if not match or stop <= match.end() or stop > len(body):
            raise BrokenTarError(start, "a broken pax header")
        found[match[2]] = body[match.end() : stop - 1]
        at = stop
    if any(key.startswith(b"GNU.sparse") for key in found):
        raise BrokenTarError(start, "a sparse file")
    return found


def _number(text: bytes, start: int) -> int:
    if not re.fullmatch(rb"\d{1,20}", text):
        raise BrokenTarError(start, "a size that is no number")
    return int(text)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
