"""Nearest patches for the pixels of a hole, and the picture those patches vote for, as whole-tensor operations.

One level of the multi-scale scheme of `starter.py`. Names: a *target* is a pixel whose patch touches the hole, a
*source* one whose patch is known throughout; the *field* gives each target the flat index of its source.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 3
"""Patches are 7 x 7: the size of Barnes et al. 2009 and of Wexler et al. 2007 in space."""

SIDE = 2 * RADIUS + 1
# Products below which all distances are computed at once instead of searched for: 1.5 GFLOP is 40 ms on one core.
_EXACT_PRODUCTS = 1.5e9
_FAR = 1e30


class PatchLevel:
    """Targets, sources and the search at one scale.

    `image` is float32 h x w x C in [0, 255] with the hole filled by a first guess; `hole` is bool h x w.
    """

    def __init__(self, image: Tensor, hole: Tensor, generator: torch.Generator, py=0, px=0) -> None:
        self.py, self.px = py, px
        self.image = image
        self.hole = hole
        self.generator = generator
        self.height, self.width = hole.shape
        device = image.device
        blurred = F.max_pool2d(hole[None, None].float(), SIDE, 1, RADIUS)[0, 0] > 0
        inside = torch.zeros_like(hole)
        inside[RADIUS : self.height - RADIUS, RADIUS : self.width - RADIUS] = True
        self.source_map = (inside & ~blurred).flatten()
        self.sources = self.source_map.nonzero()[:, 0]
        self.targets = blurred.flatten().nonzero()[:, 0]
        self.hole_index = hole.flatten().nonzero()[:, 0]
        self.row_of_source = self._rows(self.sources)
        self.row_of_target = self._rows(self.targets)
        steps = torch.arange(-RADIUS, RADIUS + 1, device=device)
        self._dy, self._dx = (g.flatten() for g in torch.meshgrid(steps, steps, indexing="ij"))
        self.table = self.patches(self.sources).round_().to(torch.uint8)

    def _rows(self, index: Tensor) -> Tensor:
        rows = torch.full((self.height * self.width,), -1, dtype=torch.long, device=index.device)
        rows[index] = torch.arange(len(index), device=index.device)
        return rows

    def patches(self, index: Tensor) -> Tensor:
        """The patches around flat pixel indices, N -> N x (49 C), mirrored at the image's edge."""
        pad = F.pad(self.image.permute(2, 0, 1)[None], (RADIUS,) * 4, mode="replicate")[0].permute(1, 2, 0)
        width = self.width + 2 * RADIUS
        centre = (index // self.width + RADIUS) * width + index % self.width + RADIUS
        around = centre[:, None] + (self._dy * width + self._dx)[None]
        flat = pad.reshape(-1, pad.shape[2])
        colour = flat[:, :3][around].reshape(len(index), -1)
        texture = flat[:, 3:][around[:, [0, 6, 24, 42, 48]]].reshape(len(index), -1)
        n = max(self.height, self.width)
        place = torch.stack([index // self.width * (self.py / n), index % self.width * (self.px / n)], 1)
        return torch.cat([colour, texture, place], 1)

    def exact(self, targets: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The nearest source row and squared distance of each target patch, N x D; `weight`, N x D, masks unknowns."""
        table = self.table.float()
        square = table.square()
        rows, dists = [], []
        chunk = max(1, 8_000_000 // max(1, len(table)))
        for start in range(0, len(targets), chunk):
            t = targets[start : start + chunk]
            if weight is None:
                d = square.sum(1)[None] - 2 * t @ table.T + t.square().sum(1, keepdim=True)
            else:
                m = weight[start : start + chunk]
                d = m @ square.T - 2 * (m * t) @ table.T + (m * t.square()).sum(1, keepdim=True)
            best = d.min(1)
            rows.append(best.indices)
            dists.append(best.values.clamp_(min=0))
        return torch.cat(rows), torch.cat(dists)

    @property
    def is_small(self) -> bool:
        """Whether an exact search costs less than an approximate one."""
        return len(self.targets) * len(self.sources) * self.table.shape[1] < _EXACT_PRODUCTS

    def distance(self, targets: Tensor, rows: Tensor) -> Tensor:
        """Squared distance between target patches, N x D, and the sources in `rows`, N (-1 = none, infinitely far)."""
        d = (targets - self.table[rows.clamp(min=0)]).square_().sum(1)
        return torch.where(rows >= 0, d, _FAR)

    def search(self, field: Tensor, passes: int, jumps: tuple[int, ...] = (1,)) -> tuple[Tensor, Tensor]:
        """Improve a field, N flat source indices (-1 = none); returns it with its distances.

        PatchMatch (Barnes et al., SIGGRAPH 2009) with its two moves made parallel: every target asks its neighbours at
        the distances `jumps` at once, instead of in scan order, then draws around its best source in shrinking windows.
        """
        patches = self.patches(self.targets)
        if self.is_small:
            rows, dist = self.exact(patches)
            return self.sources[rows], dist
        best = torch.where(field >= 0, self.row_of_source[field.clamp(min=0)], -1)
        lost = best < 0
        if lost.any():
            draw = torch.rand(int(lost.sum()), generator=self.generator).to(best.device)
            best[lost] = (draw * len(self.sources)).long()
        dist = self.distance(patches, best)
        y, x = self.targets // self.width, self.targets % self.width
        for _ in range(passes):
            for jump in jumps:
                for dy, dx in ((0, -jump), (0, jump), (-jump, 0), (jump, 0)):
                    best, dist = self._keep_better(patches, best, dist, self._from_neighbour(best, y, x, dy, dx))
            radius = max(self.height, self.width) // 2
            while radius >= 1:
                best, dist = self._keep_better(patches, best, dist, self._draw(best, radius))
                radius //= 3
        return self.sources[best], dist

    def _from_neighbour(self, best: Tensor, y: Tensor, x: Tensor, dy: int, dx: int) -> Tensor:
        ny, nx = y + dy, x + dx
        known = (ny >= 0) & (ny < self.height) & (nx >= 0) & (nx < self.width)
        neighbour = torch.where(known, self.row_of_target[(ny * self.width + nx).clamp(0, self.hole.numel() - 1)], -1)
        source = self.sources[best[neighbour.clamp(min=0)]]
        sy, sx = source // self.width - dy, source % self.width - dx
        return torch.where(neighbour >= 0, self._row_at(sy, sx), -1)

    def _draw(self, best: Tensor, radius: int) -> Tensor:
        source = self.sources[best]
        step = torch.rand((2, len(best)), generator=self.generator).to(best.device) * 2 - 1
        sy = source // self.width + (step[0] * radius).round().long()
        sx = source % self.width + (step[1] * radius).round().long()
        return self._row_at(sy, sx)

    def _row_at(self, y: Tensor, x: Tensor) -> Tensor:
        known = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
        return torch.where(known, self.row_of_source[(y * self.width + x).clamp(0, self.hole.numel() - 1)], -1)

    def _keep_better(self, patches: Tensor, best: Tensor, dist: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        ask = ((rows >= 0) & (rows != best)).nonzero()[:, 0]
        d = self.distance(patches[ask], rows[ask])
        better = d < dist[ask]
        took = ask[better]
        best, dist = best.clone(), dist.clone()
        best[took], dist[took] = rows[took], d[better]
        return best, dist

    def vote(self, field: Tensor, dist: Tensor, depth: Tensor, *, sharp: bool = False, power: float = 1.0, rad: int = 3) -> None:
        """Replace the hole by what the patches over each pixel say: their mean, or with `sharp` the best one's word.

        Weights are those of Wexler et al., PAMI 2007: exp(-d / 2 sigma^2), sigma^2 at the 75th percentile of distances,
        times 1.3^-depth, `depth` being each target's distance to the hole's edge in pixels: trust moves inwards.
        """
        sigma = torch.quantile(dist[:: max(1, len(dist) // 100_000)], 0.75).clamp(min=1e-3)
        weight = torch.exp(-dist / (2 * sigma) - 0.262 * depth) + 1e-12
        y, x = self.hole_index // self.width, self.hole_index % self.width
        py, px = y[:, None] - self._dy[None], x[:, None] - self._dx[None]
        known = (py >= 0) & (py < self.height) & (px >= 0) & (px < self.width)
        row = self.row_of_target[(py * self.width + px).clamp(0, self.hole.numel() - 1)].clamp(min=0)
        value = self.image.reshape(-1, self.image.shape[2])
        known &= (self._dy.abs() <= rad) & (self._dx.abs() <= rad)
        weights = torch.where(known, weight[row] ** power, 0)
        pixel = field[row] + (self._dy * self.width + self._dx)[None]
        if sharp:
            pick = weights.argmax(1, keepdim=True)
            value[self.hole_index] = value[pixel.gather(1, pick)[:, 0]]
            return
        pixel = torch.where(known, pixel, 0)
        weights = weights / weights.sum(1, keepdim=True)
        value[self.hole_index] = (value[pixel] * weights[..., None]).sum(1)
