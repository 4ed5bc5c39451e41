"""Loaded by every Python process of a benchmark with random weights or with time stamps.

Random weights match no publisher's checksum, and detect nothing. So every eighth photo gets a cat of 4% of its area, to be
removed.
"""

from __future__ import annotations

import os
from typing import Any

EVERY, AREA = 8, 0.04


def with_cat(scene_of: Any) -> Any:
    """What makes a scene, which finds a cat in the middle of some photos."""
    count = 0

    def wrapped(segmenter: Any, result: Any, height: int, width: int) -> Any:
        nonlocal count
        import numpy as np

        from occpipe.core.types import Segment

        scene, count = scene_of(segmenter, result, height, width), count + 1
        if count % EVERY:
            return scene
        y, x = np.ogrid[:height, :width]
        near = ((y - height / 2) / height) ** 2 + ((x - width / 2) / width) ** 2 < AREA / np.pi
        cat = Segment.from_mask("cat", True, 0.99, near.astype(np.uint8))
        return type(scene)(height, width, (*scene.segments, cat), scene.stuff)

    return wrapped


def install() -> None:
    """Replace both."""
    from occpipe.models import weights
    from occpipe.models.segmenters.huggingface import HuggingFaceSegmenter

    weights._fault = lambda *_: None
    HuggingFaceSegmenter._scene = with_cat(HuggingFaceSegmenter._scene)  # type: ignore[method-assign]


if os.environ.get("OCCPIPE_RANDOM_WEIGHTS"):
    install()
if os.environ.get("OCCPIPE_STAMPS"):
    from benchmarks.hooks import stamps

    stamps.install(os.environ["OCCPIPE_STAMPS"])
if os.environ.get("OCCPIPE_MADE"):
    from benchmarks.hooks import synthetic  # noqa: F401 - it registers itself
