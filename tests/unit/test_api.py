"""The public API, line by line as DESIGN.md and the README write it."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

import occpipe
import occpipe.io.storage.open
from jobs.make_demo import scenes
from occpipe.core.config_file import load_config
from occpipe.core.types import Box, Image, Reason, Verdict


@pytest.fixture(scope="module")
def rgb() -> Image:
    return dict(scenes())["cat_at_the_palace"]


def test_load_segmenter(rgb: Image) -> None:
    seg = occpipe.load_segmenter("starter", device="cpu")
    (scene,) = seg([rgb])
    cat = next(segment for segment in scene.segments if segment.label == "cat")
    assert cat.is_thing
    assert 0.5 < cat.score <= 1
    assert cat.mask.shape == rgb.shape[:2]
    assert cat.mask.dtype == np.uint8
    assert cat.area == cat.mask.sum()
    assert isinstance(cat.bbox, Box)
    assert {"sky-other", "tree"} <= scene.stuff.keys()
    assert all(0 <= confidence <= 1 for confidence in scene.stuff.values())


def test_load_relations() -> None:
    rel = occpipe.load_relations()
    value = rel.relation("surfboard", ["sea", "sand", "person"])
    assert 0 <= rel.relation("surfboard", ["bed", "pillow", "wall-other"]) < value <= 1


def test_load_inpainter(rgb: Image) -> None:
    fill = occpipe.load_inpainter("starter", device="cpu")
    mask = np.zeros(rgb.shape[:2], np.uint8)
    mask[200:260, 400:470] = 1
    filled = fill(rgb, mask)
    assert np.array_equal(filled[mask == 0], rgb[mask == 0])
    assert not np.array_equal(filled[mask == 1], rgb[mask == 1])


def test_clean_image(rgb: Image) -> None:
    result = occpipe.clean_image(rgb, load_config("local", ["policy.cut=0.24"]))
    (cat,) = (item for item in result.objects if item.label == "cat")
    assert (cat.verdict, cat.reason) == (Verdict.REMOVE, Reason.UNRELATED)
    assert cat.relation is not None
    assert cat.evidence == tuple(sorted(cat.evidence, key=lambda e: -e.relation))
    assert (cat.segment.mask & ~result.mask & 1).sum() == 0, "the whole cat is in the mask"
    assert np.array_equal(result.image[result.mask == 0], rgb[result.mask == 0])
    assert {"sky-other"} <= result.stuff.keys()


@pytest.mark.parametrize("wrong", ["photo.jpg", np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3))])
def test_what_is_no_image_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="RGB uint8 array"):
        occpipe.clean_image(wrong)  # type: ignore[arg-type]


def test_an_image_with_nothing_to_see() -> None:
    grey = np.full((80, 100, 3), 127, np.uint8)
    result = occpipe.clean_image(grey)
    assert np.array_equal(result.image, grey)
    assert not result.mask.any()


@pytest.mark.parametrize("module", [occpipe, occpipe.io.storage.open])
def test_doctests(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted > 0
    assert results.failed == 0


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        occpipe.nothing  # noqa: B018
