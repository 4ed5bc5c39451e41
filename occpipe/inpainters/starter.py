"""`starter`: patches of the same photo, corrected by a small net that ships with the package; needs no network.

Patches are sharp and never invented, but may be misplaced: the net sees the whole crop at up to 256 pixels and adds what
the patches miss.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from occpipe.efficientnet import fold_norms
from occpipe.errors import WeightsError
from occpipe.inpainters.patches import PatchInpainter
from occpipe.inpainters.refiner_net import MULTIPLE, RefinerNet

ASSET = "assets/starter-inpainter.safetensors"
_NET_SIDE = 256  # pixels, the longest side that the net sees


def load_refiner(path: Path | None = None, device: str = "cpu") -> RefinerNet:
    """The net, in evaluation mode with its norms folded into its convolutions; by default the shipped weights.

    Raises WeightsError where the file is missing or holds something else.
    """
    if path is None:
        with as_file(files("occpipe").joinpath(ASSET)) as shipped:
            return load_refiner(shipped, device)
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: no starter inpainter weights: {error}") from error
    with torch.device("meta"):
        net = RefinerNet()
    # the norms' counters matter in training only and are not stored
    counters = {n: torch.zeros((), dtype=torch.long) for n in net.state_dict() if n.endswith("num_batches_tracked")}
    try:
        net.load_state_dict(state | counters, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{path}: the tensors are not those of the starter inpainter: {error}") from error
    return fold_norms(net.eval()).requires_grad_(False).to(device).to(memory_format=torch.channels_last)


class StarterInpainter:
    """Patches found one crop at a time, then corrected by the net in batches.

    `weights` is a safetensors file, by default the shipped one; `rounds` and `work_side` are those of `PatchInpainter`.
    """

    multiple = 1
    fixed_size: int | None = None
    max_side = 8192

    def __init__(
        self, weights: Path | None = None, device: str = "cpu", *, rounds: int = 4, work_side: int = 800
    ) -> None:
        self.net = load_refiner(weights, device)
        self.patches = PatchInpainter(device, rounds=rounds, work_side=work_side)

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3, where masks, B x H x W, are 1."""
        return self.fill_beside(images, masks, np.zeros_like(masks))

    def fill_beside(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], things: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """As `fill`, with nothing copied from where things, B x H x W, are 1."""
        filled = self.patches.fill_beside(images, masks, things)
        with torch.inference_mode():
            pixels = torch.from_numpy(filled).to(self.patches.device).permute(0, 3, 1, 2).float()
            hole = torch.from_numpy(masks).to(self.patches.device)[:, None].float()
            # On a CPU a batch is no faster, and rounds otherwise than one crop: a fill would depend on its neighbours.
            count = 1 if pixels.device.type == "cpu" else len(pixels)
            parts = zip(torch.split(pixels, count), torch.split(hole, count), strict=True)
            pixels = torch.cat([part + self._change(part, holes) for part, holes in parts])
            pixels = pixels.round_().clamp_(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())

    def _change(self, pixels: Tensor, hole: Tensor) -> Tensor:
        """What the net adds, at its own scale and then at that of the crop."""
        height, width = hole.shape[-2:]
        scale = min(1.0, _NET_SIDE / max(height, width))
        size = [max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width)]
        small = F.interpolate(pixels, size=size, mode="area" if scale < 1 else "bilinear")
        small_hole = (F.interpolate(hole, size=size, mode="area") > 0).float()
        change = self.net(small.contiguous(memory_format=torch.channels_last), small_hole)
        return F.interpolate(change, size=(height, width), mode="bilinear", align_corners=False) * hole
