"""`big-lama` and `migan-512`: TorchScript archives, each by its own contract.

A TorchScript archive can carry code, so a file is loaded only after the weights registry has verified its sha256;
these classes take the path of such a file and do not look at its origin.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A crop filled alone and in a batch differs by rounding, since other kernels run; more than this mean difference in the
# hole, in 8 bit levels, means that the traced graph mixes the items of a batch.
_BATCH_TOLERANCE = 1.0


class _TorchScriptInpainter:
    """What both have in common: loading, device, conversion, and the check that a batch equals its items.

    A trace records the batch size of its example wherever code asked for it, so an archive traced at batch 1 may fail on
    a larger batch or, worse, mix its items. The first batch of more than one crop is filled both ways; where they
    differ, `batched` becomes False and all crops are filled one by one.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # torch retires TorchScript; these weights exist as nothing else
            self.module = torch.jit.load(str(path), map_location=self.device).eval()  # type: ignore[no-untyped-call]
        self.batched: bool | None = None
        """Whether batches hold; None until a batch of more than one crop was seen."""

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3, where masks, B x H x W, are 1."""
        image = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        mask = torch.from_numpy(masks).to(self.device)[:, None].float()
        # Autocast stays off: the spectral layers of LaMa lose the image in half precision, and cuFFT takes no bf16.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            filled = self._run_checked(image, mask)
        pixels = (filled.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return np.ascontiguousarray(pixels.cpu().numpy())

    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        """Fill `image`, B x 3 x H x W in [0, 1] where `mask`, B x 1 x H x W, is 1; returns the like of `image`."""
        raise NotImplementedError

    def _run_checked(self, image: Tensor, mask: Tensor) -> Tensor:
        if len(image) == 1 or self.batched:
            return self._run(image, mask)
        single = torch.cat([self._run(image[i : i + 1], mask[i : i + 1]) for i in range(len(image))])
        if self.batched is None:
            self.batched = self._same_in_batch(image, mask, single)
        return single

    def _same_in_batch(self, image: Tensor, mask: Tensor, single: Tensor) -> bool:
        try:
            together = self._run(image, mask)
        except torch.OutOfMemoryError:
            raise  # says nothing about the trace
        except RuntimeError:
            return False  # TorchScript reports a shape that the trace has fixed as a plain RuntimeError
        if together.shape != single.shape:
            return False
        difference = ((together - single).abs() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3))).clamp(min=1)
        return bool(difference.max() * 255 <= _BATCH_TOLERANCE)


class BigLamaInpainter(_TorchScriptInpainter):
    """`big-lama.pt`: large holes with repeating structure, by fast Fourier convolutions; 51 M parameters, Apache-2.0.

    R. Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022. Contract: image
    B x 3 x H x W, RGB in [0, 1], its hole blanked by the module itself; mask B x 1 x H x W, 1 = hole; sides a multiple
    of 8, padded symmetrically; returns the image in [0, 1]. It was trained at 256 px and holds up to about 2 k.
    """

    multiple = 8
    fixed_size: int | None = None
    max_side = 1536

    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        filled: Tensor = self.module(image, mask)
        return filled.float()


class MiganInpainter(_TorchScriptInpainter):
    """`migan_traced.pt`: small and fast, at 512 x 512 only; MIT.

    A. Sargsyan et al., "MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices", ICCV 2023. Contract: one
    input, B x 4 x 512 x 512 = cat(0.5 - mask, image * (1 - mask)), image RGB in [-1, 1], mask 1 = hole; returns
    the image in [-1, 1].
    """

    multiple = 8
    fixed_size: int | None = 512
    max_side = 512

    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        signed = image * 2 - 1
        filled: Tensor = self.module(torch.cat([0.5 - mask, signed * (1 - mask)], dim=1))
        return filled.float() * 0.5 + 0.5
