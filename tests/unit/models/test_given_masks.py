"""masks: where the mask of an image is looked for, what counts as white, and the reason where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Pil

from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError, StorageError
from occpipe.core.schemas import PIPELINE
from occpipe.core.types import Mask, Reason, Verdict
from occpipe.io.images import ImageError, ImageReason
from occpipe.models.loading import identities, load_segmenter
from occpipe.models.segmenters import Photo
from occpipe.models.segmenters.given_masks import LABEL, GivenMasks, key_of, split_pattern
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from tests.helpers.scenes import encoded, gradient


def square(height: int = 64, width: int = 96) -> Mask:
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 20:50] = 1
    return mask


def photo(uri: str, height: int = 64, width: int = 96) -> Photo:
    return Photo(uri, height, width, gradient(32, 48))


def write_mask(path: Path, mask: Mask, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(mask * np.uint8(255)).convert(mode).save(path)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_white_is_removed_at_the_size_of_the_photo(tmp_path: Path, mode: str) -> None:
    write_mask(tmp_path / "2019" / "a.png", square(), mode)
    (scene,) = GivenMasks(str(tmp_path)).segment_named([photo("2019/a.jpg")])
    assert not isinstance(scene, Exception)
    (thing,) = scene.things
    assert (thing.label, thing.score, scene.stuff) == (LABEL, 1.0, {})
    assert (thing.mask == square()).all()


def test_soft_masks_are_cut(tmp_path: Path) -> None:
    grey = np.full((64, 96), 100, np.uint8)
    grey[:32] = 180
    Pil.fromarray(grey).save(tmp_path / "a.png")
    shares = []
    for cut in (0.3, 0.5, 0.75):
        (scene,) = GivenMasks(str(tmp_path), cut=cut).segment_named([photo("a.jpg")])
        shares.append(scene if isinstance(scene, Exception) else [thing.area for thing in scene.things])
    assert isinstance(shares[0], ImageError)
    assert shares[0].reason is ImageReason.LABEL_FULL
    assert shares[1:] == [[32 * 96], []]


def test_the_reason_where_there_is_no_mask(tmp_path: Path) -> None:
    write_mask(tmp_path / "small.png", square(40, 60))
    write_mask(tmp_path / "full.png", np.ones((64, 96), np.uint8))
    write_mask(tmp_path / "black.png", np.zeros((64, 96), np.uint8))
    (tmp_path / "text.png").write_bytes(b"not a picture")
    Pil.fromarray(np.full((64, 96), 60_000, np.uint16)).save(tmp_path / "deep.png")
    names = ("missing", "small", "full", "text", "deep", "black")
    scenes = GivenMasks(str(tmp_path)).segment_named([photo(f"{name}.jpg") for name in names])
    reasons = [scene.reason if isinstance(scene, ImageError) else scene for scene in scenes]
    assert reasons[:5] == ["no_label", "label_size", "label_full", "label_broken", "label_broken"]
    assert "60 x 40, and the image 96 x 64" in str(scenes[1])
    assert not isinstance(scenes[5], Exception)
    assert scenes[5].things == (), "nothing is to be removed"


@pytest.mark.parametrize(
    ("place", "uri", "key"),
    [
        ("masks", "2019/a.b.jpg", "masks: 2019/a.b.png"),
        ("/data/{stem}_mask.png", "2019/a.jpg", "/data: 2019/a_mask.png"),
        ("s3://bucket/{uri}", "2019/a.png", "s3://bucket: 2019/a.png"),
        ("s3://bucket/masks/{uri}.png", "a.jpg", "s3://bucket/masks: a.jpg.png"),
        ("m_{stem}.png", "{uri}.jpg", ".: m_{uri}.png"),
    ],
)
def test_where_the_mask_of_an_image_is(place: str, uri: str, key: str) -> None:
    root, pattern = split_pattern(place)
    assert f"{root}: {key_of(uri, pattern)}" == key


def test_a_place_that_is_none_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\{name\} in .*the fields are \{stem\} and \{uri\}"):
        GivenMasks("masks/{name}.png")
    with pytest.raises(StorageError, match="nowhere"):
        identities(load_config("local", [f"segmenter.model=masks:{tmp_path}/nowhere"]))
    with pytest.raises(ConfigError, match="labels belong to the images of a corpus"):
        load_segmenter(load_config("local", [f"segmenter.model=masks:{tmp_path}"]))([gradient()])


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "a.png", square())
    (error,) = GivenMasks(str(tmp_path / "masks")).segment_named([photo("../a.jpg")])
    assert isinstance(error, ImageError)
    assert error.reason is ImageReason.UNSAFE_PATH


def test_a_mask_is_filled_as_it_is_and_nothing_is_decided(tmp_path: Path) -> None:
    """No dilation, no area rule: half of the photo is more than a thing may have."""
    mask = square()
    mask[:, :60] = 1
    write_mask(tmp_path / "a.png", mask)
    config = load_config("local", [f"segmenter.model=masks:{tmp_path}"])
    values: dict[str, list[Any]] = {"image_id": [1, 2], "uri": ["a.jpg", "b.jpg"], "width": [96] * 2}
    values |= {"height": [64] * 2, "mask_width": [48] * 2, "mask_height": [32] * 2, "status": [None] * 2}
    values |= {"pixels": [gradient(32, 48).tobytes()] * 2}
    batch = pa.table({name: pa.array(column, PIPELINE[name]) for name, column in values.items()})
    rows = Relate(config)(SegmentStage(config)(batch)).to_pylist()
    assert (rows[0]["mask_height"], rows[0]["mask_width"], rows[0]["status"]) == (64, 96, None)
    (thing,) = rows[0]["objects"]
    assert (thing["verdict"], thing["reason"], thing["relation"]) == (Verdict.REMOVE, Reason.GIVEN, None)
    assert thing["mask"] == rows[0]["mask"]
    assert rows[0]["removed"] == pytest.approx(mask.mean())
    assert (rows[1]["status"], rows[1]["reason"]) == ("skipped", "no_label")
    assert rows[1]["error"]["message"] == "there is no mask b.png"


def test_hostile_masks_are_rows(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(gradient(), "PNG")[:400])
    masks = GivenMasks(str(tmp_path), max_bytes=300)
    assert [type(error).__name__ for error in masks.segment_named([photo("a.jpg")])] == ["TooLargeError"]
