"""Rows as plain values: the columns of `core.schemas` as types.

A column that is not filled yet is null in Arrow and None here. Those that the next stage may rely on have no None in their
type, because a row is open only if the stages before it have filled them.
"""

from __future__ import annotations

from typing import TypedDict


class StuffRow(TypedDict):
    """A struct of the column `stuff`."""

    label: str
    confidence: float


class EvidenceRow(TypedDict):
    """How far a context class relates to a thing, in [0, 1]."""

    context: str
    relation: float


class BoxRow(TypedDict):
    """A box in pixels."""

    x: int
    y: int
    width: int
    height: int


class ClassRow(TypedDict):
    """A class that a thing may have."""

    label: str
    probability: float


class SegmentRow(TypedDict):
    """A struct of the column `segments`: a thing as it was seen; rows of earlier versions have no classes."""

    label: str
    score: float
    thing: float | None
    classes: list[ClassRow] | None
    mask: str


class ObjectRow(SegmentRow):
    """A struct of the column `objects`: a thing with its verdict."""

    area: int
    bbox: BoxRow
    relation: float | None
    verdict: str
    reason: str
    evidence: list[EvidenceRow]


class ErrorRow(TypedDict):
    """The stage that closed a row, and its error."""

    stage: str
    type: str
    message: str


class Row(TypedDict, total=False):
    """One row of the pipeline, or of a published file, with the columns that were read."""

    uri: str
    size: int | None
    etag: str | None
    image_id: int
    shard: int
    row: int
    earlier: str | None
    status: str | None
    reason: str | None
    error: ErrorRow | None
    sha256: str | None
    format: str | None
    width: int
    height: int
    pixels: bytes
    mask_width: int
    mask_height: int
    segments: list[SegmentRow]
    stuff: list[StuffRow]
    objects: list[ObjectRow] | None
    mask: str | None
    removed: float | None
    data: bytes | None
    lost: list[str] | None
    output: str | None
    output_offset: int | None
    output_size: int | None
    output_sha256: str | None
    config: str
    copied: bool | None
