"""What the scripts of the pages read; `static/types.d.ts` has the same types, and a test compares the two."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class PageThing(TypedDict):
    """A thing on a page. On a blind page its relation, verdict and reason are None.

    `box` is the left and the top edge as shares of the photo, `outline` an SVG path. `why` has a line for each context
    class: its name, the relation with it alone, and its share of the score.
    """

    index: int
    label: str
    score: float | None
    classes: list[tuple[str, float]]
    area: float | None
    box: tuple[float, float] | None
    relation: float | None
    verdict: str | None
    reason: str | None
    colour: str
    outline: str
    why: list[tuple[str, float | None, float | None]]


class PageEntry(TypedDict):
    """An image on a page.

    Its name is its `uri`, or its `id` where the uri was too long and is `cut`. `before` and `after` are data URIs, `mask`
    is an SVG path in the units of `view`, and `more` counts the things that had no room.
    """

    id: str
    uri: str
    cut: bool
    status: str | None
    reason: str | None
    error: str | None
    shows: list[str]
    size: tuple[int | None, int | None]
    view: tuple[int, int] | None
    removed: float | None
    mask: str
    stuff: list[tuple[str, float | None]]
    before: str | None
    after: str | None
    note: str | None
    more: int
    objects: list[PageThing]


class PagePolicy(TypedDict):
    """The limits that scores are compared with."""

    cut: float | None
    min_area: float
    max_area: float
    min_score: float


Count = tuple[str | None, int]
"""A name with its count; None stands for all other names."""


class Figures(TypedDict):
    """Statistics of all rows; `area` is the mean share of an image that is filled, or after a scan is to be filled."""

    images: int
    status: dict[str, int]
    failures: list[Count]
    things: int
    gone: int
    reasons: list[Count]
    removed: list[Count]
    area: float
    histogram: dict[str, list[int]]


class PageData(TypedDict):
    """The data of a page. A blind page has no policy."""

    id: str
    title: str
    about: list[str]
    blind: bool
    policy: PagePolicy | None
    entries: list[PageEntry]
    figures: NotRequired[Figures]
    people: NotRequired[list[tuple[str, str, str]] | None]
