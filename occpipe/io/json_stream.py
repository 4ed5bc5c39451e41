"""Large JSON files, element by element: a COCO file of gigabytes is read with a few MB of memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

CHUNK_BYTES = 1 << 20
MAX_CHARS = 1 << 26
"""The longest element; run lengths of one crowd are less than 1 MB."""
_SPACE = re.compile(r"[\s,]*")


def array_elements(file: BinaryIO, on_bytes: Callable[[bytes], object] = len) -> Iterator[tuple[str, Any]]:
    """The elements of the arrays in a JSON object, each with the key of its array; other values are passed over.

    Raises ValueError where the file is no JSON object, ends early, or has an element that is too long.

    Args:
        file: UTF-8; it is read once, from its start to its end.
        on_bytes: Takes each chunk, for a checksum.
    """
    text = _Text(file, on_bytes)
    if text.next() != "{":
        raise ValueError("it is no JSON object")
    text.place += 1
    while text.next() != "}":
        key = text.value()
        if text.next() != ":" or not isinstance(key, str):
            raise ValueError("a key of the JSON object is broken")
        text.place += 1
        if text.next() != "[":
            text.value()
            continue
        text.place += 1
        while text.next() != "]":
            yield key, text.value()
        text.place += 1
    while text.more():  # for the checksum
        text.buffer = ""


class _Text:
    """The text of a file, from `place` on; what lies before it is dropped."""

    def __init__(self, file: BinaryIO, on_bytes: Callable[[bytes], object]) -> None:
        self._file, self._on_bytes = file, on_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self.buffer, self.place = "", 0

    def more(self) -> bool:
        """Read another chunk, or as much as is there already; False at the end of the file."""
        self.buffer, self.place = self.buffer[self.place :], 0
        chunk = self._file.read(max(CHUNK_BYTES, len(self.buffer)))
        self._on_bytes(chunk)
        self.buffer += self._utf8.decode(chunk, final=not chunk)
        return bool(chunk)

    def next(self) -> str:
        """The next character that is neither a space nor a comma."""
        while True:
            match = _SPACE.match(self.buffer, self.place)
            self.place = match.end() if match else self.place
            if self.place < len(self.buffer):
                return self.buffer[self.place]
            if not self.more():
                raise ValueError("it ends early")

    def value(self) -> Any:
        """The JSON value that begins here. Raises ValueError where there is none."""
        self.next()
        while True:
            try:
                value, end = self._json.raw_decode(self.buffer, self.place)
                if end < len(self.buffer):  # else a number may go on
                    self.place = end
                    return value
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            except json.JSONDecodeError as error:
                if len(self.buffer) - self.place > MAX_CHARS:
                    raise ValueError(f"an element is broken, or longer than {MAX_CHARS} characters") from error
            if not self.more():
                raise ValueError("it ends early, or is broken")
