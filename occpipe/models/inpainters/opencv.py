"""`telea` and `navier-stokes`: the diffusion fills of OpenCV, as baselines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


class OpenCvInpainter:
    """Continues colours into the hole from its edge; smooth, without texture.

    `telea`: A. Telea, "An Image Inpainting Technique Based on the Fast Marching Method", J. Graphics Tools 9(1), 2004.
    `navier-stokes`: M. Bertalmio, A. Bertozzi, G. Sapiro, "Navier-Stokes, Fluid Dynamics, and Image and Video
    Inpainting", CVPR 2001. `radius` is the neighbourhood in pixels that a filled pixel is averaged from.
    """

    multiple = 1
    fixed_size: int | None = None
    max_side = 4096

    def __init__(self, method: str = "telea", radius: float = 3.0) -> None:
        self.flag = {"telea": cv2.INPAINT_TELEA, "navier-stokes": cv2.INPAINT_NS}[method]
        self.radius = radius

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3, where masks, B x H x W, are 1; one by one, because OpenCV has no batches."""
        pairs = zip(images, masks, strict=True)
        # Each channel is filled independently, so that RGB needs no conversion to BGR.
        return np.stack([cv2.inpaint(i, m, self.radius, self.flag) for i, m in pairs]).astype(np.uint8)
