"""Training of the starter inpainter's net, on crops whose holes patches have filled.

The loss is the absolute error inside the hole, and the distance of the features of an ImageNet net, which blur does not
please. There are two such nets, which take turns from step to step: both at once cost 1.4 times as much. One of them is
the net that the figures are taken with, and flatters what it has trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from occpipe.core.types import Image, Mask
from occpipe.models.efficientnet import PIXEL_MEAN, PIXEL_STD, to_stored
from occpipe.models.inpainters.refiner_net import RefinerNet
from occpipe.training.fills import FillSampler
from occpipe.training.inpaint_evaluation import Perceptual
from occpipe.training.run import RunConfig, TrainingRun
from occpipe.training.segmentation import pretrained_state

Sample = tuple[Image, Mask, Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class InpaintConfig(RunConfig):
    """How to train the inpainter's net; `perceptual` weighs the distance in features against the error.

    The features are those of the `judges`, which take turns.
    """

    minutes: float = 84.0
    batch: int = 16
    crop: int = 128
    lr: float = 1e-3
    lr_backbone: float = 2e-4
    warmup: int = 200
    clip: float = 1.0
    perceptual: float = 3.0
    judges: tuple[str, ...] = ("lite0", "lite2")


def new_net() -> RefinerNet:
    """A net whose encoder has ImageNet features."""
    net = RefinerNet()
    published = {k.removeprefix("backbone."): v for k, v in pretrained_state("lite0").items()}
    encoder = {name: published[name] for name in net.state_dict() if name.startswith(("stem.", "blocks."))}
    net.load_state_dict(encoder, strict=False)
    return net


def stored_net(path: Path) -> RefinerNet:
    """A net with the weights of a file that `export` wrote, to be trained on; RuntimeError where they are another net's."""
    net = RefinerNet()
    stored = {name: value.float() for name, value in load_file(path).items()}
    counters = {name: value for name, value in net.state_dict().items() if not value.dtype.is_floating_point}
    net.load_state_dict(stored | counters)
    return net


class InpaintTrainer(TrainingRun[RefinerNet, Sample]):
    """A training run of the inpainter's net; it keeps the encoder down to stride 4 as it is.

    `start` is the file of a net to go on from; without it the encoder has ImageNet features, and the rest is random.
    """

    def __init__(
        self, sampler: FillSampler, config: InpaintConfig, *, device: str = "cpu", start: Path | None = None
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.sampler = config, sampler
        net = new_net() if start is None else stored_net(start)
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        self.judges = [Perceptual(variant, device) for variant in config.judges]
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
        """The mean feature distance in the hole, in the eyes of this step's judge."""
        judge = self.judges[self.step % len(self.judges)]
        seen = judge.features((filled - PIXEL_MEAN) / PIXEL_STD)
        with torch.no_grad():
            wanted = judge.features((image - PIXEL_MEAN) / PIXEL_STD)
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
