"""Segmenters that are labels of the user's: `masks:URI` and `coco:URI`."""

from __future__ import annotations

from collections.abc import Callable

from occpipe.core.config import Config
from occpipe.core.errors import ConfigError
from occpipe.io.images import Limits
from occpipe.models.segmenters import Segmenter
from occpipe.models.weights import ModelEntry

MASKS, COCO = "masks:", "coco:"


def is_labels(model: str) -> bool:
    """Whether a name of the config is that of labels."""
    return model.startswith((MASKS, COCO))


def labels_entry(model: str) -> ModelEntry:
    """The entry of labels: they have no weights, and their licence is the user's to know."""
    loader = "masks" if model.startswith(MASKS) else "annotations"
    return ModelEntry(
        name=model,
        kind="segmenter",
        loader=f"occpipe.models.segmenters.labels:load_{loader}",
        licence=None,
        takes=("config",) if model.startswith(MASKS) else ("config", "make_tagger"),
    )


def load_masks(config: Config) -> Segmenter:
    """The masks of a config. Raises ConfigError for what names no place, StorageError for one that cannot be read."""
    from occpipe.models.segmenters.given_masks import GivenMasks

    segmenter, corpus = config.segmenter, config.corpus
    masks = GivenMasks(
        segmenter.model.removeprefix(MASKS),
        access=config.storage.input.access,
        limits=_limits(config),
        max_bytes=corpus.max_bytes,
        cut=segmenter.mask_cut,
    )
    masks.check()
    return masks


def load_annotations(config: Config, make_tagger: Callable[[], Segmenter] | None = None) -> Segmenter:
    """The annotations of a config, with a tagger if they know no stuff. Raises as `load_masks` does."""
    from occpipe.models.segmenters.annotations import Annotations

    place, access = config.segmenter.model.removeprefix(COCO), config.storage.input.access
    annotations = Annotations(place, access=access, limits=_limits(config), tagger=make_tagger)
    try:
        config.check_classes([category.name for category in annotations.index.categories])
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return annotations


def labels_sha256(config: Config) -> str | None:
    """The sha256 of the files of annotations; None for masks, which lie one beside each image. Raises as above."""
    from occpipe.models.segmenters.annotations import Annotations

    is_masks = config.segmenter.model.startswith(MASKS)
    labels = load_masks(config) if is_masks else load_annotations(config)
    return labels.index.sha256 if isinstance(labels, Annotations) else None


def _limits(config: Config) -> Limits:
    return Limits(config.corpus.max_pixels, config.corpus.min_side)
