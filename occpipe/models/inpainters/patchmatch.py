"""Nearest patches for the pixels of a hole, and the picture that those patches vote for, as whole-tensor operations.

One scale of the scheme in `patches.py`. Words: a *target* is a pixel whose patch touches the hole, a *source* one whose
patch is known throughout; the *field* gives each target the flat index (row * width + column) of its source. Time goes
into reading patches at random, so sources lie in one uint8 table: four times fewer bytes than float32.

Equal input gives equal bits. BLAS sums in another order from call to call, and one rounding decides between two patches
that fit alike, after which the whole fill differs. So patches are compared as integers, whose sums are exact in float32
(at most 159 * 255^2 < 2^24), and votes are summed in float64 and rounded to 1/64 of a level.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 3
"""Patches are 7 x 7 pixels, as in Barnes et al. 2009 and Newson et al. 2014."""

SIDE = 2 * RADIUS + 1
COLOURS = SIDE * SIDE * 3
# Where in a patch its texture is compared: at four corners and the centre, for texture varies slowly.
_TEXTURE_AT = [0, SIDE - 1, SIDE * SIDE // 2, SIDE * (SIDE - 1), SIDE * SIDE - 1]
# Multiplications up to which all distances are computed instead of searched for: about 50 ms on one core.
_EXACT = 1.5e9
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
        steps = torch.arange(-RADIUS, RADIUS + 1, device=image.device)
        self._dy, self._dx = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
        wanted = torch.zeros_like(hole)
        middles = np.s_[stride // 2 :: stride, stride // 2 :: stride]
        wanted[middles] = near_hole(hole)[middles]
        self.targets = wanted.flatten().nonzero()[:, 0]
        self.sources = source_map(near_hole(hole if barred is None else hole | barred)).flatten().nonzero()[:, 0]
        self.hole_index = hole.flatten().nonzero()[:, 0]
        self.row_of_target = row_map(self.targets, hole.numel())
        self.row_of_source = row_map(self.sources, hole.numel())
        self.table = self._source_table()

    def _source_table(self) -> Tensor:
        """The sources' patches, uint8, N x 159; a strided view of the image does what a gather takes thrice as long for."""
        pixels = self.image[..., :3].round().to(torch.uint8).contiguous()
        shape = (self.height - 2 * RADIUS, self.width - 2 * RADIUS, SIDE, SIDE * 3)
        windows = pixels.as_strided(shape, (self.width * 3, 3, self.width * 3, 1)).reshape(-1, COLOURS)
        y, x = self.sources // self.width - RADIUS, self.sources % self.width - RADIUS
        colours = windows.index_select(0, y * shape[1] + x)
        return torch.cat([colours, self._context(self.sources).round_().to(torch.uint8)], 1)

    def _around(self, index: Tensor, at: slice | list[int] = slice(None)) -> Tensor:
        """Flat indices, N x 49 or those `at` some of them, of the patches around `index`, repeated at the image's edge."""
        y = (index[:, None] // self.width + self._dy[at]).clamp_(0, self.height - 1)
        x = (index[:, None] % self.width + self._dx[at]).clamp_(0, self.width - 1)
        return y * self.width + x

    def _context(self, index: Tensor) -> Tensor:
        """Texture at five points and place, N x 12, the part of a patch beside its colours."""
        texture = self.image.reshape(-1, 5)[:, 3:][self._around(index, _TEXTURE_AT)].flatten(1)
        place = torch.stack([index // self.width, index % self.width], 1) * self._place
        return torch.cat([texture, place], 1)

    def patches(self, index: Tensor) -> Tensor:
        """The patches around flat pixel indices, N -> N x 159: colours, texture, place, rounded to integers."""
        around = self._around(index)
        # An embedding look-up is the gather of torch that copies whole rows: five times as fast as indexing.
        colours = F.embedding(around, self.image[..., :3].reshape(-1, 3)).reshape(len(index), -1)
        return torch.cat([colours, self._context(index)], 1).round_()

    def known_part(self, index: Tensor, known: Tensor) -> Tensor:
        """1 for each entry of `patches(index)` that comes from a pixel of `known`, bool h x w, or is a place."""
        share = known.flatten()[self._around(index)].float()
        texture = share[:, _TEXTURE_AT].repeat_interleave(2, 1)
        return torch.cat([share.repeat_interleave(3, 1), texture, torch.ones_like(share[:, :2])], 1)

    def exact(self, patches: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The nearest source row and squared distance of each patch, N x 159; entries of weight 0 do not count.

        Where that would cost more than the budget, sources are thinned out evenly.
        """
        step = max(1, round(len(patches) * self.table.numel() / _EXACT))
        table = self.table[::step].float()
        square = table.square()
        rows, dists = [], []
        chunk = max(1, 8_000_000 // len(table))
        for start in range(0, len(patches), chunk):
            p = patches[start : start + chunk]
            if weight is None:
                d = square.sum(1)[None] - 2 * (p @ table.T) + p.square().sum(1, keepdim=True)
            else:
                w = weight[start : start + chunk]
                d = w @ square.T - 2 * ((w * p) @ table.T) + (w * p.square()).sum(1, keepdim=True)
            best = d.min(1)
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
        difference = patches - self.table.index_select(0, rows).float()
        return torch.einsum("nd,nd->n", difference, difference)

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


def near_hole(hole: Tensor) -> Tensor:
    """The pixels, bool h x w, whose patch touches the hole, bool h x w."""
    across = F.max_pool2d(hole[None, None].float(), (1, SIDE), 1, (0, RADIUS))  # two passes cost 14 reads, not 49
    return F.max_pool2d(across, (SIDE, 1), 1, (RADIUS, 0))[0, 0] > 0


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
    flat = image.reshape(-1, channels)
    steps = torch.arange(-radius, radius + 1, device=image.device)
    dy, dx = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    new = []
    for index in torch.split(hole_index, 50_000):  # 100 MB of patches at a time
        y, x = index[:, None] // width - dy, index[:, None] % width - dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        row = row_of_target[torch.where(inside, y * width + x, index[:, None])]
        weights = torch.where(inside, weight[row], 0)
        pixel = torch.where(inside, field[row] + dy * width + dx, 0)
        values, shares = F.embedding(pixel, flat).double(), weights.double()
        mean = torch.einsum("nkc,nk->nc", values, shares / shares.sum(1, keepdim=True))
        new.append((mean * 64).round_().div_(64).to(flat.dtype))
    flat[hole_index] = torch.cat(new)
