"""Fills a hole with patches of the same photo, coarse to fine: the first half of `starter`.

The patch-based objective of Wexler, Shechtman and Irani ("Space-Time Completion of Video", PAMI 2007), the search of
Barnes et al. ("PatchMatch", SIGGRAPH 2009), and from Newson et al. ("Video Inpainting of Complex Scenes", SIAM J. Imaging
Sciences 2014) the onion-peel start and the texture channels, without which a patch of blurred sand is as good as one of
blurred sky. Ours: sources at the target's height are preferred, for a photo's rows have more in common than its columns.
It copies, so it is sharp and never invents: a hole that hides the only wheel of a cart does not get a wheel.
A guide may correct each coarse fill, and the patches are then chosen anew: lines that it closes stay closed at full size.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from occpipe.core.masks import distances
from occpipe.models.inpainters.patchmatch import RADIUS, PatchLevel, near_hole, row_map, source_map, vote

# Chosen on 36 photos with object-shaped holes of 2-15% of the area, by PSNR and distance in ImageNet features within the
# hole. A depth of 24 is nearer in features on some photos, farther on others, and a half slower; 10 and below start too
# coarse and lose structure.
_COARSEST_DEPTH = 16.0  # the pyramid ends where no hole pixel is farther than this from the known, in pixels
_LEAST_SOURCES = 200
_LEAST_KNOWN = 0.5  # share of a coarse pixel; asking for more costs 0.5 dB, for the hole grows from scale to scale
_TEXTURE_WINDOW = 17
_TEXTURE_WEIGHT = 32.0
_PLACE = (240.0, 60.0)
_PEEL_PAIRS = 1e9  # targets times sources above which the first guess is made at a coarser scale
_LAST_POWER = 4.0  # of the weights in the last vote: fewer voices, less blur
_EDGE_TRUST = 0.262  # weights fall by 1.3 per pixel from the edge inwards (Wexler et al. 2007, gamma = 1.3)
_GUIDED_SIDE = 40  # pixels, the shorter side below which there is too little to see for a guide

Guide = Callable[[Tensor, Tensor], Tensor]
"""From a fill, RGB in [0, 255], h x w x 3, and its hole, bool h x w: what to add to it, h x w x 3.

Patches turn one rounding into another picture, so a guide should give equal bits for equal input."""


class PatchInpainter:
    """Multi-scale exemplar-based inpainting, one crop at a time, deterministic as far as its guide is.

    `rounds` of search and vote are spent per scale (half of it at the finest). A crop with a side above `work_side`
    pixels is solved at half, a quarter, ... of its size, and the sources found there are copied at full size. `guide`
    corrects the fill of each scale but the last, for one more round there; scales below 40 pixels go without.
    """

    multiple = 1
    fixed_size: int | None = None
    max_side = 8192
    context = 0.75  # it copies: with less to copy from, foliage repeats

    def __init__(
        self, device: str = "cpu", *, rounds: int = 4, work_side: int = 800, guide: Guide | None = None
    ) -> None:
        self.device = torch.device(device)
        self.rounds = rounds
        self.work_side = work_side
        self.guide = guide

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3, where masks, B x H x W, are 1."""
        return self.fill_beside(images, masks, np.zeros_like(masks))

    def fill_beside(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], things: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """As `fill`, with nothing copied from where things, B x H x W, are 1."""
        with torch.inference_mode():
            return np.stack([self._fill(i, m, t) for i, m, t in zip(images, masks, things, strict=True)])

    def _fill(self, pixels: NDArray[np.uint8], mask: NDArray[np.uint8], thing: NDArray[np.uint8]) -> NDArray[np.uint8]:
        hole = torch.from_numpy(mask).to(self.device) == 1
        if not hole.any():
            return pixels
        barred = torch.from_numpy(thing).to(self.device) == 1
        sizes = [(torch.from_numpy(pixels).to(self.device).float(), hole, barred)]
        while max(sizes[-1][1].shape) > self.work_side:
            sizes.append(_halve(*sizes[-1], least=0.6))
        base, base_hole, base_barred = sizes.pop()
        if not base_hole.any() or not source_map(near_hole(base_hole)).any():
            # A speck that vanished, or no patch to copy from: smooth is all that can be had.
            return cv2.inpaint(pixels, mask, 3, cv2.INPAINT_TELEA).astype(np.uint8)
        if int(source_map(near_hole(base_hole | base_barred)).sum()) < _LEAST_SOURCES:
            base_barred = torch.zeros_like(base_barred)  # too little beside the things: better they than nothing
            sizes = [(image, image_hole, torch.zeros_like(image_hole)) for image, image_hole, _ in sizes]
        level, field, weight = self._solve(base, base_hole, base_barred)
        filled, row_of_target = level.image[..., :3], level.row_of_target
        for image, image_hole, image_barred in reversed(sizes):
            targets = near_hole(image_hole).flatten().nonzero()[:, 0]
            sources = source_map(near_hole(image_hole | image_barred))
            field, weight = _lift(targets, sources, filled.shape[1], row_of_target, field, weight)
            row_of_target = row_map(targets, image_hole.numel())
            filled = image.clone()
            vote(filled, image_hole.flatten().nonzero()[:, 0], row_of_target, field, weight, radius=1)
        return np.ascontiguousarray(filled.round().clamp(0, 255).to(torch.uint8).cpu().numpy())

    def _solve(self, image: Tensor, hole: Tensor, barred: Tensor) -> tuple[PatchLevel, Tensor, Tensor]:
        """The finest level with its hole filled, its field, N, and the weight of each target, N."""
        generator = torch.Generator().manual_seed(0)
        pyramid = _pyramid(torch.cat([image, _texture(image, hole)], 2), hole, barred)
        image, hole, barred = pyramid.pop()
        level = PatchLevel(image, hole, _PLACE, generator, barred)
        level.peel()
        depth = _depth(hole).flatten()[level.targets]
        field, _ = level.search(None, reach=0)
        field, weight = self._refine(level, depth, field, 3 * self.rounds, reach=max(hole.shape) // 2)
        while pyramid:
            field, weight = self._correct(level, depth, field, weight)
            image, hole, barred = pyramid.pop()
            coarse, level = level, PatchLevel(image, hole, _PLACE, generator, barred)
            sources = level.row_of_source.view(hole.shape) >= 0
            field, weight = _lift(level.targets, sources, coarse.width, coarse.row_of_target, field, weight)
            vote(level.image, level.hole_index, level.row_of_target, field, weight)
            depth = _depth(hole).flatten()[level.targets]
            rounds, reach = (self.rounds, 64) if pyramid else (max(1, self.rounds // 2), 16)
            field, weight = self._refine(level, depth, field, rounds, reach)
        vote(level.image, level.hole_index, level.row_of_target, field, weight**_LAST_POWER)
        return level, field, weight

    def _correct(self, level: PatchLevel, depth: Tensor, field: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The field and weights that the guide's picture of this scale leads to; the level is filled accordingly."""
        if self.guide is None or min(level.hole.shape) < _GUIDED_SIDE:
            return field, weight
        colours = level.image[..., :3]
        corrected = (colours + self.guide(colours, level.hole)).clamp(0, 255)
        colours[level.hole] = corrected[level.hole]
        return self._refine(level, depth, field, 1, reach=max(level.hole.shape) // 2)

    def _refine(
        self, level: PatchLevel, depth: Tensor, field: Tensor, rounds: int, reach: int
    ) -> tuple[Tensor, Tensor]:
        """Rounds of search and vote at one scale. Weights are exp(-d / 2 sigma^2), sigma^2 at the distances' 75%."""
        weight = torch.ones_like(depth)
        for _ in range(rounds):
            field, dist = level.search(field, reach)
            sigma = torch.quantile(dist[:: 1 + len(dist) // 100_000], 0.75).clamp(min=1.0)
            weight = torch.exp((-dist / (2 * sigma) - _EDGE_TRUST * depth).clamp(min=-20))
            vote(level.image, level.hole_index, level.row_of_target, field, weight)
        return field, weight


def _pyramid(image: Tensor, hole: Tensor, barred: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Image, hole and barred pixels at full, half, ... size, until the hole is shallow and its first guess cheap."""
    pyramid = [(image, hole, barred)]
    while True:
        image, hole, barred = pyramid[-1]
        sources = int(source_map(near_hole(hole | barred)).sum())
        depth, pairs = float(_depth(hole).max()), int(near_hole(hole).sum()) * sources
        if depth <= _COARSEST_DEPTH and (depth <= RADIUS or pairs < _PEEL_PAIRS):
            return pyramid
        image, hole, barred = _halve(image, hole, barred, least=_LEAST_KNOWN)
        if int(source_map(near_hole(hole | barred)).sum()) < _LEAST_SOURCES or not hole.any():
            return pyramid
        pyramid.append((image, hole, barred))


def _halve(image: Tensor, hole: Tensor, barred: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """All at half size; a pixel is the mean of the known ones, a hole where their share is below `least`."""
    known = (~hole).float()[None, None]
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    total = F.avg_pool2d(image.permute(2, 0, 1)[None] * known, 2, ceil_mode=True)
    half = (total / share.clamp(min=1e-6))[0].permute(1, 2, 0).contiguous()
    half_barred = F.max_pool2d(barred.float()[None, None], 2, ceil_mode=True)[0, 0] > 0
    return half, share[0, 0] < least, half_barred


def _depth(hole: Tensor) -> Tensor:
    """Each pixel's distance to the known, in pixels; 0 outside the hole."""
    return torch.from_numpy(distances(hole.to(torch.uint8).cpu().numpy())).to(hole.device)


def _texture(image: Tensor, hole: Tensor) -> Tensor:
    """How rough the surroundings are across and down, h x w x 2: root of the mean absolute gradient of the known."""
    known, grey = (~hole).float(), image.mean(2)
    across = F.pad(grey.diff(dim=1).abs() * known[:, 1:] * known[:, :-1], (0, 1))
    down = F.pad(grey.diff(dim=0).abs() * known[1:] * known[:-1], (0, 0, 0, 1))
    window, planes = (_TEXTURE_WINDOW, _TEXTURE_WINDOW), torch.stack([across, down, known], 2).cpu().numpy()
    means = cv2.blur(planes, window, borderType=cv2.BORDER_CONSTANT)
    rough = np.sqrt(means[..., :2] / np.maximum(means[..., 2:], 1e-3)) * _TEXTURE_WEIGHT
    return torch.from_numpy(np.minimum(rough, 255)).to(image.device)


def _lift(
    targets: Tensor, sources: Tensor, coarse_width: int, coarse_rows: Tensor, field: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The field and weights of a coarser level for the targets of the next finer one, whose sources are bool, h x w.

    A target whose parent was none, or whose parent's source is none here, starts at the source next to it in the picture,
    with next to no weight: a line too thin for the coarser level is filled with what is beside it.
    """
    height, width = sources.shape
    y, x = targets // width, targets % width
    row = coarse_rows[y // 2 * coarse_width + x // 2]
    source = field[row.clamp(min=0)]
    sy, sx = source // coarse_width * 2 + y % 2, source % coarse_width * 2 + x % 2
    index = (sy * width + sx).clamp(0, height * width - 1)
    valid = (row >= 0) & (sy < height) & (sx < width) & sources.flatten()[index]
    index = torch.where(valid, index, _nearest(sources).flatten()[targets])
    return index, torch.where(valid, weight[row.clamp(min=0)], 1e-9)


def _nearest(sources: Tensor) -> Tensor:
    """The flat index of the source nearest to each pixel, h x w; there must be one."""
    free = (~sources).to(torch.uint8).cpu().numpy()
    _, labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    index = np.zeros(int(labels.max()) + 1, np.int64)
    index[labels[free == 0]] = np.flatnonzero(free == 0)
    return torch.from_numpy(index[labels]).to(sources.device)
