"""One picture that explains a decision: the things, the result, and each thing's relation beside the cut."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from occpipe.analysis.pages.drawing import colour_of, overlay, stuff_line
from occpipe.core.types import CleanResult, Image, Reason, SceneObject, Verdict

WIDTH = 1600
"""Width of the picture in pixels; a panel has about half of it."""
_MAX_HEIGHT = 900
_SHARP = 2  # drawn at twice the size and scaled down, so that edges are smooth
_MARGIN, _GAP, _ROW = 32, 20, 46
_MAX_ROWS = 12
_TRACK = (470, 250)  # left end and length of a relation's line
_PAPER, _CARD, _INK, _QUIET, _LINE = (248, 247, 244), (255, 255, 255), (30, 34, 38), (89, 97, 106), (226, 223, 216)
GONE, _STAYS = (178, 58, 28), (31, 98, 128)

Point = tuple[float, float]
Colour = tuple[int, int, int]


def draw_preview(rgb: Image, result: CleanResult, cut: float) -> Pil.Image:
    """The preview of one image, H x W x 3, from its result and the cut that was used: a picture `WIDTH` wide."""
    panel = (WIDTH - 2 * _MARGIN - _GAP) // 2
    scale = min(panel / rgb.shape[1], _MAX_HEIGHT / rgb.shape[0])
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    things = sorted(result.objects, key=lambda item: (item.verdict is Verdict.KEEP, item.relation or 0.0))
    listed = things[:_MAX_ROWS]
    top = 112
    table = top + size[1] + _GAP
    pen = _Pen(WIDTH, table + 62 + _ROW * max(1, len(listed)) + 58)
    pen.text((_MARGIN, 26), _headline(result.objects), 30, _INK)
    for number, (caption, picture) in enumerate((("photo", draw_things(rgb, result)), ("result", result.image))):
        x = _MARGIN + number * (panel + _GAP)
        pen.text((x, 82), caption, 18, _QUIET)
        pen.picture(picture, (x, top), size)
        if number == 0:
            _label(pen, things, (x, top), scale, size)
    pen.box((_MARGIN, table, WIDTH - _MARGIN, table + 62 + _ROW * max(1, len(listed)) - 8), _CARD, _LINE)
    _head(pen, table, cut)
    for number, item in enumerate(listed):
        _row(pen, table + 54 + number * _ROW, item, cut)
    if not listed:
        pen.text((_MARGIN + 24, table + 54), "No thing was seen.", 18, _QUIET)
    more = f"{len(things) - len(listed)} things more.   " if len(things) > len(listed) else ""
    pen.text((_MARGIN, table + 70 + _ROW * max(1, len(listed))), more + stuff_line(result.stuff), 17, _QUIET)
    return pen.finished()


def draw_things(rgb: Image, result: CleanResult) -> Image:
    """A photo, H x W x 3, with the filled area tinted and each thing outlined."""
    picture = overlay(rgb, result.mask, GONE, 0.45)
    thick = max(1, round(max(rgb.shape[:2]) / 300))
    for item in result.objects:
        colour = GONE if item.verdict is Verdict.REMOVE else colour_of(item.label)
        contours, _ = cv2.findContours(item.segment.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        picture = np.ascontiguousarray(cv2.drawContours(picture, contours, -1, (20, 20, 20), thick + 2, cv2.LINE_AA))
        picture = np.ascontiguousarray(cv2.drawContours(picture, contours, -1, colour, thick, cv2.LINE_AA))
    return picture


def _headline(objects: Sequence[SceneObject]) -> str:
    gone = [item.label for item in objects if item.verdict is Verdict.REMOVE]
    if gone:
        return f"{len(gone)} of {len(objects)} things removed: {', '.join(dict.fromkeys(gone))}"
    return "Nothing is removed"


def _label(pen: _Pen, things: Sequence[SceneObject], corner: Point, scale: float, size: tuple[int, int]) -> None:
    """The name of each thing at the top of its box, below others that it would hide."""
    boxes: list[tuple[float, float, float, float]] = []
    for item in things[:_MAX_ROWS]:
        colour = GONE if item.verdict is Verdict.REMOVE else (22, 26, 30)
        width = pen.width_of(item.label, 17) + 24
        x = min(max(4.0, item.segment.bbox.x * scale), max(4.0, size[0] - width - 4))
        y = min(max(4.0, item.segment.bbox.y * scale), size[1] - 30.0)
        while y < size[1] - 30 and any(x < b and x + width > a and y < d and y + 28 > c for a, c, b, d in boxes):
            y += 15
        boxes.append((x, y, x + width, y + 28))
        left, top = corner[0] + x, corner[1] + y
        pen.box((left, top, left + width, top + 26), colour, colour, 6)
        pen.box((left, top, left + 6, top + 26), colour_of(item.label), colour_of(item.label), 2)
        pen.text((left + 14, top + 2), item.label, 17, (255, 255, 255))


def _head(pen: _Pen, y: float, cut: float) -> None:
    for x, text in ((_MARGIN + 24, "thing"), (_TRACK[0] + _TRACK[1] + 96, "why")):
        pen.text((x, y + 14), text, 16, _QUIET)
    pen.text((300, y + 14), "verdict", 16, _QUIET)
    pen.text((_TRACK[0], y + 14), f"relation, cut {cut:.3f}", 16, _QUIET)


def _row(pen: _Pen, y: float, item: SceneObject, cut: float) -> None:
    gone = item.verdict is Verdict.REMOVE
    colour = GONE if gone else _STAYS
    pen.box((_MARGIN + 24, y + 6, _MARGIN + 38, y + 20), colour_of(item.label), _INK, 3)
    pen.text((_MARGIN + 50, y), f"{item.label}  {item.segment.score:.2f}", 19, _INK)
    pen.text((300, y), "removed" if gone else "kept", 19, colour)
    if item.relation is not None:
        left, length = _TRACK
        pen.box((left, y + 10, left + length, y + 16), _LINE, _LINE, 3)
        pen.box((left + length * cut - 1, y, left + length * cut + 2, y + 26), _INK, _INK, 0)
        at = left + length * min(1.0, max(0.0, item.relation))
        pen.dot((at, y + 13), 8, colour)
        pen.text((left + length + 24, y), f"{item.relation:.3f}", 19, _INK)
    pen.text((_TRACK[0] + _TRACK[1] + 96, y), _why(item, cut), 18, _INK if gone else _QUIET)


def _why(item: SceneObject, cut: float) -> str:
    text = str(item.reason).replace("_", " ")
    if item.relation is not None and item.reason in (Reason.UNRELATED, Reason.RELATED):
        text += ", below the cut" if item.relation < cut else ", not below the cut"
    if item.evidence:
        near, far = item.evidence[0], item.evidence[-1]
        text += f"; nearest {near.context} {near.relation:.2f}, farthest {far.context} {far.relation:.2f}"
    return text


class _Pen:
    """Draws in pixels of the finished picture, on one of `_SHARP` times its size."""

    def __init__(self, width: int, height: int) -> None:
        self._sheet = Pil.new("RGB", (width * _SHARP, height * _SHARP), _PAPER)
        self._draw = ImageDraw.Draw(self._sheet)

    def text(self, at: Point, text: str, size: int, colour: Colour) -> None:
        """Text with its upper left corner at a point."""
        self._draw.text((at[0] * _SHARP, at[1] * _SHARP), text, colour, ImageFont.load_default(size * _SHARP))

    def width_of(self, text: str, size: int) -> float:
        """How wide a text is."""
        return self._draw.textlength(text, ImageFont.load_default(size * _SHARP)) / _SHARP

    def box(self, edges: tuple[float, float, float, float], fill: Colour, edge: Colour, round_: int = 10) -> None:
        """A rectangle with round corners: left, top, right, bottom."""
        self._draw.rounded_rectangle([v * _SHARP for v in edges], round_ * _SHARP, fill, edge, _SHARP)

    def dot(self, at: Point, radius: int, colour: Colour) -> None:
        """A disc with a white rim."""
        for r, fill in ((radius + 2, _CARD), (radius, colour)):
            self._draw.circle((at[0] * _SHARP, at[1] * _SHARP), r * _SHARP, fill)

    def picture(self, rgb: Image, at: tuple[int, int], size: tuple[int, int]) -> None:
        """A picture, H x W x 3, scaled to a size."""
        scaled = Pil.fromarray(rgb).resize((size[0] * _SHARP, size[1] * _SHARP), Pil.Resampling.LANCZOS)
        self._sheet.paste(scaled, (at[0] * _SHARP, at[1] * _SHARP))

    def finished(self) -> Pil.Image:
        """The picture at its size."""
        return self._sheet.reduce(_SHARP)
