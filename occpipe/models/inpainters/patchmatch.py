"""Nearest patches for the pixels of a hole, and the picture that those patches vote for, as whole-tensor operations.

One scale of the scheme in `patches.py`. Words: a *target* is a pixel whose patch touches the hole, a *source* one whose
patch is known throughout; the *field* gives each target the flat index (row * width + column) of its source. Time goes
into reading patches, so they lie in uint8 tables, and are compared in parts that stay in a core's cache.

Equal input gives equal bits. BLAS sums in another order from call to call, and one rounding decides between two patches
that fit alike, after which the whole fill differs. So patches are compared as integers, whose sums are exact in float32
(at most 159 * 255^2 < 2^24), and votes are summed in a fixed order, without BLAS.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 3
"""Patches are 7 x 7 pixels, as in Barnes et al. 2009 and Newson et al. 2014."""

SIDE = 2 * RADIUS + 1
# Where in a patch its texture is compared, down and across: at four corners and the centre, because it varies slowly.
_TEXTURE_AT = (-RADIUS, -RADIUS, 0, RADIUS, RADIUS), (-RADIUS, RADIUS, 0, -RADIUS, RADIUS)
# Multiplications up to which all distances are computed instead of searched for: about 50 ms on one core.
_EXACT = 1.5e9
_PEEL = 3e9  # multiplications for the first guess of a level
_PART = 2048  # patches compared at a time on a CPU, 2 MB as float32
_FAR = 1e30


class PatchLevel:
    """Targets, sources and the search at one scale.

    `image` is float32, h x w x 5: RGB in [0, 255] and two texture channels in the same range; its hole is filled in
    place. `hole` is bool, h x w; no source touches `barred`, likewise. `place` = (vertical, horizontal) weighs how far a
    source lies from its target: across the whole image it costs as much as these many levels of difference in one channel
    of one pixel. Targets are the pixels in the middle of squares of `stride`
    pixels.
    """

    def __init__(
        self,
        image: Tensor,
        hole: Tensor,
        place: tuple[float, float],
        generator: torch.Generator,
        barred: Tensor | None = None,
        stride: int = 1,
    ) -> None:
        self.image, self.hole, self.generator = image, hole, generator
        self.height, self.width = hole.shape
        self._stride = stride
        self._place = torch.tensor(place, device=image.device) / max(hole.shape)
        self._texture_at = torch.tensor(_TEXTURE_AT, device=image.device)
        wanted = torch.zeros_like(hole)
        middles = np.s_[stride // 2 :: stride, stride // 2 :: stride]
        wanted[middles] = near_hole(hole)[middles]
        self.targets = wanted.flatten().nonzero()[:, 0]
        self.sources = source_map(near_hole(hole if barred is None else hole | barred)).flatten().nonzero()[:, 0]
        self.hole_index = hole.flatten().nonzero()[:, 0]
        self.row_of_target = row_map(self.targets, hole.numel())
        self.row_of_source = row_map(self.sources, hole.numel())
        self.table = self.patches(self.sources)

    def patches(self, index: Tensor) -> Tensor:
        """The patches around flat pixel indices, N -> uint8, N x 159: colours, texture at five points, and place."""
        pixels = self.image.round().to(torch.uint8)
        place = torch.stack([index // self.width, index % self.width], 1) * self._place
        texture = self._texture(pixels[..., 3:], index)
        return torch.cat([_around(pixels[..., :3], index), texture, place.round_().to(torch.uint8)], 1)

    def known_part(self, index: Tensor, known: Tensor) -> Tensor:
        """1 for each entry of `patches(index)` that comes from a pixel of `known`, bool h x w, or is a place."""
        share = known[..., None].to(torch.uint8)
        colours = _around(share, index).repeat_interleave(3, 1)
        texture = self._texture(share, index).repeat_interleave(2, 1)
        return torch.cat([colours, texture, torch.ones_like(texture[:, :2])], 1)

    def _texture(self, plane: Tensor, index: Tensor) -> Tensor:
        """Values of h x w x C at the five points of each patch where texture is compared, N x 5 C."""
        y = (index[:, None] // self.width + self._texture_at[0]).clamp_(0, self.height - 1)
        x = (index[:, None] % self.width + self._texture_at[1]).clamp_(0, self.width - 1)
        return plane[y, x].flatten(1)

    def peel(self) -> None:
        """A first guess, layer by layer from the edge: each pixel takes the source whose patch fits its known part best.

        Where that would cost more than the budget, sources are thinned out evenly.
        """
        step = max(1, round(len(self.hole_index) * self.table.numel() / _PEEL))
        sources, table = self.sources[::step], self.table[::step].float().T
        square = table.square()
        todo, flat = self.hole.clone(), self.image.reshape(-1, self.image.shape[2])
        while todo.any():
            layer = todo & _dilated(~todo, 3)
            index = layer.flatten().nonzero()[:, 0]
            known = self.known_part(index, ~todo).float()
            fit = known @ square - 2 * ((known * self.patches(index)) @ table)
            flat[index] = flat[sources[fit.argmin(1)]]
            todo &= ~layer

    def exact(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest source row and squared distance of each patch, N x 159.

        Where that would cost more than the budget, sources are thinned out evenly.
        """
        step = max(1, round(len(patches) * self.table.numel() / _EXACT))
        table = self.table[::step].float()
        square = table.square().sum(1)
        rows, dists = [], []
        for part in torch.split(patches, max(1, 8_000_000 // len(table))):
            p = part.float()
            best = (square - 2 * (p @ table.T) + p.square().sum(1, keepdim=True)).min(1)
            rows.append(best.indices * step)
            dists.append(best.values.clamp_(min=0))
        return torch.cat(rows), torch.cat(dists)

    def search(self, field: Tensor | None, reach: int) -> tuple[Tensor, Tensor]:
        """A better field than `field`, N source indices (-1 = none); returns it with its squared distances.

        PatchMatch (Barnes et al., SIGGRAPH 2009) with its two moves made parallel: all targets ask their four
        neighbours at once, not in scan order; then they draw around their best source in windows shrinking from `reach`
        pixels. A small level is searched exactly instead.
        """
        patches = self.patches(self.targets)
        if field is None or len(patches) * self.table.numel() < _EXACT:
            rows, dist = self.exact(patches)
            return self.sources[rows], dist
        best = torch.where(field >= 0, self.row_of_source[field.clamp(min=0)], -1)
        draw = torch.rand(len(best), generator=self.generator).to(best.device)
        best = torch.where(best >= 0, best, (draw * (len(self.sources) - 1)).long())
        dist = self._distance(patches, best)
        y, x = self.targets // self.width, self.targets % self.width
        for dy, dx in ((0, -self._stride), (-self._stride, 0), (0, self._stride), (self._stride, 0)):
            neighbour = self._row_at(self.row_of_target, y + dy, x + dx)
            source = self.sources[best[neighbour.clamp(min=0)]]
            moved = self._row_at(self.row_of_source, source // self.width - dy, source % self.width - dx)
            self._keep_better(patches, best, dist, torch.where(neighbour >= 0, moved, -1))
        while reach >= 1:
            source = self.sources[best]
            step = (torch.rand((2, len(best)), generator=self.generator).to(best.device) * 2 - 1) * reach
            sy, sx = source // self.width + step[0].round().long(), source % self.width + step[1].round().long()
            self._keep_better(patches, best, dist, self._row_at(self.row_of_source, sy, sx))
            reach //= 3
        return self.sources[best], dist

    def _distance(self, patches: Tensor, rows: Tensor) -> Tensor:
        """The squared distance of each patch, N x 159, to the source in its row."""
        part = _PART if rows.device.type == "cpu" else max(1, len(rows))
        found = []
        for some, of in zip(torch.split(patches, part), torch.split(rows, part), strict=True):
            difference = self.table.index_select(0, of).float().sub_(some)
            found.append(torch.linalg.vecdot(difference, difference))
        return torch.cat(found)

    def _row_at(self, rows: Tensor, y: Tensor, x: Tensor) -> Tensor:
        inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
        return torch.where(inside, rows[(y * self.width + x).clamp(0, rows.numel() - 1)], -1)

    def _keep_better(self, patches: Tensor, best: Tensor, dist: Tensor, rows: Tensor) -> None:
        """Take the sources in `rows` (-1 = none) where they are nearer, in place."""
        asked = ((rows >= 0) & (rows != best)).nonzero()[:, 0]
        d = self._distance(patches.index_select(0, asked), rows[asked])
        better = d < dist[asked]
        took = asked[better]
        best[took], dist[took] = rows[took], d[better]


def _around(plane: Tensor, index: Tensor) -> Tensor:
    """What is within 3 pixels of flat pixel indices, N, in a plane, h x w x C, continued at its edge; N x 49 C.

    Each of the 7 rows is read at once, from a view of all rows of 7 pixels: a gather of pixels takes five times as long.
    """
    height, width, channels = plane.shape
    rows, columns = (
        torch.arange(-RADIUS, size + RADIUS, device=plane.device).clamp_(0, size - 1) for size in (height, width)
    )
    wide = plane.index_select(0, rows).index_select(1, columns)
    across = width + 2 * RADIUS
    strips = wide.as_strided(((height + 2 * RADIUS) * across - 2 * RADIUS, SIDE * channels), (channels, 1))
    first = index // width * across + index % width
    starts = first[:, None] + torch.arange(0, SIDE * across, across, device=plane.device)
    return strips.index_select(0, starts.flatten()).reshape(len(index), SIDE * SIDE * channels)


def _dilated(pixels: Tensor, side: int) -> Tensor:
    """Bool h x w, grown by a square; by OpenCV, because pooling takes ten times as long."""
    grown = cv2.dilate(pixels.to(torch.uint8).cpu().numpy(), np.ones((side, side), np.uint8))
    return torch.from_numpy(grown).to(pixels.device) > 0


def near_hole(hole: Tensor) -> Tensor:
    """The pixels, bool h x w, whose patch touches the hole, bool h x w."""
    return _dilated(hole, SIDE)


def source_map(near: Tensor) -> Tensor:
    """The pixels, bool h x w, whose patch lies inside the image and outside the hole; `near` is from `near_hole`."""
    inside = torch.zeros_like(near)
    inside[RADIUS : near.shape[0] - RADIUS, RADIUS : near.shape[1] - RADIUS] = True
    return inside & ~near


def row_map(index: Tensor, size: int) -> Tensor:
    """The row of each flat pixel index in `index`, N -> `size`; -1 for pixels that are not in it."""
    rows = torch.full((size,), -1, dtype=torch.long, device=index.device)
    rows[index] = torch.arange(len(index), device=index.device)
    return rows


def vote(
    image: Tensor, hole_index: Tensor, row_of_target: Tensor, field: Tensor, weight: Tensor, *, radius: int = RADIUS
) -> None:
    """Fill the hole of `image`, h x w x C, in place with the weighted mean of what the patches over each pixel say.

    `hole_index` are its flat pixel indices, `row_of_target` maps flat pixel indices to rows of `field` and `weight`, N.
    Only patches whose centre is within `radius` of the pixel vote: fewer voices are sharper.
    """
    height, width, channels = image.shape
    across = width + 2 * radius  # maps have a rim, so that no index is out of them
    targets = (row_of_target >= 0).nonzero()[:, 0]
    rows, at = row_of_target[targets], targets // width * across + targets % width + radius * (across + 1)
    source, share = field[:1].repeat((height + 2 * radius) * across), weight.new_zeros((height + 2 * radius) * across)
    source[at], share[at] = field[rows], weight[rows]
    flat, corner = image.reshape(-1, channels), hole_index // width * across + hole_index % width
    total, shares = flat.new_zeros(len(hole_index), channels), weight.new_zeros(len(hole_index), 1)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            centre = corner + (radius - dy) * across + radius - dx
            part = share.index_select(0, centre)[:, None]
            # an embedding look-up is the gather of torch that copies whole rows: five times as fast as indexing
            total += F.embedding(source.index_select(0, centre) + (dy * width + dx), flat).mul_(part)
            shares += part
    flat[hole_index] = total / shares
