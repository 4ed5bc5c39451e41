"""The net that sees what a hole should hold, roughly: EfficientNet-Lite0 to stride 16, attention, a decoder to full size.

It corrects a smooth fill of the hole, so that it starts from diffusion and learns what diffusion cannot know: that a
horizon goes on, that a wall has windows. What it paints has little texture; `starter.py` copies that from the photo.
2.6 M parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occpipe.segmenters.starter_net import PIXEL_MEAN, PIXEL_STD, Backbone, _conv_bn, _Separable, _upsample

MULTIPLE = 16
_DIM = 160
_BLOCKS = 4
_HEADS = 5


def smooth_fill(image: Tensor, hole: Tensor) -> Tensor:
    """The hole filled by averages of what is known around it, coarse to fine ("pull-push").

    `image` is B x 3 x H x W, `hole` B x 1 x H x W in {0, 1}. S. Gortler et al., "The Lumigraph", SIGGRAPH 1996.
    """
    known = 1 - hole
    levels = [(image * known, known)]
    while min(levels[-1][0].shape[-2:]) > 1:
        colour, weight = levels[-1]
        total = F.avg_pool2d(weight, 2, ceil_mode=True)
        colour = F.avg_pool2d(colour * weight, 2, ceil_mode=True) / total.clamp(min=1e-6)
        levels.append((colour * (total > 0), (total * 4).clamp(max=1)))
    filled = levels[-1][0]
    for colour, weight in reversed(levels[:-1]):
        filled = weight * colour + (1 - weight) * _upsample(filled, colour)
    return filled


class _Attention(nn.Module):
    """A transformer block over the pixels of a feature map, without positions: it looks for what is alike."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.near = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.qkv, self.merge = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.near(x)
        batch, dim, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(tokens)).view(batch, -1, 3, self.heads, dim // self.heads).unbind(2)
        seen = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        tokens = tokens + self.merge(seen.transpose(1, 2).reshape(batch, -1, dim))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).reshape(batch, dim, height, width)


class StructureNet(nn.Module):
    """What a hole should hold, from the picture around it."""

    def __init__(self) -> None:
        super().__init__()
        backbone = Backbone("lite0")
        self.stem = backbone.stem
        self.blocks = backbone.blocks[: backbone.taps[2] + 1]
        self.taps = (0, *backbone.taps[:3])
        c2, c4, c8, c16 = 16, *backbone.channels[:3]
        self.mark = nn.Conv2d(1, c4, 1)
        self.enter = nn.Conv2d(c16, _DIM, 1)
        self.attention = nn.Sequential(*(_Attention(_DIM, _HEADS) for _ in range(_BLOCKS)))
        self.smooth16 = _Separable(_DIM, 128, 5)
        self.lateral8 = _conv_bn(c8, 128, act=None)
        self.smooth8 = nn.Sequential(_Separable(128, 128, 5), _Separable(128, 96, 5))
        self.lateral4 = _conv_bn(c4, 96, act=None)
        self.smooth4 = nn.Sequential(_Separable(96, 96, 5), _Separable(96, 64, 5))
        self.lateral2 = _conv_bn(c2, 64, act=None)
        self.smooth2 = nn.Sequential(_Separable(64, 64, 5), _Separable(64, 48, 3))
        self.paint = nn.Conv2d(48 + 4, 12, 3, padding=1)
        nn.init.zeros_(self.paint.weight)
        nn.init.zeros_(self.paint.bias)

    def forward(self, image: Tensor, hole: Tensor) -> Tensor:
        """Fill B x 3 x H x W, RGB in [0, 255], where `hole`, B x 1 x H x W, is 1; sides are multiples of 16."""
        base = smooth_fill((image - PIXEL_MEAN) / PIXEL_STD, hole)
        share = F.avg_pool2d(hole, 4)
        x = self.stem(base)
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == self.taps[1]:
                x = x + self.mark(share)
            if i in self.taps:
                features.append(x)
        f2, f4, f8, f16 = features
        p = self.smooth16(self.attention(self.enter(f16)))
        p = self.smooth8(F.relu(_upsample(p, f8) + self.lateral8(f8)))
        p = self.smooth4(F.relu(_upsample(p, f4) + self.lateral4(f4)))
        p = self.smooth2(F.relu(_upsample(p, f2) + self.lateral2(f2)))
        seen = torch.cat([p, F.avg_pool2d(base, 2), F.avg_pool2d(hole, 2)], 1)
        painted = base + F.pixel_shuffle(self.paint(seen), 2)
        filled: Tensor = (hole * painted + (1 - hole) * base) * PIXEL_STD + PIXEL_MEAN
        return filled
