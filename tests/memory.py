"""A store in memory, to test what stands on stores without a disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from occpipe.storage import Entry, Store


class MemoryStore(Store):
    """Objects in a dict; the tag of an object is the hash of its bytes."""

    def __init__(self) -> None:
        super().__init__("memory://test")
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
        return next((entry for entry in self.walk() if entry.key == key), None)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        for key, data in sorted(self.objects.items()):
            if not prefix or key.startswith(f"{prefix}/"):
                yield Entry(key, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())

    def check_readable(self) -> None:
        """Memory always is."""
