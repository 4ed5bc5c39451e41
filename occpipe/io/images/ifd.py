"""Image file directories: the structure of TIFF, BigTIFF and EXIF, read and written without changing a value.

Sources: TIFF 6.0, section 2; the BigTIFF design of libtiff; EXIF 3.0, 4.6.2. The bytes of a value and the byte
order of its file do not change, so no number is rounded and no text is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

ByteOrder = Literal["<", ">"]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value of each type; 129 is the UTF-8 text of EXIF 3.0."""
_UTF8 = 129
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
MAX_ENTRIES = 1_000
SHORT, LONG, LONG8 = 3, 4, 16


class IfdError(ValueError):
    """Bytes that are not a directory, or a directory that points outside of its file."""


@dataclass(frozen=True, slots=True)
class Value:
    """The values of a tag: their type, and their bytes in the order of the file."""

    type: int
    data: bytes

    @property
    def count(self) -> int:
        """The number of values."""
        return len(self.data) // _size_of(self.type)

    def integers(self, order: ByteOrder) -> tuple[int, ...]:
        """The values as whole numbers; none if they have another type."""
        code = _INTEGERS.get(self.type)
        return struct.unpack(f"{order}{self.count}{code}", self.data) if code else ()


def integers(order: ByteOrder, type_: int, *numbers: int) -> Value:
    """A value of whole numbers."""
    return Value(type_, struct.pack(f"{order}{len(numbers)}{_INTEGERS[type_]}", *numbers))


@dataclass
class Directory:
    """A directory: its values by tag, the directories below it by the tag that points to them, and tags that are broken."""

    values: dict[int, Value] = field(default_factory=dict)
    below: dict[int, Directory] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    next: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The byte order, and whether offsets have 64 bits."""

    order: ByteOrder
    big: bool = False

    @property
    def first(self) -> int:
        """The position of the offset of the first directory."""
        return 8 if self.big else 4

    @property
    def header(self) -> int:
        """Bytes of the header."""
        return 16 if self.big else 8

    def pack(self, number: int) -> bytes:
        """An offset."""
        return struct.pack(f"{self.order}{'Q' if self.big else 'I'}", number)


def layout_of(data: bytes) -> Layout:
    """The layout of a TIFF, or of an EXIF block without its prefix `Exif`; IfdError for other bytes."""
    order: ByteOrder | None = {b"II": "<", b"MM": ">"}.get(data[:2])  # type: ignore[assignment]
    if order is None or len(data) < 8:
        raise IfdError("neither II nor MM")
    (magic,) = struct.unpack_from(f"{order}H", data, 2)
    if magic == 42:
        return Layout(order)
    if magic == 43 and len(data) >= 16 and struct.unpack_from(f"{order}HH", data, 4) == (8, 0):
        return Layout(order, big=True)
    raise IfdError(f"unknown magic number: {magic}")


def first_offset(data: bytes, layout: Layout) -> int:
    """The offset of the first directory."""
    return int(struct.unpack_from(f"{layout.order}{'Q' if layout.big else 'I'}", data, layout.first)[0])


def read(data: bytes, layout: Layout, at: int, pointers: Mapping[int, Mapping[int, object]]) -> Directory:
    """The directory at an offset, and those below it.

    `pointers` are the tags that point to a directory, each with the pointers in that directory. A value outside of the file
    or of an unknown type is broken; a directory outside of the file raises IfdError.
    """
    counts, entry, width = ("Q", "HHQ", 8) if layout.big else ("H", "HHI", 4)
    directory = Directory()
    if at > len(data):
        raise IfdError(f"a directory at {at} in {len(data)} bytes")
    try:
        (entries,) = struct.unpack_from(layout.order + counts, data, at)
        if entries > MAX_ENTRIES:
            raise IfdError(f"{entries} entries")
        at += struct.calcsize(layout.order + counts)
        for _ in range(entries):
            tag, type_, count = struct.unpack_from(layout.order + entry, data, at)
            at += struct.calcsize(layout.order + entry)
            value = _value(data, layout, at, width, type_, count)
            at += width
            if value is None or tag in directory.values:
                directory.broken.append(tag)
            elif tag in pointers:
                _read_below(data, layout, tag, value, pointers[tag], directory)
            else:
                directory.values[tag] = value
        directory.next = (
            struct.unpack_from(layout.order + ("Q" if layout.big else "I"), data, at)[0] if at < len(data) else 0
        )
    except struct.error as error:
        raise IfdError(f"a directory points outside of the file: {error}") from error
    return directory


def write(directory: Directory, layout: Layout, at: int) -> bytes:
    """The bytes of a directory and of those below it, for the even offset `at`; it has no next directory."""
    tags = {**directory.values, **dict.fromkeys(directory.below)}
    width = 8 if layout.big else 4
    head = struct.pack(layout.order + ("Q" if layout.big else "H"), len(tags))
    size = len(head) + len(tags) * (4 + 2 * width) + width
    tail = b""
    for tag in sorted(tags):
        value = tags[tag]
        if value is None:
            place = layout.pack(at + size + len(tail))
            tail += write(directory.below[tag], layout, at + size + len(tail))
            type_, count = LONG8 if layout.big else LONG, 1
        else:
            type_, count, place = value.type, value.count, value.data.ljust(width, b"\0")
            if len(value.data) > width:
                place = layout.pack(at + size + len(tail))
                tail += value.data + b"\0" * (len(value.data) % 2)
        head += struct.pack(f"{layout.order}HH", tag, type_) + layout.pack(count) + place
    return head + bytes(width) + tail


def every_value(directory: Directory) -> Iterator[Value]:
    """All values of a directory and of those below it."""
    yield from directory.values.values()
    for below in directory.below.values():
        yield from every_value(below)


def _size_of(type_: int) -> int:
    return 1 if type_ == _UTF8 else _SIZES.get(type_, 0)


def _value(data: bytes, layout: Layout, at: int, width: int, type_: int, count: int) -> Value | None:
    size = _size_of(type_) * count
    if size == 0 or at + width > len(data):
        return None
    if size > width:
        (at,) = struct.unpack_from(layout.order + ("Q" if layout.big else "I"), data, at)
    return Value(type_, data[at : at + size]) if at + size <= len(data) else None


def _read_below(data: bytes, layout: Layout, tag: int, value: Value, pointers: object, directory: Directory) -> None:
    offsets = value.integers(layout.order)
    try:
        if len(offsets) != 1 or not isinstance(pointers, Mapping):
            raise IfdError("no offset of a directory")
        directory.below[tag] = read(data, layout, offsets[0], pointers)
    except IfdError:
        directory.broken.append(tag)
