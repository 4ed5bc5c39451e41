"""Segments and masks drawn over a photo: colours, tints, labels."""

from __future__ import annotations

import colorsys
import zlib

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from occpipe.core.classes import coco_stuff
from occpipe.core.types import Image, Mask, Segmentation

PANEL = 480
"""Long side of a panel in pixels."""
GOLDEN_RATIO = 0.618034
_GAP = 8
_LINE = 18
_INK, _PAPER = (20, 20, 20), (250, 250, 248)


def draw_segments(rgb: Image, scene: Segmentation) -> Pil.Image:
    """A photo, H x W x 3, beside its segments with their labels, and a line with its stuff."""
    scale = PANEL / max(rgb.shape[:2])
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    sheet = Pil.new("RGB", (2 * width + _GAP, height + _LINE), _PAPER)
    for x, panel in ((0, Pil.fromarray(rgb)), (width + _GAP, _draw_segments(rgb, scene))):
        sheet.paste(panel.resize((width, height), Pil.Resampling.LANCZOS), (x, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    _draw_labels(pen, scene, (width + _GAP, 0), scale, font)
    pen.text((0, height + 1), stuff_line(scene.stuff), _INK, font)
    return sheet


def colour_of(label: str) -> tuple[int, int, int]:
    """A colour for a class, the same in every picture."""
    ids = {c.name: c.id for c in coco_stuff()}
    number = ids.get(label, zlib.crc32(label.encode()))
    hue = number * GOLDEN_RATIO % 1  # classes that stand near each other in the list get hues far from each other
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (number % 2), 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def overlay(rgb: Image, mask: Mask, colour: tuple[int, int, int], strength: float = 0.5) -> Image:
    """An image, H x W x 3, tinted where a mask, H x W, is 1."""
    tinted = rgb.astype(np.float32)
    inside = mask.astype(bool)
    tinted[inside] = (1 - strength) * tinted[inside] + strength * np.array(colour, np.float32)
    return tinted.astype(np.uint8)


def _draw_segments(rgb: Image, scene: Segmentation) -> Pil.Image:
    picture = rgb
    for segment in scene.segments:
        picture = overlay(picture, segment.mask, colour_of(segment.label))
    return Pil.fromarray(picture)


def _draw_labels(
    pen: ImageDraw.ImageDraw,
    scene: Segmentation,
    corner: tuple[int, int],
    scale: float,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    for segment in scene.segments:
        inside = np.argwhere(segment.mask)
        y, x = inside[len(inside) // 2]  # a pixel of the segment itself: the middle of its box may lie outside
        text = f"{segment.label} {segment.score:.2f}"
        half, width = pen.textlength(text, font) / 2, scene.width * scale
        at = (corner[0] + min(max(x * scale, half), max(half, width - half)), corner[1] + y * scale)
        pen.text(at, text, (255, 255, 255), font, anchor="mm", stroke_width=2, stroke_fill=_INK)


def stuff_line(stuff: dict[str, float]) -> str:
    """The surest stuff of a scene in a line."""
    named = sorted(stuff.items(), key=lambda pair: -pair[1])[:8]
    return "stuff: " + (", ".join(f"{label} {confidence:.2f}" for label, confidence in named) or "none")
