"""`pypatchmatch`: the PatchMatch fill of the PyPI package of that name, for comparison."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from occpipe.core.errors import WeightsError


class PyPatchMatchInpainter:
    """Patches of the same crop, by the C++ code of the package; needs the extra `peers`.

    C. Barnes et al., "PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing", SIGGRAPH 2009.
    Raises WeightsError if the package is not installed.
    """

    multiple = 1
    fixed_size: int | None = None
    max_side = 4096
    context = 0.75  # it copies, as the starter does

    def __init__(self, patch_size: int = 5) -> None:
        try:
            from patchmatch import patch_match
        except ImportError as error:
            raise WeightsError(f"pypatchmatch cannot be used: {error}: pip install 'occpipe[peers]'") from error
        self._library, self._lock = patch_match, Lock()  # the library has global state
        self.patch_size = patch_size

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3, where masks, B x H x W, are 1; one by one."""
        pairs = zip(images, masks, strict=True)
        with self._lock:
            return np.stack([self._library.inpaint(i, m * np.uint8(255), patch_size=self.patch_size) for i, m in pairs])
