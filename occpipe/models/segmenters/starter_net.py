"""The net of the starter segmenter: EfficientNet-Lite, a decoder down to stride 4, and an image-level stuff tagger.

3.9 M parameters, 8.2 MB as fp16: small enough to ship inside the package. Things, stuff and "other" share one softmax,
so that a pixel has one class; "other" is everything without a class. The input of the tagger is the mean and the maximum of
1280 ImageNet features over the image, and the classes that have pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occpipe.models.efficientnet import Backbone, Separable, conv_bn, upsample


class Output(NamedTuple):
    """The output of the net for B images of H x W."""

    pixels: Tensor
    """Logits over the K classes and "other", B x (K + 1) x H/4 x W/4."""
    tags: Tensor
    """Logits of the image-level stuff classes, B x T."""


class Decoder(nn.Module):
    """A feature pyramid from stride 32 down to 4; the skip connection of stride 4 aligns the masks with edges.

    It returns 96 features per pixel; `classify` turns them into logits. That is linear, so features may be pooled, and
    those of several looks averaged, before it. A quarter of the work of the decoder is then done once for all looks.
    """

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        c2, c3, c4, c5 = channels
        self.lateral5 = conv_bn(c5, 256, act=nn.ReLU)
        self.context = nn.Conv2d(c5, 256, 1)
        self.smooth5 = Separable(256, 192, 5)
        self.lateral4 = conv_bn(c4, 192, act=None)
        self.smooth4 = Separable(192, 128, 5)
        self.lateral3 = conv_bn(c3, 128, act=None)
        self.smooth3 = Separable(128, 96, 3)
        self.lateral2 = conv_bn(c2, 32, act=nn.ReLU)
        self.smooth2 = Separable(96 + 32, 96, 3)
        self.classify = nn.Conv2d(96, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        f2, f3, f4, f5 = features
        gate = torch.sigmoid(self.context(f5.mean((2, 3), keepdim=True)))
        p5 = self.smooth5(self.lateral5(f5) * gate)
        p4 = self.smooth4(F.relu(upsample(p5, f4) + self.lateral4(f4)))
        p3 = self.smooth3(F.relu(upsample(p4, f3) + self.lateral3(f3)))
        p2: Tensor = self.smooth2(torch.cat([upsample(p3, f2), self.lateral2(f2)], 1))
        return p2

    def presence(self, p2: Tensor) -> Tensor:
        """The confidence that each class is in the image, B x (K + 1): the highest probability of a 16-pixel square."""
        squares = F.avg_pool2d(p2, min(4, *p2.shape[-2:]))  # before the classes: a sixteenth of the work
        return torch.softmax(self.classify(squares).detach().float(), 1).amax((2, 3))


class Together(nn.Module):
    """Corrects the tags of an image by each other, with statistics of many lists of stuff.

    Log-odds of tag i = DOUBT * (log-odds seen - log-odds of its rate) + (1 - PAIRS) * log-odds of its rate
    + PAIRS * (bias + sum over j of weight[i, j] * p(j)), iterated to the mean field of a pairwise model. Without
    weights it changes nothing. DOUBT and PAIRS were chosen on 25 held-out photos (docs/experiments/segmenter.md).
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
        """Corrected tag probabilities, B x T, from tag probabilities, B x T."""
        if not self.weight.any():
            return probability
        shift = torch.logit(probability.clamp(1e-5, 1 - 1e-5)) - self.rate
        alone = self.DOUBT * shift + (1 - self.PAIRS) * self.rate
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
        self.pool = conv_bn(self.backbone.channels[-1], 1280, act=nn.ReLU6)
        self.tagger = nn.Linear(2 * 1280, tags)
        self.scene = nn.Linear(classes + 1, tags, bias=False)
        nn.init.zeros_(self.scene.weight)
        self.together = Together(tags)  # applied to the mean probabilities of all looks, not in training

    def pooled(self, features: list[Tensor]) -> Tensor:
        """The image-level features, B x 2560: the mean over the image, and the maximum, which covers small things."""
        pooled: Tensor = self.pool(features[-1])
        return torch.cat([pooled.mean((2, 3)), pooled.amax((2, 3))], 1)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features per pixel, B x 96 x H/4 x W/4, and tag logits, B x T; of B x 3 x H x W, normalised, multiples of 32."""
        maps = self.backbone(x)
        p2 = self.decoder(maps)
        return p2, self.tagger(self.pooled(maps)) + self.scene(self.decoder.presence(p2))

    def forward(self, x: Tensor) -> Output:
        """Run on B x 3 x H x W, normalised, H and W multiples of 32."""
        p2, tags = self.look(x)
        return Output(self.decoder.classify(p2).contiguous(), tags)  # channels_last is slow to reduce over classes
