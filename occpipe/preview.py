"""One picture that explains a decision: photo, segments with labels, what is removed, result, and the reasons."""

from __future__ import annotations

import colorsys
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from occpipe.api import Cleaner
from occpipe.classes import coco_stuff
from occpipe.decide import cut_of
from occpipe.errors import StorageError
from occpipe.images import ImageError, Limits, decode
from occpipe.types import CleanResult, Image, Mask, SceneObject, Segmentation, Verdict

PANEL = 480
"""Long side of a panel in pixels."""
AT_ONCE = 8
"""Photos that are looked at together, on a core each where there is no GPU."""
GOLDEN_RATIO = 0.618034
_GAP = 8
_LINE = 18
_INK, _PAPER, _RED = (20, 20, 20), (250, 250, 248), (214, 40, 40)


def preview_files(cleaner: Cleaner, paths: Iterable[Path], out: Path) -> Iterator[tuple[Path, str | None]]:
    """Write one PNG for each image into `out`; yields its path, or the image's path with what is wrong with it.

    Raises StorageError where there is no image at all.
    """
    corpus = cleaner.config.corpus
    limits = Limits(corpus.max_pixels, corpus.min_side)
    files = list(dict.fromkeys(_files(paths, corpus.extensions)))  # one that is named twice is one image
    if not files:
        raise StorageError(f"no image there ({' '.join(corpus.extensions)})")
    out.mkdir(parents=True, exist_ok=True)
    taken: set[Path] = set()
    cut = cut_of(cleaner.config.policy, cleaner.relations)
    for start in range(0, len(files), AT_ONCE):
        photos: dict[Path, Image | str] = {}
        for path in files[start : start + AT_ONCE]:
            try:
                photos[path] = decode(path.read_bytes(), limits, max_side=cleaner.config.segmenter.decode_side)
            except (ImageError, OSError) as error:
                photos[path] = str(error)
        scenes = iter(cleaner.segmenter([rgb for rgb in photos.values() if not isinstance(rgb, str)]))
        for path, rgb in photos.items():
            if isinstance(rgb, str):
                yield path, rgb
                continue
            scene, target = next(scenes), _free_name(out, path.stem, taken)
            draw_preview(rgb, scene, cleaner.apply(rgb, scene), cut).save(target)
            yield target, None


def _files(paths: Iterable[Path], extensions: tuple[str, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.suffix.lower() in extensions)
        else:
            yield path


def _free_name(folder: Path, stem: str, taken: set[Path]) -> Path:
    """`STEM.preview.png`, numbered where two photos of one call have the same name; never the name of a photo."""
    numbered = (f"{stem}{f'-{n}' if n > 1 else ''}.preview.png" for n in itertools.count(1))
    target = next(folder / name for name in numbered if folder / name not in taken)
    taken.add(target)
    return target


def draw_preview(rgb: Image, scene: Segmentation, result: CleanResult, cut: float) -> Pil.Image:
    """The preview of one image, H x W x 3, from its segmentation, its result and the cut that was used."""
    scale = PANEL / max(rgb.shape[:2])
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    panels = (
        ("photo", Pil.fromarray(rgb)),
        ("segments", _draw_segments(rgb, scene)),
        ("removed", _draw_removed(rgb, result.mask)),
        ("result", Pil.fromarray(result.image)),
    )
    lines = [*_object_lines(result.objects, cut), "", _stuff_line(result.stuff)]
    across = 4 if height >= width else 2
    rows = len(panels) // across
    sheet_width = across * (width + _GAP) + _GAP
    sheet_height = rows * (height + _LINE + _GAP) + _GAP + _LINE * (len(lines) + 1)
    sheet = Pil.new("RGB", (sheet_width, sheet_height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, (title, panel) in enumerate(panels):
        x = _GAP + index % across * (width + _GAP)
        y = _GAP + index // across * (height + _LINE + _GAP)
        pen.text((x, y), title, _INK, font)
        sheet.paste(panel.resize((width, height), Pil.Resampling.LANCZOS), (x, y + _LINE))
        if title == "segments":
            _draw_labels(pen, scene, (x, y + _LINE), scale, font)
    y = rows * (height + _LINE + _GAP) + _GAP
    for line in lines:
        pen.text((_GAP, y), line, _RED if line.startswith(Verdict.REMOVE) else _INK, font)
        y += _LINE
    return sheet


def draw_segments(rgb: Image, scene: Segmentation) -> Pil.Image:
    """A photo, H x W x 3, beside its segments with their labels, and a line with its stuff."""
    scale = PANEL / max(rgb.shape[:2])
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    sheet = Pil.new("RGB", (2 * width + _GAP, height + _LINE), _PAPER)
    for x, panel in ((0, Pil.fromarray(rgb)), (width + _GAP, _draw_segments(rgb, scene))):
        sheet.paste(panel.resize((width, height), Pil.Resampling.LANCZOS), (x, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    _draw_labels(pen, scene, (width + _GAP, 0), scale, font)
    pen.text((0, height + 1), _stuff_line(scene.stuff), _INK, font)
    return sheet


def colour_of(label: str) -> tuple[int, int, int]:
    """A colour for a class, the same in every picture."""
    known = {c.name: c.id for c in coco_stuff()}
    number = known.get(label, zlib.crc32(label.encode()))
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


def _draw_removed(rgb: Image, mask: Mask) -> Pil.Image:
    return Pil.fromarray(overlay(rgb, mask, _RED, 0.6))


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


def _object_lines(objects: Iterable[SceneObject], cut: float) -> list[str]:
    ranked = sorted(objects, key=lambda o: (o.verdict is Verdict.KEEP, o.label))
    lines = [f"{o.verdict} {o.label}: {o.reason}{_relation(o, cut)}{_why(o)}" for o in ranked]
    return lines or ["no things seen"]


def _relation(item: SceneObject, cut: float) -> str:
    if item.relation is None:
        return ""
    side = "below" if item.relation < cut else "not below"
    return f", relation {item.relation:.3f} is {side} the cut {cut:.3f}"


def _why(item: SceneObject) -> str:
    if not item.evidence:
        return ""
    near, far = item.evidence[0], item.evidence[-1]
    return f" (nearest {near.context} {near.relation:.2f}, farthest {far.context} {far.relation:.2f})"


def _stuff_line(stuff: dict[str, float]) -> str:
    named = sorted(stuff.items(), key=lambda pair: -pair[1])[:8]
    return "stuff: " + (", ".join(f"{label} {confidence:.2f}" for label, confidence in named) or "none")
