"""A store in memory, to test what stands on stores without a disk."""

from __future__ import annotations

import bisect
import hashlib
from itertools import pairwise

from occpipe.io.storage import Entry, Span, Store

PARTS = 7


class MemoryStore(Store):
    """Objects in a dict; the tag of an object is the hash of its bytes."""

    def __init__(self, uri: str = "memory://test") -> None:
        super().__init__(uri)
        self.objects: dict[str, bytes] = {}

    def read(self, key: str, limit: int | None = None) -> bytes:
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key][:limit]

    def write(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def create(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self.write(key, data)
        return True

    def find(self, key: str) -> Entry | None:
        return self._entry(key) if key in self.objects else None

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def list_keys(self, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        keys = self._keys(span)
        left = [Span(span.folder, keys[limit - 1], span.until)] if len(keys) > limit else []
        return [self._entry(key) for key in keys[:limit]], left

    def divide(self, span: Span) -> list[Span]:
        keys = self._keys(span)
        if not keys:
            return []
        cuts = sorted({keys[len(keys) * part // PARTS] for part in range(1, PARTS)})
        return [Span(span.folder, after or "", until) for after, until in pairwise([span.after, *cuts, span.until])]

    def check_readable(self) -> None:
        """Memory always is."""

    def _keys(self, span: Span) -> list[str]:
        keys = sorted(self.objects)
        start = bisect.bisect_right(keys, span.after)
        stop = len(keys) if span.until is None else bisect.bisect_right(keys, span.until)
        return [key for key in keys[start:stop] if not span.folder or key.startswith(f"{span.folder}/")]

    def _entry(self, key: str) -> Entry:
        data = self.objects[key]
        return Entry(key, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
