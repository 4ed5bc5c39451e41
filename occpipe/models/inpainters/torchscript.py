"""`big-lama` and `migan-512`: TorchScript archives, each with its own input and output.

A TorchScript archive can contain code. So the registry verifies the checksum of a file before it is loaded here.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)
# A crop filled alone and in a batch differs by rounding, because the kernels differ. A larger mean difference in the hole,
# in levels of 8 bits, shows that the traced graph mixes the items of a batch.
_BATCH_TOLERANCE = 1.0


class _TorchScriptInpainter:
    """The common part: loading, device, conversion, and the check that a batch equals its items.

    A trace may record the batch size of its example. So an archive traced at batch 1 may fail on a larger batch or, worse,
    mix its items. The first batch of more than one crop is filled in both ways. If the results differ, `batched` becomes
    False and all crops are filled one by one.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # torch deprecates TorchScript; these weights exist in no other form
            self.module = torch.jit.load(str(path), map_location=self.device).eval()  # type: ignore[no-untyped-call]
        self.batched: bool | None = None
        """Whether batches may be used; None before the first batch of more than one crop."""

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3, where masks, B x H x W, are 1."""
        image = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        mask = torch.from_numpy(masks).to(self.device)[:, None].float()
        # Autocast stays off: the spectral layers of LaMa fail in half precision, and cuFFT has no bf16.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            filled = self._run_checked(image, mask)
        pixels = (filled.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return np.ascontiguousarray(pixels.cpu().numpy())

    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        """Fill `image`, B x 3 x H x W in [0, 1], where `mask`, B x 1 x H x W, is 1; the result has the same form."""
        raise NotImplementedError

    def _run_checked(self, image: Tensor, mask: Tensor) -> Tensor:
        if len(image) == 1 or self.batched:
            return self._run(image, mask)
        single = torch.cat([self._run(image[i : i + 1], mask[i : i + 1]) for i in range(len(image))])
        if self.batched is None:
            self.batched = self._same_in_batch(image, mask, single)
            if not self.batched:
                logger.warning(
                    "%s fails on a batch or mixes the crops of a batch; they are filled one by one", type(self).__name__
                )
        return single

    def _same_in_batch(self, image: Tensor, mask: Tensor, single: Tensor) -> bool:
        try:
            together = self._run(image, mask)
        except torch.OutOfMemoryError:
            raise  # does not depend on the trace
        except RuntimeError:
            return False  # TorchScript raises a plain RuntimeError for a shape that the trace has fixed
        if together.shape != single.shape:
            return False
        difference = ((together - single).abs() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3))).clamp(min=1)
        return bool(difference.max() * 255 <= _BATCH_TOLERANCE)


class BigLamaInpainter(_TorchScriptInpainter):
    """`big-lama.pt`: large holes with repeating structure, by fast Fourier convolutions; 51 M parameters, Apache-2.0.

    R. Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022. Input: image
    B x 3 x H x W, RGB in [0, 1], whose hole the module blanks; mask B x 1 x H x W, 1 = hole; sides a multiple of 8, padded
    symmetrically. Output: the image in [0, 1]. It was trained at 256 px and works up to about 2,000 px.
    """

    multiple = 8
    fixed_size: int | None = None
    max_side = 1536

    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        filled: Tensor = self.module(image, mask)
        return filled.float()


class MiganInpainter(_TorchScriptInpainter):
    """`migan_traced.pt`: small and fast, at 512 x 512 only; MIT.

    A. Sargsyan et al., "MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices", ICCV 2023. Input:
    B x 4 x 512 x 512 = cat(0.5 - mask, image * (1 - mask)), image RGB in [-1, 1], mask 1 = hole. Output: the image in
    [-1, 1].
    """

    multiple = 8
    fixed_size: int | None = 512
    max_side = 512

    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        signed = image * 2 - 1
        filled: Tensor = self.module(torch.cat([0.5 - mask, signed * (1 - mask)], dim=1))
        return filled.float() * 0.5 + 0.5
