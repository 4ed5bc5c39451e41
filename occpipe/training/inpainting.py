"""Training of the starter inpainter's net, on crops whose holes patches have filled.

The loss is the absolute error inside the hole, and the distance of the features of an ImageNet net, which blur does not
please. The features are those of EfficientNet-Lite2, not of the Lite0 that the figures are taken with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from occpipe.efficientnet import PIXEL_MEAN, PIXEL_STD, to_stored
from occpipe.inpainters.refiner_net import RefinerNet
from occpipe.training.fills import FillSampler
from occpipe.training.inpaint_evaluation import Perceptual
from occpipe.training.run import RunConfig, TrainingRun
from occpipe.training.segmentation import pretrained_state
from occpipe.types import Image, Mask

Sample = tuple[Image, Mask, Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class InpaintConfig(RunConfig):
    """How to train the inpainter's net; `perceptual` weighs the feature distance against the absolute error."""

    minutes: float = 84.0
    batch: int = 16
    crop: int = 128
    lr: float = 1e-3
    lr_backbone: float = 2e-4
    warmup: int = 200
    clip: float = 1.0
    perceptual: float = 2.0


def new_net() -> RefinerNet:
    """A net whose encoder has ImageNet features."""
    net = RefinerNet()
    published = {k.removeprefix("backbone."): v for k, v in pretrained_state("lite0").items()}
    encoder = {name: published[name] for name in net.state_dict() if name.startswith(("stem.", "blocks."))}
    net.load_state_dict(encoder, strict=False)
    return net


class InpaintTrainer(TrainingRun[RefinerNet, Sample]):
    """A training run of the inpainter's net; it keeps the encoder down to stride 4 as it is."""

    def __init__(self, sampler: FillSampler, config: InpaintConfig, *, device: str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.config, self.sampler = config, sampler
        net = new_net().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        self.judge = Perceptual("lite2", device)
        net.train()
        for part in (net.stem, *net.blocks[: net.taps[1] + 1]):
            part.eval().requires_grad_(False)
        encoder = [p for p in net.blocks.parameters() if p.requires_grad]
        ids = {id(p) for p in encoder}
        heads = [p for p in net.parameters() if p.requires_grad and id(p) not in ids]
        super().__init__(net, [(encoder, config.lr_backbone), (heads, config.lr)], config, device)

    def sample(self, step: int, index: int) -> Sample:
        """A crop, its hole, and how patches filled it."""
        return self.sampler(step, index)

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """The absolute error in the hole, in standard deviations of a pixel, and the feature distance."""
        images, holes, fills = (torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*samples, strict=True))
        image, fill = (x.permute(0, 3, 1, 2).float() for x in (images, fills))
        hole = holes[:, None].float()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.startswith("cuda")):
            change = self.net(fill, hole)
        filled = fill + change.float()
        error = ((filled - image).abs() * hole).sum() / (3 * PIXEL_STD * hole.sum().clamp(min=1))
        return {"error": error, "distance": self.config.perceptual * self._distance(filled, image, hole)}

    def _distance(self, filled: Tensor, image: Tensor, hole: Tensor) -> Tensor:
        """The mean feature distance in the hole."""
        seen = self.judge.features((filled - PIXEL_MEAN) / PIXEL_STD)
        with torch.no_grad():
            wanted = self.judge.features((image - PIXEL_MEAN) / PIXEL_STD)
        costs = []
        for a, b in zip(seen, wanted, strict=True):
            weight = F.interpolate(hole, size=a.shape[-2:], mode="area")
            costs.append(((a - b).square().sum(1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1))
        return torch.stack(costs).mean()


def export(average: dict[str, Tensor], out: Path) -> None:
    """Write the averaged weights as safetensors."""
    partial = out.with_suffix(".partial")
    save_file(to_stored(average), partial, {"format": "1"})
    partial.chmod(0o644)
    partial.replace(out)
