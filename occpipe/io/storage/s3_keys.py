"""Listing of S3: pages of keys parsed quickly, and spans divided by requests for single keys.

botocore parses a page twice and key by key, which is most of the CPU time of a listing; a regular expression is faster.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NotRequired, Protocol, TypedDict
from urllib.parse import unquote_plus

from occpipe.io.storage.base import Entry, Span

PAGE_KEYS = 1_000
"""Keys of a page."""
_BEHIND = "\U0010ffff"
"""Sorts behind every key that begins with the text before it."""
_STARTS = "!-048:AGP[adhpx{"
"""Characters at which the threads begin to look for the next character of keys."""
_MAX_CHARACTERS = 16
_THREADS = 6
_OBJECT = re.compile(
    r"<Contents>\s*<Key>([^<]*)</Key>\s*<LastModified>[^<]*</LastModified>\s*"
    r"<ETag>(?:&quot;|\")?([^<&\"]*)(?:&quot;|\")?</ETag>.*?<Size>(\d+)</Size>",
    re.DOTALL,
)
_CODED = re.compile("[%+&]")


class Operation(Protocol):
    """An operation of S3 in botocore."""

    name: str


class RawResponse(TypedDict):
    """A response before botocore parses it."""

    status_code: int
    body: bytes


class Listed(TypedDict):
    """An object in a page that botocore parsed."""

    Key: str
    Size: int
    ETag: str


class Page(TypedDict):
    """A page of ListObjectsV2; `_objects` are key, tag and size of its objects if `parse_page` took them out."""

    IsTruncated: bool
    NextContinuationToken: NotRequired[str]
    EncodingType: NotRequired[str]
    Contents: NotRequired[list[Listed]]
    _objects: NotRequired[list[tuple[str, str, str]]]


def parse_page(
    operation_model: Operation, response_dict: RawResponse, customized_response_dict: Page, **_: object
) -> None:
    """Take the objects out of a response before botocore parses it (its event `before-parse`)."""
    if operation_model.name != "ListObjectsV2" or response_dict["status_code"] != 200:
        return
    body = response_dict["body"].decode()
    objects = _OBJECT.findall(body)
    if not objects or len(objects) != body.count("<Contents>"):  # a server that writes the elements in another order
        return
    customized_response_dict["_objects"] = objects
    rest = body[: body.index("<Contents>")] + body[body.rindex("</Contents>") + len("</Contents>") :]
    response_dict["body"] = rest.encode()


def entries_of(response: Page, cut: int) -> list[Entry]:
    """The objects of a page, without the first `cut` characters of their keys."""
    if "_objects" not in response:
        return [
            Entry(item["Key"][cut:], item["Size"], item["ETag"].strip('"')) for item in response.get("Contents", ())
        ]
    objects = response["_objects"]
    if any(_CODED.search(key) for key, _, _ in objects):
        decode = unquote_plus if response.get("EncodingType") == "url" else html.unescape
        objects = [(decode(key), tag, size) for key, tag, size in objects]
    return [Entry(key[cut:], int(size), tag) for key, tag, size in objects]


def divide(span: Span, first: str, first_after: Callable[[str], str | None]) -> list[Span]:
    """Parts of a span, divided by the character behind the stem that its keys have in common.

    `first` is its first key, and `first_after` returns the first key behind a bound with one request. This takes
    about 6 requests for the stem, then 17 and one for each character behind it, 6 in parallel. Each part begins where the
    one before it ends, so the parts have each key once.
    """
    stem = first[: _common(span, first, first_after)]

    def characters(ends: tuple[str, str | None]) -> list[str]:
        """Characters behind the stem, between two bounds."""
        (after, end), result = ends, list[str]()
        while len(result) < _MAX_CHARACTERS:
            key = first_after(after)
            if key is None or (end is not None and key > end) or not key.startswith(stem) or key == stem:
                break
            result.append(key[len(stem)])
            after = stem + result[-1] + _BEHIND
        return result

    starts: list[str | None] = [stem, *(stem + start for start in _STARTS), None]
    with ThreadPoolExecutor(_THREADS) as pool:
        divisions = {c for part in pool.map(characters, pairwise(starts)) for c in part}
    bounds = [span.after, *(stem + character for character in sorted(divisions)[1:]), span.until]
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
