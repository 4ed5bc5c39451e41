"""The net that corrects a fill made of patches: EfficientNet-Lite0 to stride 16, attention, a decoder to full size.

Patches are sharp and sometimes misplaced. The net gets the whole picture; it shifts colours, closes lines and softens
errors. Its output is added to the fill, so that an output of 0 keeps the patches. 1.9 M parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occpipe.models.efficientnet import PIXEL_MEAN, PIXEL_STD, Backbone, Separable, conv_bn, upsample

MULTIPLE = 16
_DIM = 160
_BLOCKS = 4
_HEADS = 5


class _Attention(nn.Module):
    """A transformer block over the pixels of a feature map, without positions: it relates similar pixels."""

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
        attended = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        tokens = tokens + self.merge(attended.transpose(1, 2).reshape(batch, -1, dim))
        tokens = tokens + self.mlp(self.norm2(tokens))
        mapped: Tensor = tokens.transpose(1, 2).reshape(batch, dim, height, width)
        return mapped


class RefinerNet(nn.Module):
    """Predicts the correction of a patch fill, from the picture around it."""

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
        self.smooth16 = Separable(_DIM, 128, 5)
        self.lateral8 = conv_bn(c8, 128, act=None)
        self.smooth8 = nn.Sequential(Separable(128, 128, 5), Separable(128, 96, 5))
        self.lateral4 = conv_bn(c4, 96, act=None)
        self.smooth4 = nn.Sequential(Separable(96, 96, 5), Separable(96, 64, 5))
        self.lateral2 = conv_bn(c2, 64, act=None)
        self.smooth2 = nn.Sequential(Separable(64, 64, 5), Separable(64, 48, 3))
        self.mix = nn.Sequential(nn.Conv2d(48 + 16, 48, 3, padding=1), nn.ReLU())
        self.paint = nn.Conv2d(48, 12, 3, padding=1)
        for parameter in self.paint.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fill: Tensor, hole: Tensor) -> Tensor:
        """The correction of a picture, B x 3 x H x W, RGB in [0, 255]. Patches have filled its `hole`, B x 1 x H x W.

        Sides are multiples of 16; the result is zero outside the hole.
        """
        base = (fill - PIXEL_MEAN) / PIXEL_STD
        x = self.stem(base)
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == self.taps[1]:
                x = x + self.mark(F.avg_pool2d(hole, 4))
            if i in self.taps:
                features.append(x)
        f2, f4, f8, f16 = features
        p = self.smooth16(self.attention(self.enter(f16)))
        p = self.smooth8(F.relu(upsample(p, f8) + self.lateral8(f8)))
        p = self.smooth4(F.relu(upsample(p, f4) + self.lateral4(f4)))
        p = self.smooth2(F.relu(upsample(p, f2) + self.lateral2(f2)))
        pixels = F.pixel_unshuffle(torch.cat([base, hole], 1), 2)
        change: Tensor = F.pixel_shuffle(self.paint(self.mix(torch.cat([p, pixels], 1))), 2)
        return change * hole * PIXEL_STD
