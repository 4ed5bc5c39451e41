"""coco: which image an annotation belongs to, what its forms mean, and the reason where there is none."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil
from pycocotools import mask as coco_mask

from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError
from occpipe.core.masks import Rle
from occpipe.core.types import Image, Mask, Segmentation
from occpipe.io import json_stream
from occpipe.io.images import ImageError
from occpipe.io.json_stream import array_elements
from occpipe.models.loading import identities
from occpipe.models.segmenters import Photo
from occpipe.models.segmenters.annotations import Annotations
from tests.helpers.scenes import gradient

SIZE = (64, 96)
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]
STUFF = [{"id": 124, "name": "grass"}, {"id": 183, "name": "other"}]


def rectangle(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = SIZE) -> Mask:
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


CAT = rectangle(8, 10, 40, 50)
BOX = [10, 8, 40, 32]
POLYGON = [[10, 8, 50, 8, 50, 40, 10, 40]]
EDGES = np.flatnonzero(np.diff(CAT.T.ravel())) + 1
"""Where runs end, column by column."""


def photo(uri: str, height: int = SIZE[0], width: int = SIZE[1], pixels: Image | None = None) -> Photo:
    return Photo(uri, height, width, gradient(*SIZE) if pixels is None else pixels)


def coco(
    folder: Path,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    name: str = "a.json",
    **more: Any,
) -> str:
    document = {"info": {"year": 2017}, "licenses": [], "annotations": annotations, "images": images}
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({**document, "categories": [*CATEGORIES, *STUFF], **more}))
    return str(folder / name)


def image(number: int, name: str, height: int = SIZE[0], width: int = SIZE[1]) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": height, "width": width}


def thing(number: int, **values: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": number, "category_id": 17, "iscrowd": 0, **values}


def scene_of(result: Segmentation | Exception) -> Segmentation:
    assert isinstance(result, Segmentation), result
    return result


@pytest.mark.parametrize(
    ("form", "allowed"),
    [
        ({"segmentation": POLYGON}, 0),
        ({"segmentation": [POLYGON[0][:6], [10, 8, 50, 40, 10, 40]]}, 40),
        ({"segmentation": {"size": [*SIZE], "counts": Rle.encode(CAT).counts.decode()}, "iscrowd": 1}, 0),
        ({"segmentation": {"size": [*SIZE], "counts": np.diff([0, *EDGES, CAT.size]).tolist()}}, 0),
        ({"bbox": BOX}, 0),
        ({"bbox": BOX, "segmentation": []}, 0),
    ],
    ids=["polygon", "two polygons", "compressed", "runs", "box", "no polygons"],
)
def test_each_form_gives_its_mask(tmp_path: Path, form: dict[str, Any], allowed: int) -> None:
    labels = Annotations(coco(tmp_path, [image(1, "1.jpg")], [thing(1, **form)]), folder=tmp_path / "index")
    (segment,) = scene_of(labels.segment_named([photo("1.jpg")])[0]).things
    assert (segment.label, segment.score) == ("cat", 1.0)
    assert (segment.mask != CAT).sum() <= allowed


def test_masks_have_the_size_of_the_pixels_and_polygons_are_scaled_to_it(tmp_path: Path) -> None:
    """A photo of 1,920 x 1,280 pixels that was annotated at 192 x 128, and is seen at 96 x 64."""
    code = coco_mask.encode(np.asfortranarray(rectangle(16, 20, 80, 100, (128, 192))))
    forms: list[dict[str, Any]] = [{"segmentation": [[20, 16, 100, 16, 100, 80, 20, 80]]}]
    forms += [{"segmentation": {"size": [128, 192], "counts": code["counts"].decode()}}]
    place = coco(tmp_path, [image(1, "1.jpg", 128, 192)], [thing(1, **form) for form in forms])
    (scene,) = Annotations(place, folder=tmp_path / "index").segment_named([photo("1.jpg", 1280, 1920)])
    for segment in scene_of(scene).things:
        assert (segment.mask == CAT).all()


def test_stuff_is_that_of_the_file_and_what_is_no_class_is_left_out(tmp_path: Path) -> None:
    annotations = [thing(1, bbox=BOX), thing(1, category_id=124, bbox=BOX), thing(1, category_id=183, bbox=BOX)]
    labels = Annotations(coco(tmp_path, [image(1, "1.jpg")], annotations), folder=tmp_path / "index")
    scene = scene_of(labels.segment_named([photo("1.jpg")])[0])
    assert [segment.label for segment in scene.segments] == ["cat"]
    assert scene.stuff == {"grass": 1.0}


def test_stuff_comes_from_a_tagger_where_the_files_know_none(tmp_path: Path) -> None:
    sizes: list[int] = []

    def tagger(images: Sequence[Image]) -> list[Segmentation]:
        sizes.append(len(images))
        return [Segmentation(*SIZE, (), {"sand": 0.7}) for _ in images]

    place = coco(tmp_path, [image(1, "1.jpg")], [thing(1, bbox=BOX)], categories=CATEGORIES)
    labels = Annotations(place, folder=tmp_path / "index", tagger=lambda: tagger)
    scene, missing = labels.segment_named([photo("1.jpg"), photo("2.jpg")])
    assert scene_of(scene).stuff == {"sand": 0.7}
    assert isinstance(missing, ImageError)
    assert sizes == [1], "no tags for an image without annotation"


def test_a_panoptic_file_with_its_pictures(tmp_path: Path) -> None:
    numbers = np.where(CAT, 17 + 256 * 3 + 65536, 9).astype(np.uint32)
    rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)
    parts = [{"id": int(numbers[10, 12]), "category_id": 17, "iscrowd": 0}, {"id": 9, "category_id": 2}]
    entry = {"image_id": 1, "file_name": "1.png", "segments_info": parts}
    categories = [{"id": 17, "name": "cat", "isthing": 1}, {"id": 2, "name": "tree-merged", "isthing": 0}]
    place = coco(tmp_path, [image(1, "1.jpg")], [entry], "panoptic_val.json", categories=categories)
    labels = Annotations(place, folder=tmp_path / "index")
    (missing,) = labels.segment_named([photo("1.jpg")])
    assert "panoptic_val/1.png" in str(missing)
    (tmp_path / "panoptic_val").mkdir()
    Pil.fromarray(rgb).save(tmp_path / "panoptic_val" / "1.png")
    scene = scene_of(labels.segment_named([photo("1.jpg")])[0])
    assert [(segment.label, (segment.mask == CAT).all()) for segment in scene.things] == [("cat", True)]
    assert scene.stuff == {"tree-merged": 1.0}


@pytest.mark.parametrize(
    ("file_name", "uri", "found"),
    [
        ("1.jpg", "1.jpg", True),
        ("val2017/1.jpg", "1.jpg", True),
        ("1.jpg", "val2017/1.jpg", True),
        ("../../images/1.jpg", "1.jpg", True),
        ("photos\\1.jpg", "photos/1.jpg", True),
        ("a/1.jpg", "b/1.jpg", False),
        ("11.jpg", "1.jpg", False),
    ],
)
def test_which_image_a_name_means(tmp_path: Path, file_name: str, uri: str, found: bool) -> None:
    labels = Annotations(coco(tmp_path, [image(1, file_name)], [thing(1, bbox=BOX)]), folder=tmp_path / "index")
    (result,) = labels.segment_named([photo(uri)])
    assert isinstance(result, Segmentation) is found
    if not found:
        assert isinstance(result, ImageError)
        assert result.reason == "no_label"


def test_an_exact_name_wins_and_a_doubtful_one_is_a_row(tmp_path: Path) -> None:
    images = [image(1, "a/1.jpg"), image(2, "b/1.jpg"), image(3, "1.png"), image(4, "c/1.png")]
    labels = Annotations(coco(tmp_path, images, [thing(2, bbox=BOX)]), folder=tmp_path / "index")
    scenes = labels.segment_named([photo("b/1.jpg"), photo("1.jpg"), photo("1.png"), photo("c/1.png")])
    assert len(scene_of(scenes[0]).things) == 1
    assert "a/1.jpg, b/1.jpg" in str(scenes[1])
    assert [scene_of(scene).things for scene in scenes[2:]] == [(), ()], "annotated, and nothing is there"


def test_files_of_a_folder_or_a_pattern_are_taken_together(tmp_path: Path) -> None:
    coco(tmp_path / "l", [image(1, "1.jpg")], [thing(1, bbox=BOX)], "instances.json", categories=CATEGORIES)
    coco(tmp_path / "l", [image(1, "1.jpg")], [thing(1, bbox=BOX, category_id=124)], "stuff.json", categories=STUFF)
    for place in ("l", "l/*s*.json"):
        labels = Annotations(str(tmp_path / place), folder=tmp_path / "index")
        scene = scene_of(labels.segment_named([photo("1.jpg")])[0])
        assert ([segment.label for segment in scene.things], scene.stuff) == (["cat"], {"grass": 1.0})
    labels = Annotations(str(tmp_path / "l" / "i*.json"), folder=tmp_path / "index")
    assert not labels.index.has_stuff


def test_parquet_has_a_row_for_each_annotation(tmp_path: Path) -> None:
    rows = {
        "file_name": ["1.jpg", "1.jpg", "2.jpg", "1.jpg"],
        "category": ["cat", "wheelie bin", None, "grass"],
        "bbox": [[float(value) for value in BOX]] * 4,
        "segmentation": [json.dumps(POLYGON), None, None, None],
        "score": [0.5, None, None, 0.9],
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    labels = Annotations(str(tmp_path / "a.parquet"), folder=tmp_path / "index")
    first, second = map(scene_of, labels.segment_named([photo("1.jpg"), photo("2.jpg")]))
    assert [(s.label, s.score, s.area) for s in first.things] == [("cat", 0.5, 1280), ("wheelie bin", 1.0, 1280)]
    assert (first.stuff, second.things, second.stuff) == ({"grass": 0.9}, (), {})
    pq.write_table(pa.table({"file_name": ["1.jpg"]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"b\.parquet cannot be used: it has no column category"):
        Annotations(str(tmp_path / "b.parquet"), folder=tmp_path / "index")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"category_id": 99, "bbox": BOX}, "there is no category 99"),
        ({"segmentation": [[1, 2, 3]]}, "a polygon of 3 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "a number that is none"),
        ({"segmentation": {"size": [*SIZE], "counts": [5, 5]}}, "run lengths of other than 64 x 96"),
        ({"segmentation": {"size": [*SIZE], "counts": "P3Z:"}}, "mask"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, r"run lengths of \[9, 9\]"),
        ({"segmentation": "x"}, "polygon"),
        ({"bbox": [1, 2]}, "ValueError"),
        ({}, "KeyError: 'bbox'"),
    ],
)
def test_a_broken_annotation_is_the_row_of_its_image(tmp_path: Path, body: dict[str, Any], message: str) -> None:
    place = coco(tmp_path, [image(1, "1.jpg"), image(2, "2.jpg")], [thing(1, **body), thing(2, bbox=BOX)])
    broken, whole = Annotations(place, folder=tmp_path / "index").segment_named([photo("1.jpg"), photo("2.jpg")])
    assert isinstance(broken, ImageError)
    assert broken.reason == "label_broken"
    with pytest.raises(ImageError, match=message):
        raise broken
    assert len(scene_of(whole).things) == 1


def test_far_corners_take_no_memory(tmp_path: Path) -> None:
    place = coco(tmp_path, [image(1, "1.jpg")], [thing(1, segmentation=[[-1e9, -1e9, 1e12, 0, 1e12, 1e12, 0, 1e12]])])
    (scene,) = Annotations(place, folder=tmp_path / "index").segment_named([photo("1.jpg")])
    assert scene_of(scene).things[0].area > 0


def test_another_ratio_of_sides_is_a_row(tmp_path: Path) -> None:
    place = coco(tmp_path, [image(1, "1.jpg", 96, 64)], [thing(1, bbox=BOX)])
    (error,) = Annotations(place, folder=tmp_path / "index").segment_named([photo("1.jpg")])
    assert isinstance(error, ImageError)
    assert (error.reason, "64 x 96 pixels, and the image 96 x 64" in str(error)) == ("label_size", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "it is no JSON object"),
        ("", "it ends early"),
        ('{"images": [{"id": 1', "it ends early, or is broken"),
        ('{"images": [x]}', "it ends early, or is broken"),
        ('{"annotations": []}', "it has no annotations"),
        ('{"images": [{"file_name": "1.jpg"}]}', "'id'"),
        ('{"images": [' + "[" * 100_000, "nested too deeply|ends early"),
    ],
)
def test_a_file_that_is_no_coco_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as failure:
        Annotations(str(tmp_path / "a.json"), folder=tmp_path / "index")
    assert "\n" not in str(failure.value)
    assert not list((tmp_path / "index").glob("*.sqlite"))


def test_nothing_there_and_a_class_that_no_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"there is no \.json or \.parquet at"):
        identities(load_config("local", [f"segmenter.model=coco:{tmp_path}/a.json"]))
    categories = [{"id": 17, "name": "wheelie bin"}]
    place = coco(tmp_path, [image(1, "1.jpg")], [thing(1, bbox=BOX)], categories=categories)
    settings = [f"segmenter.model=coco:{place}", "policy.remove=[wheelie bin]"]
    identity = identities(load_config("local", settings))[0]
    assert (identity["name"], len(identity["sha256"] or "")) == (f"coco:{place}", 64)
    with pytest.raises(
        ConfigError, match=r"policy\.remove: there is no class 'wheely bin', did you mean wheelie bin\?"
    ):
        identities(load_config("local", [settings[0], "policy.remove=[wheely bin]"]))


def test_a_file_that_changed_is_indexed_again_and_its_old_index_goes(tmp_path: Path) -> None:
    place = coco(tmp_path, [image(1, "1.jpg")], [thing(1, bbox=BOX)])
    first = Annotations(place, folder=tmp_path / "index").index.sha256
    (before,) = (tmp_path / "index").iterdir()
    stamp = before.stat().st_mtime_ns
    Annotations(place, folder=tmp_path / "index")
    assert before.stat().st_mtime_ns == stamp, "the same files are indexed once"
    coco(tmp_path, [image(1, "2.jpg")], [thing(1, bbox=BOX)], indent=0)
    labels = Annotations(place, folder=tmp_path / "index")
    (after,) = (tmp_path / "index").iterdir()
    assert (after != before, labels.index.sha256 != first) == (True, True)
    assert isinstance(labels.segment_named([photo("2.jpg")])[0], Segmentation)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_elements_are_the_same_whatever_a_read_gives(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk)
    document = {"n": 12345, "a": [{"x": "é]}"}, 1, [2.5, {}]], "s": "t", "b": [], "o": {"a": [9]}, "c": [True, None]}
    text = json.dumps(document, ensure_ascii=False, indent=1).encode()
    read = list(array_elements(io.BytesIO(b"\xef\xbb\xbf" + text + b"\n")))
    assert read == [(key, item) for key, value in document.items() if isinstance(value, list) for item in value]
