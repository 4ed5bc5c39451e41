"""Open vocabulary: words to masks by tiny random models of the real classes, and words that nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError, WeightsError
from occpipe.core.types import Image, Mask, Segmentation
from occpipe.models.loading import check_models, identities, load_segmenter
from occpipe.models.segmenters.prompted import PromptedSegmenter, Thing, _apart
from tests.helpers.scenes import photo
from tests.helpers.tiny_models import save_tiny_owlv2, save_tiny_sam2, save_tiny_sam3

WORDS = ("wheelie bin", "for-sale sign", "drone")


@pytest.fixture(scope="module")
def sam3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sam3(tmp_path_factory.mktemp("sam3"))


def test_sam3_finds_things_by_their_words(sam3: Path) -> None:
    def tagger(images: Sequence[Image]) -> list[Segmentation]:
        return [Segmentation(image.shape[0], image.shape[1], (), {"grass": 0.9}) for image in images]

    photos = [photo("chelsea", 96).copy(), photo("coffee", 80).copy()]
    scenes = PromptedSegmenter([str(sam3)], classes=WORDS, tagger=tagger)(photos)
    for scene, image in zip(scenes, photos, strict=True):
        assert (scene.height, scene.width, scene.stuff) == (*image.shape[:2], {"grass": 0.9})
        assert np.sum([thing.mask for thing in scene.things], 0).max() == 1, "no pixel belongs to two things"
        assert {thing.label for thing in scene.things} <= {*WORDS}
        assert all(0.5 <= thing.score <= 1 for thing in scene.things)
    assert len({thing.label for scene in scenes for thing in scene.things}) > 1


def test_a_photo_alone_has_the_same_things(sam3: Path) -> None:
    segmenter = PromptedSegmenter([str(sam3)], classes=WORDS)
    photos = [photo("chelsea", 96).copy(), photo("coffee", 80).copy()]
    both, alone = segmenter(photos), [segmenter([image])[0] for image in photos]
    for first, second in zip(both, alone, strict=True):
        assert [(s.label, s.rle) for s in first.segments] == [(s.label, s.rle) for s in second.segments]


def test_a_detector_with_sam2_outlines_its_boxes(tmp_path: Path) -> None:
    sources = [str(save_tiny_owlv2(tmp_path / "owl")), str(save_tiny_sam2(tmp_path / "sam"))]
    (scene,) = PromptedSegmenter(sources, classes=WORDS, threshold=0.0)([photo("chelsea", 96).copy()])
    assert scene.things
    assert {thing.label for thing in scene.things} <= {*WORDS}


def test_two_words_for_one_thing_give_it_once() -> None:
    def square(left: int, right: int) -> Mask:
        mask = np.zeros((8, 16), np.uint8)
        mask[:, left:right] = 1
        return mask

    things = [
        ("bin", Thing(0.7, square(0, 8))),
        ("wheelie bin", Thing(0.9, square(1, 9))),
        ("sign", Thing(0.6, square(6, 16))),
    ]
    segments = list(_apart(things, (8, 16)))
    assert [(segment.label, segment.area) for segment in segments] == [("wheelie bin", 64), ("sign", 56)]


def test_words_of_the_config_come_to_the_model_and_the_policy(sam3: Path) -> None:
    settings = [f"segmenter.model=hf:{sam3}", "segmenter.classes=[wheelie bin, drone]", "policy.remove=[wheelie bin]"]
    config = load_config("local", settings)
    (scene,) = load_segmenter(config)([photo("rocket").copy()])
    assert {thing.label for thing in scene.things} <= {"wheelie bin", "drone"}
    assert scene.stuff, "the starter tags the stuff"
    identity = identities(config)[0]
    assert (identity["name"], len(identity["sha256"] or "")) == (f"hf:{sam3}", 64)
    with pytest.raises(
        ConfigError, match=r"policy\.remove: there is no class 'whelie bin', did you mean wheelie ?bin\?"
    ):
        check_models(load_config("local", [*settings[:2], "policy.remove=[whelie bin]"]))


def test_a_word_that_no_vector_knows_is_one_line(sam3: Path) -> None:
    settings = [f"segmenter.model=hf:{sam3}", "segmenter.classes=[drone, skateborrd]"]
    with pytest.raises(ConfigError, match=r"no vector knows 'skateborrd', did you mean skateboard") as failure:
        check_models(load_config("local", settings))
    assert "\n" not in str(failure.value)
    check_models(load_config("local", [*settings, "policy.remove=[skateborrd]"]))


def test_a_model_that_takes_no_words_is_one_line(tmp_path: Path, sam3: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="hf:"):
        PromptedSegmenter([str(tmp_path)], classes=WORDS)
    with pytest.raises(WeightsError, match="hf:"):
        PromptedSegmenter([str(sam3), str(sam3)], classes=WORDS)
