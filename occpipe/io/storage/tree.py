"""Listing of stores with folders: depth first, in the order of the keys, from any position in a folder."""

from __future__ import annotations

import bisect
import threading
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from occpipe.io.storage.base import Entry, Span, Store, with_retries

MAX_PARTS = 64
"""Spans into which a folder is divided."""
_FOLDER_WEIGHT = 1_000
"""A sub-folder counts as so many files when a folder is divided."""
_MIN_CACHED = 1_000


class Item(NamedTuple):
    """A file or sub-folder; `order` is its name as keys are sorted: the name of a folder ends with a slash."""

    order: str
    entry: Entry | None  # None: a folder, or a file of which only the name is known

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.order.endswith("/")


@dataclass
class _Level:
    """A folder that is being listed, and how many of its items are listed already."""

    folder: str
    items: list[Item]
    until: str | None
    done: int = 0


class TreeStore(Store):
    """A store whose folders can be listed one by one. The bounds of its spans are items of the span's folder."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._lock = threading.Lock()
        self._recent: tuple[str, list[Item]] | None = None

    @abstractmethod
    def _items(self, folder: str) -> list[Item]:
        """The items of a folder in any order; none if it does not exist. Links to folders count as files."""

    def _look(self, key: str) -> Entry | None:
        """The entry of a file whose item has none; None if the file vanished."""
        return self.find(key)

    def list_keys(self, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        entries: list[Entry] = []
        levels = [_Level(span.folder, self._items_of(span), span.until)]
        while levels and len(entries) < limit:
            level = levels[-1]
            if level.done == len(level.items):
                levels.pop()
                continue
            item = level.items[level.done]
            level.done += 1
            key = _join(level.folder, item.order)
            if item.is_folder:
                folder = key.rstrip("/")
                levels.append(_Level(folder, self._items_of(Span(folder)), None))
            elif (entry := item.entry or self._look(key)) is not None:
                entries.append(entry)
        left = [level for level in reversed(levels) if level.done < len(level.items)]
        return entries, [
            Span(level.folder, level.items[level.done - 1].order if level.done else "", level.until) for level in left
        ]

    def divide(self, span: Span) -> list[Span]:
        items = self._items_of(span)
        while len(items) == 1 and items[0].is_folder:
            span = Span(_join(span.folder, items[0].order).rstrip("/"))
            items = self._items_of(span)
        weights = [_FOLDER_WEIGHT if item.is_folder else 1 for item in items]
        share = max(sum(weights) / MAX_PARTS, _FOLDER_WEIGHT)
        cuts, weight = [0], 0
        for place, added in enumerate(weights):
            if place and weight + added > share:
                cuts.append(place)
                weight = 0
            weight += added
        return [self._part(span, items, start, stop) for start, stop in pairwise([*cuts, len(items)]) if stop > start]

    def _part(self, span: Span, items: list[Item], start: int, stop: int) -> Span:
        if stop - start == 1 and items[start].is_folder:
            return Span(_join(span.folder, items[start].order).rstrip("/"))
        after = items[start - 1].order if start else span.after
        return Span(span.folder, after, items[stop - 1].order if stop < len(items) else span.until)

    def _items_of(self, span: Span) -> list[Item]:
        """The items of a span, sorted."""
        if not span.after and span.until is None:
            return self._read(span.folder)
        with self._lock:  # threads that list parts of a large folder read it once
            recent = self._recent
            items = recent[1] if recent and recent[0] == span.folder and span.after else self._read(span.folder)
        start = bisect.bisect_right(items, span.after, key=_order) if span.after else 0
        stop = len(items) if span.until is None else bisect.bisect_right(items, span.until, key=_order)
        return items[start:stop]

    def _read(self, folder: str) -> list[Item]:
        items = sorted(with_retries(lambda: self._items(folder)), key=_order)
        if len(items) > _MIN_CACHED:  # cached, so that a large folder is not read again for each thousand of its files
            self._recent = (folder, items)
        return items


def _order(item: Item) -> str:
    return item.order


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
