"""The public Python API: the stages without the pipeline, on arrays.

Images are RGB uint8, H x W x 3; masks uint8, H x W, in {0, 1}. A config is a name, a YAML file or a `Config`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

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

_Section = TypeVar("_Section", bound=BaseModel)


def load_segmenter(name: str = "starter", device: str = "auto", config: Config | str | Path = "local") -> Segmenter:
    """Load a segmenter.

    Args:
        name: Its name, or `hf:OWNER/NAME`.
        device: A device of torch; `auto` is CUDA where there is one.
        config: All other settings.

    Returns:
        A callable: `seg([rgb, ...])` gives a `Segmentation` for each image, at its size.

    Raises:
        ConfigError: The config is wrong.
        WeightsError: Its weights are missing or damaged, or their licence is not accepted.
    """
    base = _config(config)
    return _load_segmenter(base.model_copy(update={"segmenter": _with_model(base.segmenter, name, device)}))


def load_relations(config: Config | str | Path = "local") -> RelationScorer:
    """Load the relation scorer.

    Args:
        config: The settings.

    Returns:
        A scorer: `rel.relation("surfboard", ["sea", "sand"])` is in [0, 1], higher = belongs.

    Raises:
        ConfigError: The config is wrong.
        WeightsError: Its relation file cannot be used.
    """
    return _load_relations(_config(config).relations)


def load_inpainter(name: str = "starter", device: str = "auto", config: Config | str | Path = "local") -> Inpainter:
    """Load an inpainter.

    Args:
        name: Its name.
        device: A device of torch; `auto` is CUDA where there is one.
        config: All other settings.

    Returns:
        A callable: `fill(rgb, mask)` gives the image with the mask filled, and leaves all other pixels as they are.

    Raises:
        ConfigError: The config is wrong.
        WeightsError: Its weights are missing or damaged, or their licence is not accepted.
    """
    base = _config(config)
    return _load_inpainter(base.model_copy(update={"inpainter": _with_model(base.inpainter, name, device)}))


def clean_image(rgb: Image, config: Config | str | Path = "local") -> CleanResult:
    """Clean one image. The models of a config are loaded once in a process.

    Args:
        rgb: The image, RGB uint8, H x W x 3.
        config: The settings.

    Returns:
        The cleaned image, the mask of the filled pixels, the objects with verdicts and reasons, and stuff.

    Raises:
        TypeError: `rgb` is no such array.
        ConfigError: The config is wrong.
        WeightsError: Weights are missing or damaged, or their licence is not accepted.
    """
    return _cleaner(_config(config))(rgb)


@cache
def _cleaner(config: Config) -> Cleaner:
    return Cleaner(config)


def _config(config: Config | str | Path) -> Config:
    return config if isinstance(config, Config) else load_config(config)


def _with_model(section: _Section, model: str, device: str) -> _Section:
    return section.model_copy(update={"model": model, "device": device})
