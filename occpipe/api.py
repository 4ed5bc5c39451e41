"""The public Python API: the stages without the pipeline, on arrays.

Images are RGB uint8, H x W x 3; masks uint8, H x W, in {0, 1}.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from occpipe.core.types import CleanResult, Image
from occpipe.models.inpainters import Inpainter
from occpipe.models.loading import load_inpainter as _load_inpainter
from occpipe.models.loading import load_relations as _load_relations
from occpipe.models.loading import load_segmenter as _load_segmenter
from occpipe.models.relations import RelationScorer
from occpipe.models.segmenters import Segmenter
from occpipe.stages.cleaner import Cleaner as Cleaner


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
