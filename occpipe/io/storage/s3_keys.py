"""Listing of S3: pages of keys parsed quickly, and intervals of keys divided by looking at single keys.

botocore parses a page twice and key by key, which is most of the CPU of a listing; a regular expression takes it at once.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_plus

from occpipe.io.storage.base import Entry, Span

PAGE = 1_000
"""Keys of a page."""
_BEHIND = "\U0010ffff"
"""Behind every key that begins with what stands before it."""
_STARTS = "!-048:AGP[adhpx{"
"""Characters at which the threads begin that look for the next character of keys."""
_MAX_SEEN = 16
_THREADS = 6
_OBJECT = re.compile(
    r"<Contents>\s*<Key>([^<]*)</Key>\s*<LastModified>[^<]*</LastModified>\s*"
    r"<ETag>(?:&quot;|\")?([^<&\"]*)(?:&quot;|\")?</ETag>.*?<Size>(\d+)</Size>",
    re.DOTALL,
)
_CODED = re.compile("[%+&]")
_KEYS = "occpipe.keys"


def parse_page(
    operation_model: Any, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Take the objects out of an answer before botocore parses it (its event `before-parse`)."""
    if operation_model.name != "ListObjectsV2" or response_dict["status_code"] != 200:
        return
    body = response_dict["body"].decode()
    objects = _OBJECT.findall(body)
    if not objects or len(objects) != body.count("<Contents>"):  # an answer that is written in another order
        return
    customized_response_dict[_KEYS] = objects
    rest = body[: body.index("<Contents>")] + body[body.rindex("</Contents>") + len("</Contents>") :]
    response_dict["body"] = rest.encode()


def entries_of(answer: dict[str, Any], cut: int) -> list[Entry]:
    """The objects of a page; their keys lose the first `cut` characters."""
    if _KEYS not in answer:
        return [Entry(item["Key"][cut:], item["Size"], item["ETag"].strip('"')) for item in answer.get("Contents", ())]
    objects = answer[_KEYS]
    if any(_CODED.search(key) for key, _, _ in objects):
        decode = unquote_plus if answer.get("EncodingType") == "url" else html.unescape
        objects = [(decode(key), tag, size) for key, tag, size in objects]
    return [Entry(key[cut:], int(size), tag) for key, tag, size in objects]


def divide(span: Span, first: str, first_after: Callable[[str], str | None]) -> list[Span]:
    """Parts of a span, cut behind the stem that its keys have in common.

    `first` is its first key, and `first_after` gives the first one behind a bound, at the cost of a request: some 6 for the
    stem, and 17 and one for each character that follows it, 6 of them at once. The parts hold each key once, whatever was
    seen of the keys, because each begins where the one before it ends.
    """
    stem = first[: _common(span, first, first_after)]

    def characters(ends: tuple[str, str | None]) -> list[str]:
        """Characters behind the stem, between two bounds."""
        (after, end), seen = ends, list[str]()
        while len(seen) < _MAX_SEEN:
            key = first_after(after)
            if key is None or (end is not None and key > end) or not key.startswith(stem) or key == stem:
                break
            seen.append(key[len(stem)])
            after = stem + seen[-1] + _BEHIND
        return seen

    starts: list[str | None] = [stem, *(stem + start for start in _STARTS), None]
    with ThreadPoolExecutor(_THREADS) as pool:
        seen = {one for part in pool.map(characters, pairwise(starts)) for one in part}
    bounds = [span.after, *(stem + character for character in sorted(seen)[1:]), span.until]
    return [Span(span.folder, after or "", until) for after, until in pairwise(bounds)]


def _common(span: Span, first: str, first_after: Callable[[str], str | None]) -> int:
    """How many characters of its first key all keys of a span begin with."""
    low, high = len(span.folder) + 1 if span.folder else 0, len(first)
    while low < high:
        middle = (low + high + 1) // 2
        if first_after(first[:middle] + _BEHIND) is None:
            low = middle
        else:
            high = middle - 1
    return low
