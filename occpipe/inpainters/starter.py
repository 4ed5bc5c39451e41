"""`starter`: fills a hole with patches of the same picture, coarse to fine; no weights, no network."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from occpipe.inpainters.patchmatch import SIDE, PatchLevel


class StarterInpainter:
    multiple = 1
    fixed_size: int | None = None
    max_side = 1024

    def __init__(self, device: str = "cpu", *, rounds: int = 4, texture: float = 16.0, stop: float = 3.0, passes: int = 1, win: int = 17, py=0,px=0,power=1.0,rad=3,lastrounds=0, sharp: bool = False) -> None:
        self.device = torch.device(device)
        self.rounds = rounds
        self.texture = texture
        self.sharp = sharp; self.py=py; self.px=px; self.power=power; self.rad=rad;self.lastrounds=lastrounds; self.stop=stop; self.passes=passes; global WIN; WIN=win

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.stack([self._fill_one(i, m) for i, m in zip(images, masks, strict=True)])

    @torch.inference_mode()
    def _fill_one(self, pixels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        hole = torch.from_numpy(mask).to(self.device).bool()
        image = torch.from_numpy(pixels).to(self.device).float()
        if self.texture: image = torch.cat([image, _texture(image, hole) * self.texture], 2)
        depth = float(cv2.distanceTransform(mask, cv2.DIST_L2, 3).max())
        levels = [(image, hole)]
        while depth > self.stop and min(levels[-1][1].shape) >= 6 * SIDE:
            levels.append(_halve(*levels[-1]))
            depth /= 2
        gen = torch.Generator().manual_seed(0)
        coarse, field = None, None
        for n in reversed(range(len(levels))):
            img, hl = levels[n]
            img = img.clone()
            img[hl] = 0
            level = PatchLevel(img, hl, gen,self.py,self.px)
            if len(level.sources) == 0:
                return cv2.inpaint(pixels, mask, 3, cv2.INPAINT_TELEA)
            d = torch.from_numpy(cv2.distanceTransform(hl.cpu().numpy().astype(np.uint8), cv2.DIST_L2, 3)).flatten()
            dep = d.to(self.device)[level.targets]
            if coarse is None:
                _onion(level)
            else:
                field = _lift(coarse, field, level)
                level.vote(field, torch.zeros(len(field)), dep) if (field >= 0).all() else _vote_valid(level, field, dep)
            rounds = self.rounds * 3 if coarse is None else (max(1, self.rounds // 2) if n == 0 and len(levels) > 1 else self.rounds)
            for r in range(rounds):
                field, dist = level.search(field if field is not None else torch.full((len(level.targets),), -1), self.passes)
                last = n == 0 and r == rounds - 1
                level.vote(field, dist, dep, sharp=self.sharp and last, power=self.power if last else 1, rad=self.rad if last else 3)
            coarse = level
        out = coarse.image[..., :3].round().clamp(0, 255).to(torch.uint8)
        return out.cpu().numpy()


def _halve(image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    known = (~hole).float()[None, None]
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    total = F.avg_pool2d(image.permute(2, 0, 1)[None] * known, 2, ceil_mode=True)
    return (total / share.clamp(min=1e-6))[0].permute(1, 2, 0), share[0, 0] < 0.5


def _onion(level: PatchLevel) -> None:
    """Newson 2014: layer by layer, exact nearest patches on the known part."""
    todo = level.hole.clone()
    C = level.image.shape[2]
    while todo.any():
        inner = F.max_pool2d((~todo)[None, None].float(), 3, 1, 1)[0, 0] > 0
        ring = todo & inner
        if not ring.any():
            break
        idx = ring.flatten().nonzero()[:, 0]
        k = PatchLevel.patches
        keep = level.image
        level.image = (~todo).float()[..., None].expand(-1, -1, C).contiguous()
        w = level.patches(idx); w[:, -2:] = 1
        level.image = keep
        p = level.patches(idx)
        rows, _ = level.exact(p, w)
        src = level.sources[rows]
        v = level.image.reshape(-1, C)
        v[idx] = v[src]
        todo = todo & ~ring


def _lift(coarse: PatchLevel, field: Tensor, level: PatchLevel) -> Tensor:
    y, x = level.targets // level.width, level.targets % level.width
    row = coarse.row_of_target[(y // 2) * coarse.width + x // 2]
    s = field[row.clamp(min=0)]
    sy, sx = s // coarse.width * 2 + y % 2, s % coarse.width * 2 + x % 2
    ok = (row >= 0) & (sy < level.height) & (sx < level.width)
    i = (sy * level.width + sx).clamp(0, level.hole.numel() - 1)
    ok &= level.source_map[i]
    return torch.where(ok, i, -1)


def _vote_valid(level: PatchLevel, field: Tensor, dep: Tensor) -> None:
    lost = field < 0
    f = torch.where(lost, level.sources[0], field)
    level.vote(f, torch.where(lost, 1e6, 0.0), dep)


def _texture(image, hole):
    known = (~hole).float()[None, None]
    grey = image.mean(2)[None, None]
    dx = F.pad((grey[..., 1:] - grey[..., :-1]).abs() * known[..., 1:] * known[..., :-1], (0, 1))
    dy = F.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs() * known[..., 1:, :] * known[..., :-1, :], (0, 0, 0, 1))
    k = WIN
    share = F.avg_pool2d(known, k, 1, k // 2)
    out = [F.avg_pool2d(d, k, 1, k // 2) / share.clamp(min=1e-3) for d in (dx, dy)]
    return torch.cat(out, 1)[0].permute(1, 2, 0).sqrt()
