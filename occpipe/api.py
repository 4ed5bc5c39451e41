"""The public Python API: the stages without the pipeline, on arrays.

Images are RGB uint8, H x W x 3; masks uint8, H x W, in {0, 1}.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from occpipe.config import Config
from occpipe.config_file import load_config
from occpipe.decide import decide, removal_mask
from occpipe.inpainters import Inpainter
from occpipe.inpainters.shadow import cast_shadow
from occpipe.masks import union_mask
from occpipe.models import load_inpainter as _load_inpainter
from occpipe.models import load_relations as _load_relations
from occpipe.models import load_segmenter as _load_segmenter
from occpipe.relations import RelationScorer
from occpipe.segmenters import Segmenter
from occpipe.types import CleanResult, Image, Segmentation, Verdict


def load_segmenter(name: str = "starter", device: str = "auto", config: Config | str | Path = "local") -> Segmenter:
    """A segmenter by name: `seg([rgb, ...])` gives a `Segmentation` for each image, at its size.

    Raises WeightsError where its weights are missing.
    """
    return _load_segmenter(_with(config, "segmenter", model=name, device=device))


def load_relations(config: Config | str | Path = "local") -> RelationScorer:
    """The relation scorer: `rel.relation("surfboard", ["sea", "sand"])` is in [0, 1], higher = belongs."""
    return _load_relations(_config(config).relations)


def load_inpainter(name: str = "starter", device: str = "auto", config: Config | str | Path = "local") -> Inpainter:
    """An inpainter by name: `fill(rgb, mask)` gives the image with the mask filled, other pixels untouched.

    Raises WeightsError where its weights are missing.
    """
    return _load_inpainter(_with(config, "inpainter", model=name, device=device))


class Cleaner:
    """All three loaded once, for many images in one process; `workers` is how many the segmenter may look at at a time."""

    def __init__(self, config: Config | str | Path = "local", *, workers: int = 1) -> None:
        self.config = _config(config)
        self.segmenter = _load_segmenter(self.config, workers=workers)
        self.relations = _load_relations(self.config.relations)
        self.inpainter = _load_inpainter(self.config)

    def __call__(self, rgb: Image) -> CleanResult:
        """Find what does not belong in an image, RGB uint8 H x W x 3, and fill it; TypeError for anything else."""
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise TypeError(f"an image is an RGB uint8 array, H x W x 3, not {type(rgb).__name__}; see numpy.asarray")
        (scene,) = self.segmenter([rgb])
        return self.apply(rgb, scene)

    def apply(self, rgb: Image, scene: Segmentation) -> CleanResult:
        """Decide and fill with a segmentation at the image's size."""
        objects = decide(scene, self.relations, self.config.policy)
        mask = removal_mask(objects, self.config.policy, self.config.inpainter)
        if mask is None:
            return CleanResult(rgb.copy(), np.zeros(rgb.shape[:2], np.uint8), objects, scene.stuff)
        things = union_mask((o.segment.rle for o in objects if o.verdict is Verdict.KEEP), *mask.shape)
        if self.config.inpainter.shadow:
            mask = mask | (cast_shadow(rgb, mask) & (1 - things))
        return CleanResult(self.inpainter(rgb, mask, things), mask, objects, scene.stuff)


def clean_image(rgb: Image, config: Config | str | Path = "local") -> CleanResult:
    """Clean one image, RGB uint8 H x W x 3: the image, its mask, objects with reasons, and stuff.

    The models of a config are loaded once for each process. Raises TypeError for anything but such an array.
    """
    return _cleaner(_config(config))(rgb)


@cache
def _cleaner(config: Config) -> Cleaner:
    return Cleaner(config)


def _config(config: Config | str | Path) -> Config:
    return config if isinstance(config, Config) else load_config(config)


def _with(config: Config | str | Path, section: str, **values: Any) -> Config:
    base = _config(config)
    return base.model_copy(update={section: getattr(base, section).model_copy(update=values)})
