"""One image after the other in one process: the segmenter, the decision and the inpainter, without the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from occpipe.core.masks import union_mask
from occpipe.core.types import CleanResult, Image, Segmentation, Verdict
from occpipe.models.inpainters.shadow import cast_shadow
from occpipe.models.loading import load_inpainter, load_relations, load_segmenter
from occpipe.models.relations.decide import decide, removal_mask, rule_of


class Cleaner:
    """All three loaded once, for many images in one process; `workers` is how many the segmenter may look at at a time."""

    def __init__(self, config: Config | str | Path = "local", *, workers: int = 1) -> None:
        self.config = config if isinstance(config, Config) else load_config(config)
        self.segmenter = load_segmenter(self.config, workers=workers)
        self.relations = load_relations(self.config.relations)
        self.inpainter = load_inpainter(self.config)
        self.rule = rule_of(self.config.policy, self.relations, self.config.segmenter.model)

    def __call__(self, rgb: Image) -> CleanResult:
        """Find what does not belong in an image, RGB uint8 H x W x 3, and fill it; TypeError for anything else."""
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise TypeError(f"an image is an RGB uint8 array, H x W x 3, not {type(rgb).__name__}; see numpy.asarray")
        (scene,) = self.segmenter([rgb])
        return self.apply(rgb, scene)

    def apply(self, rgb: Image, scene: Segmentation) -> CleanResult:
        """Decide and fill with a segmentation at the image's size."""
        objects = decide(scene, self.relations, self.config.policy, self.rule)
        mask = removal_mask(objects, self.config.policy, self.config.inpainter)
        if mask is None:
            return CleanResult(rgb.copy(), np.zeros(rgb.shape[:2], np.uint8), objects, scene.stuff)
        things = union_mask((o.segment.rle for o in objects if o.verdict is Verdict.KEEP), *mask.shape)
        if self.config.inpainter.shadow:
            mask = mask | (cast_shadow(rgb, mask) & (1 - things))
        return CleanResult(self.inpainter(rgb, mask, things), mask, objects, scene.stuff)
