"""`starter`: patches of the same photo, corrected by a small net that ships with the package; needs no network.

Patches are sharp and never invented, but may be misplaced: the net sees the whole crop and adds what the patches miss. It
does so at each coarse scale, after which the patches are chosen anew, and at last in the crop at up to 448 pixels.
"""

from __future__ import annotations

import contextlib
from importlib.resources import as_file, files
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from occpipe.core.errors import WeightsError
from occpipe.core.threads import one_core
from occpipe.core.types import Image, Mask
from occpipe.models.efficientnet import from_stored
from occpipe.models.inpainters.patches import PatchInpainter
from occpipe.models.inpainters.refiner_net import MULTIPLE, RefinerNet

ASSET = "models/assets/starter-inpainter.safetensors"
_NET_SIDE = 448  # pixels, the longest side of a crop that the net sees in part
_MARGIN, _LEAST_MARGIN = 0.25, 32  # around the hole, as a share of its longer side, and in pixels


def load_refiner(path: Path | None = None, device: str = "cpu") -> RefinerNet:
    """The net, in evaluation mode with its norms folded into its convolutions; by default the shipped weights.

    Raises WeightsError where the file is missing or holds something else.
    """
    if path is None:
        with as_file(files("occpipe").joinpath(ASSET)) as shipped:
            return load_refiner(shipped, device)
    with torch.device("meta"):
        net = RefinerNet()
    try:
        return from_stored(net, load_file(path), device)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: no starter inpainter weights: {error}") from error
    except RuntimeError as error:
        raise WeightsError(f"{path}: the tensors are not those of the starter inpainter: {error}") from error


class StarterInpainter:
    """Patches found one crop at a time, guided by the net at each coarse scale and corrected by it in the end.

    `weights` is a safetensors file, by default the shipped one; `rounds` and `work_side` are those of `PatchInpainter`.
    """

    multiple = 1
    fixed_size: int | None = None
    max_side = 8192
    context = PatchInpainter.context

    def __init__(
        self, weights: Path | None = None, device: str = "cpu", *, rounds: int = 4, work_side: int = 800
    ) -> None:
        self.device = torch.device(device)
        self.net = load_refiner(weights, device)
        self.patches = PatchInpainter(device, rounds=rounds, work_side=work_side, guide=self._guide)

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3, where masks, B x H x W, are 1."""
        return self.fill_beside(images, masks, np.zeros_like(masks))

    def fill_beside(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], things: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """As `fill`, with nothing copied from where things, B x H x W, are 1."""
        filled = self.patches.fill_beside(images, masks, things)
        for image, mask in zip(filled, masks, strict=True):
            if mask.any():
                scale, near = min(1.0, _NET_SIDE / max(mask.shape)), _near(mask)
                _add(image[near], mask[near], self._change(*_at_net_size(image[near], mask[near], scale)))
        return filled

    def _guide(self, pixels: Tensor, hole: Tensor) -> Tensor:
        """What the net adds to a coarse fill: see `Guide`."""
        near = _near(hole.to(torch.uint8).cpu().numpy())
        height, width = hole[near].shape
        pad = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        image = F.pad(pixels[near].permute(2, 0, 1)[None], pad, mode="replicate")
        change = torch.zeros_like(pixels)
        seen = self._seen(image, F.pad(hole[near][None, None].float(), pad))
        change[near] = seen[0, :, :height, :width].permute(1, 2, 0).round()
        return change

    def _change(self, pixels: Image, mask: Mask) -> NDArray[np.float32]:
        """What the net adds to a picture, h x w x 3, with a hole, h x w: the mean over it and its mirror image."""
        image = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1)[None].float()
        hole = torch.from_numpy(mask).to(self.device)[None, None].float()
        change = (self._seen(image, hole) + self._seen(image.flip(3), hole.flip(3)).flip(3)) / 2
        return np.ascontiguousarray(change[0].permute(1, 2, 0).cpu().numpy())

    def _seen(self, image: Tensor, hole: Tensor) -> Tensor:
        """What the net adds, 1 x 3 x h x w; on a CPU computed on one core, for bits that do not depend on their number."""
        cores = one_core() if self.device.type == "cpu" else contextlib.nullcontext()
        with torch.inference_mode(), cores:
            change: Tensor = self.net(image.contiguous(memory_format=torch.channels_last), hole)
            return change


def _near(mask: Mask) -> tuple[slice, slice]:
    """The part of a picture that the net sees: its hole, and so much around it that more changes nothing."""
    x, y, w, h = cv2.boundingRect(mask)
    margin = max(_LEAST_MARGIN, round(_MARGIN * max(w, h)))
    return slice(max(0, y - margin), y + h + margin), slice(max(0, x - margin), x + w + margin)


def _at_net_size(image: Image, mask: Mask, scale: float) -> tuple[Image, Mask]:
    """A picture and its hole at about `scale` of their size, as the net sees them: sides are multiples of 16."""
    h, w = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in mask.shape)
    small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    share = cv2.resize(mask.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), (share > 0).astype(np.uint8)


def _add(image: Image, mask: Mask, change: NDArray[np.float32]) -> None:
    """Add a change, h x w x 3, to an image, H x W x 3, in place where the mask is 1; scaled up in the mask's box only."""
    x, y, w, h = cv2.boundingRect(mask)
    down, across = change.shape[0] / mask.shape[0], change.shape[1] / mask.shape[1]
    # from pixels of the box to those of the change, whose centres lie half a pixel from its edge
    place = np.array([[across, 0, (x + 0.5) * across - 0.5], [0, down, (y + 0.5) * down - 0.5]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    larger = cv2.warpAffine(change, place, (w, h), flags=how, borderMode=cv2.BORDER_REPLICATE)
    box = image[y : y + h, x : x + w]
    inside = mask[y : y + h, x : x + w] == 1
    box[inside] = np.rint(np.clip(box[inside] + larger[inside], 0, 255)).astype(np.uint8)
