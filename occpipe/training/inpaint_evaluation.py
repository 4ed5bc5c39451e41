"""How good an inpainter is: holes in photos whose content is known, and things pasted where they were not.

All figures are taken inside the hole. The inpainter is called as the stage calls it, with the config's settings. What was
in the hole is replaced by noise, so that no figure can depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from occpipe.core.types import Image, Mask
from occpipe.io.images import Limits, decode
from occpipe.models.efficientnet import VARIANTS, Backbone, normalise
from occpipe.models.inpainters import MaskGrowth, grow_mask
from occpipe.models.segmenters import Segmenter
from occpipe.training.holes import Cutout, thing_hole
from occpipe.training.segmentation import pretrained_state

Fill = Callable[[Image, Mask], Image]

MIN_SIDE, MAX_SIDE = 256, 768
AREA = (0.02, 0.15)
GREY = (0.299, 0.587, 0.114)
TRIES = 6  # photos looked at for each that a pasted thing is found in
SEEN_AGAIN = 0.1
"""Share of the hole that segments of the removed class must cover to count as the thing being seen again."""
FIGURES = ("psnr", "ssim", "sharpness", "seam", "perceptual", "outside", "seconds")


@dataclass(frozen=True, slots=True)
class Case:
    """A photo, H x W x 3, and a hole in it, H x W; `given` is what the inpainter sees; `label` names a pasted thing."""

    name: str
    truth: Image
    mask: Mask
    given: Image
    label: str | None = None


def read_photo(path: Path) -> Image:
    """A photo, upright, shrunk to at most 768 pixels; never enlarged, for that would blur what sharpness compares with.

    Raises ImageError for a file that is no photo.
    """
    return decode(path.read_bytes(), Limits(), MAX_SIDE)


def spread(paths: Sequence[Path], count: int) -> Iterator[Path]:
    """`count` paths evenly spread, and then the others, for those that turn out too small."""
    count = min(count, len(paths))
    first = [paths[i * len(paths) // count] for i in range(count)]
    yield from first
    yield from sorted(set(paths) - set(first))


def hole_cases(paths: Sequence[Path], count: int, outlines: Sequence[Mask], seed: int = 0) -> list[Case]:
    """Photos with one hole each in the shape of a thing, 2-15% of the area; what was there is noise in `given`."""
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    for path in spread(paths, count):
        photo = read_photo(path)
        if min(photo.shape[:2]) < MIN_SIDE:
            continue
        mask = thing_hole(rng, photo.shape[:2], float(rng.uniform(*AREA)), outlines)
        noise = np.random.default_rng((seed, len(cases))).integers(0, 256, photo.shape, np.uint8)
        cases.append(Case(path.stem, photo, mask, np.where(mask[..., None] == 1, noise, photo)))
        if len(cases) == count:
            break
    return cases


def composed_cases(
    paths: Sequence[Path], count: int, cutouts: Sequence[Cutout], segmenter: Segmenter, seed: int = 1
) -> list[Case]:
    """Photos with a thing pasted in that the segmenter finds, and did not find before; the hole is the thing, grown."""
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    for path in list(spread(paths, 2 * count))[: TRIES * count]:
        photo = read_photo(path)
        if min(photo.shape[:2]) < MIN_SIDE:
            continue
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        given, mask = paste_thing(photo, cutout, float(rng.uniform(*AREA)), rng)
        if _covered(segmenter, photo, mask, cutout.label) or _covered(segmenter, given, mask, cutout.label) < 0.5:
            continue
        grown = grow_mask(mask, MaskGrowth())
        cases.append(Case(path.stem, photo, grown, given, cutout.label))
        if len(cases) == count:
            break
    return cases


def paste_thing(
    photo: Image, cutout: Cutout, area: float, rng: np.random.Generator, *, tone: float = 0.0
) -> tuple[Image, Mask]:
    """A thing pasted into the lower part of a photo, with a soft edge of one pixel; the photo and the thing's outline.

    Its mean colour goes the share `tone` of the way to that of the place.
    """
    height, width = photo.shape[:2]
    h, w = cutout.mask.shape
    scale = (area * height * width / max(1, int(cutout.mask.sum()))) ** 0.5
    scale = min(scale, 0.8 * height / h, 0.8 * width / w, 2.5)
    size = max(3, round(w * scale)), max(3, round(h * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    thing = cv2.resize(cutout.image, size, interpolation=kind).astype(np.float32)
    outline = cv2.resize(cutout.mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    alpha = cv2.GaussianBlur(np.clip(outline * 2 - 1, 0, 1), (3, 3), 0)[..., None]  # half a pixel in: no fringe
    y, x = rng.integers((height - size[1]) // 2, height - size[1] + 1), rng.integers(width - size[0] + 1)
    box = np.s_[y : y + size[1], x : x + size[0]]
    given = photo.copy()
    if tone:
        inside = outline > 0.25
        thing = np.clip(thing + tone * (photo[box][inside].mean(0) - thing[inside].mean(0)), 0, 255)
    given[box] = np.rint(alpha * thing + (1 - alpha) * given[box]).astype(np.uint8)
    mask: Mask = np.zeros((height, width), np.uint8)
    mask[box] = outline > 0.25
    return given, mask


def _covered(segmenter: Segmenter, image: Image, mask: Mask, label: str) -> float:
    """The share of a mask that segments of a class cover."""
    (seen,) = segmenter([image])
    masks = [s.mask & mask for s in seen.segments if s.label == label]
    return float(sum(int(m.sum()) for m in masks) / max(1, int(mask.sum())))


class Perceptual:
    """The distance of two pictures in the eyes of a net that was trained on ImageNet, as LPIPS without its weights.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018: features of five
    depths (strides 2 to 32 of EfficientNet-Lite0), normalised over channels; squared differences, summed over channels,
    averaged over the hole and over depths. Needs the extra `train`.
    """

    def __init__(self, variant: str = "lite0", device: str = "cpu") -> None:
        state = {k.removeprefix("backbone."): v for k, v in pretrained_state(variant).items() if "backbone." in k}
        self.net = Backbone(variant).eval().requires_grad_(False)
        self.net.load_state_dict(state)
        self.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        repeats = [row[0] for row in VARIANTS[variant]]
        self.depths = {sum(repeats[: stage + 1]) - 1 for stage in (0, 1, 2, 4, 6)}

    def features(self, x: Tensor) -> list[Tensor]:
        """Features of five depths, normalised over channels; `x` is normalised, B x 3 x H x W."""
        x = self.net.stem(x)
        found = []
        for i, block in enumerate(self.net.blocks):
            x = block(x)
            if i in self.depths:
                found.append(torch.nn.functional.normalize(x, dim=1, eps=1e-6))
        return found

    def __call__(self, result: Image, truth: Image, mask: Mask) -> float:
        """The distance within a mask; pictures are H x W x 3."""
        with torch.inference_mode():
            pair = normalise(torch.from_numpy(np.stack([result, truth])))
            share = torch.from_numpy(mask).float()[None, None]
            total = 0.0
            for f in self.features(pair):
                difference = (f[0] - f[1]).square().sum(0)
                weight = torch.nn.functional.interpolate(share, size=difference.shape, mode="area")[0, 0]
                total += float((difference * weight).sum() / weight.sum().clamp(min=1e-6))
        return total / len(self.depths)


def _grey(image: Image) -> NDArray[np.float32]:
    return np.asarray(image.astype(np.float32) @ np.array(GREY, np.float32))


def psnr(result: Image, truth: Image, mask: Mask) -> float:
    """Peak signal-to-noise ratio inside a mask, dB; at most 60."""
    error = np.square(result[mask == 1].astype(np.float64) - truth[mask == 1]).mean()
    return float(10 * np.log10(255**2 / max(error, 0.065)))


def ssim(result: Image, truth: Image, mask: Mask) -> float:
    """Structural similarity of the grey pictures, averaged inside a mask; windows as in Wang et al., TIP 2004."""
    a, b = _grey(result), _grey(truth)

    def mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5), np.float32)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return float(index[mask == 1].mean())


def sharpness(result: Image, truth: Image, mask: Mask) -> float:
    """The mean absolute Laplacian inside a mask, as a share of the original's; 1 is as sharp as the original."""
    inner = mask == 1
    fill, original = (np.abs(cv2.Laplacian(_grey(i), cv2.CV_32F))[inner].mean() for i in (result, truth))
    return float(fill / max(float(original), 1e-3))


def seam(result: Image, truth: Image, mask: Mask) -> float:
    """The mean step in grey across the edge of a mask, as a share of the original's; above 1 the edge can be seen."""
    found = []
    for image in (result, truth):
        grey = _grey(image)
        steps = [np.abs(np.diff(grey, axis=axis))[np.diff(mask, axis=axis) != 0] for axis in (0, 1)]
        found.append(float(np.concatenate(steps).mean()))
    return found[0] / max(found[1], 1e-3)


def evaluate_holes(
    inpainters: Mapping[str, Fill],
    cases: Sequence[Case],
    distance: Perceptual | None = None,
    shown: Callable[[str, Case, Image], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Mean figures per inpainter over the cases; perceptual distance only where a net for it is given.

    Means are over photos; sharpness and seam are medians, for a flat original makes their ratio large.
    """
    table: dict[str, dict[str, float]] = {}
    for name, inpainter in inpainters.items():
        rows: dict[str, list[float]] = {figure: [] for figure in FIGURES}
        for case in cases:
            start = time.perf_counter()
            result = inpainter(case.given, case.mask)
            rows["seconds"].append(time.perf_counter() - start)
            for figure in (psnr, ssim, sharpness, seam):
                rows[figure.__name__].append(figure(result, case.truth, case.mask))
            rows["outside"].append(float(np.abs(result.astype(int) - case.given)[case.mask == 0].max()))
            if distance is not None:
                rows["perceptual"].append(distance(result, case.truth, case.mask))
            if shown is not None:
                shown(name, case, result)
        medians = ("sharpness", "seam")
        table[name] = {k: float(np.median(v) if k in medians else np.mean(v)) for k, v in rows.items() if v}
    return table


def evaluate_composed(
    inpainters: Mapping[str, Fill], cases: Sequence[Case], segmenter: Segmenter, distance: Perceptual | None = None
) -> dict[str, dict[str, Any]]:
    """Per inpainter, the share of pasted things that the segmenter sees again after their removal, and the fill's error."""
    table: dict[str, dict[str, Any]] = {}
    for name, inpainter in inpainters.items():
        again = []
        errors = []
        distances = []
        for case in cases:
            result = inpainter(case.given, case.mask)
            if _covered(segmenter, result, case.mask, str(case.label)) >= SEEN_AGAIN:
                again.append(f"{case.name}: {case.label}")
            errors.append(psnr(result, case.truth, case.mask))
            if distance is not None:
                distances.append(distance(result, case.truth, case.mask))
        table[name] = {"seen_again": len(again) / max(1, len(cases)), "which": again, "psnr": float(np.mean(errors))}
        if distances:
            table[name]["perceptual"] = float(np.mean(distances))
    return table
