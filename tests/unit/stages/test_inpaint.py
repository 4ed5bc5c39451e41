"""The inpaint stage on rows as relate leaves them, without Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from occpipe.api import Cleaner
from occpipe.core.config_file import load_config
from occpipe.core.masks import Rle, rle_decode, scale_up
from occpipe.core.schemas import PIPELINE
from occpipe.core.types import Image, Mask, Segment, Segmentation
from occpipe.io.images import Limits, decode
from occpipe.models.inpainters import Inpainter
from occpipe.models.inpainters.opencv import OpenCvInpainter
from occpipe.stages.inpaint import InpaintStage
from tests.helpers.scenes import encoded, gradient
from tests.unit.models.test_shadow import SHAPE, dark, darkened, ground, thing

MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def make_row(tmp_path: Path) -> MakeRow:
    """Writes a picture, and gives its row with what is to be filled and a thing that stays."""

    def make(picture: Image, mask: Mask | None, kept: Mask | None = None, name: str = "a.png") -> dict[str, Any]:
        data = encoded(picture, "PNG")
        (tmp_path / name).write_bytes(data)
        box = {"x": 0, "y": 0, "width": 1, "height": 1}
        thing = {"score": 0.9, "area": 1, "bbox": box, "relation": 0.9, "evidence": []}
        thing |= {"verdict": "keep", "reason": "related"}
        seen = () if kept is None else (thing | {"label": "dog", "mask": rle(kept)},)
        small = picture.shape if mask is None else mask.shape
        row = {"uri": name, "size": len(data), "etag": "", "sha256": hashlib.sha256(data).hexdigest()}
        row |= {"height": picture.shape[0], "width": picture.shape[1], "objects": list(seen)}
        row |= {"mask_height": small[0], "mask_width": small[1], "mask": None, "removed": 0.0}
        if mask is None:
            return row | {"status": "unchanged"}
        return row | {"mask": rle(mask), "removed": float(mask.mean()), "status": None}

    return make


def rle(mask: Mask) -> str:
    return Rle.encode(mask).counts.decode("ascii")


def table(*rows: dict[str, Any]) -> pa.Table:
    names = (*rows[0], "reason", "error")
    return pa.table({name: pa.array([row.get(name) for row in rows], PIPELINE[name]) for name in names})


def stage_of(folder: Path, *settings: str) -> InpaintStage:
    return InpaintStage(load_config("local", settings), str(folder), Inpainter(OpenCvInpainter()))


def cleaned(folder: Path, row: dict[str, Any], *settings: str) -> tuple[Image, Mask, float]:
    (made,) = stage_of(folder, *settings)(table(row)).to_pylist()
    assert made["status"] == "cleaned", made["error"]
    mask = rle_decode(Rle(row["mask_height"], row["mask_width"], made["mask"].encode("ascii")))
    return decode(made["data"], Limits()), mask, made["removed"]


@pytest.mark.parametrize("shadow", ["false", "true"])
def test_the_shadow_goes_where_it_is_asked_to(shadow: str, make_row: MakeRow, tmp_path: Path) -> None:
    scene = darkened(ground(), dark(), 0.5)
    scene[thing() == 1] = (200, 40, 40)
    picture, mask, removed = cleaned(tmp_path, make_row(scene, thing()), f"inpainter.shadow={shadow}")
    middle = dark() & (1 - mask) if shadow == "false" else dark()
    brightness = picture[middle == 1].mean() / ground()[middle == 1].mean()
    assert brightness == pytest.approx(0.5 if shadow == "false" else 1.0, abs=0.15)
    assert (mask & dark()).any() == (shadow == "true")
    assert removed == pytest.approx(mask.mean())
    assert (picture[mask == 0] == scene[mask == 0]).all()


def test_a_shadow_on_a_kept_thing_stays(make_row: MakeRow, tmp_path: Path) -> None:
    scene = darkened(ground(), dark(), 0.5)
    kept = np.zeros(SHAPE, np.uint8)
    kept[150:200, 190:240] = 1
    picture, mask, _ = cleaned(tmp_path, make_row(scene, thing(), kept), "inpainter.shadow=true")
    assert (mask & dark() & (1 - kept)).any()
    assert not (mask & kept).any()
    assert (picture[kept == 1] == scene[kept == 1]).all()


def test_one_image_in_python_is_cleaned_as_a_job_does_it(make_row: MakeRow, tmp_path: Path) -> None:
    scene = darkened(ground(), dark(), 0.5)
    scene[thing() == 1] = (200, 40, 40)
    kept = np.zeros(SHAPE, np.uint8)
    kept[150:200, 190:240] = 1
    settings = ("inpainter.model=telea", "inpainter.shadow=true", "inpainter.dilation=0", "policy.remove=[cat]")
    cleaner = Cleaner(load_config("local", settings))
    segments = (Segment.from_mask("cat", True, 0.9, thing()), Segment.from_mask("person", True, 0.9, kept))
    result = cleaner.apply(scene, Segmentation(*SHAPE, segments, {}))
    _, mask, _ = cleaned(tmp_path, make_row(scene, thing(), kept), "inpainter.shadow=true")
    assert (mask & dark()).any()
    assert (result.mask == mask).all()


def disc(side: int, row: int, column: int, radius: int) -> Mask:
    y, x = np.mgrid[0:side, 0:side]
    return np.asarray((y - row) ** 2 + (x - column) ** 2 < radius**2, np.uint8)


def test_a_small_mask_is_scaled_up_to_the_image(make_row: MakeRow, tmp_path: Path) -> None:
    scene = gradient(400, 400)
    scene[disc(400, 200, 150, 40) == 1] = (250, 0, 0)
    small = disc(100, 50, 37, 13)
    picture, mask, removed = cleaned(tmp_path, make_row(scene, small))
    assert (mask == small).all(), "the row keeps the mask at the size at which it was seen"
    assert removed == pytest.approx(small.mean())
    hole = scale_up(small, 400, 400)
    assert (picture[hole == 0] == scene[hole == 0]).all()
    assert (picture[disc(400, 200, 150, 40) == 1, 0] < 250).all(), "nothing of the disc is left"


def test_a_small_mask_grows_by_its_shadow(make_row: MakeRow, tmp_path: Path) -> None:
    scene = darkened(ground(), dark(), 0.5)
    scene[thing() == 1] = (200, 40, 40)
    size = SHAPE[1] // 2, SHAPE[0] // 2
    small = np.asarray(cv2.resize(thing(), size, interpolation=cv2.INTER_NEAREST), np.uint8)
    picture, mask, removed = cleaned(tmp_path, make_row(scene, small), "inpainter.shadow=true")
    assert mask.shape == small.shape
    assert (mask & small == small).all()
    shadow = scale_up(mask & (1 - small), *SHAPE)
    assert (shadow & dark()).sum() > 0.7 * dark().sum()
    assert removed == pytest.approx(mask.mean())
    assert picture[dark() == 1].mean() / ground()[dark() == 1].mean() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("label", ["dog", "person"])
def test_a_scaled_hole_does_not_reach_into_what_is_protected(label: str, make_row: MakeRow, tmp_path: Path) -> None:
    small, kept = np.zeros((60, 90), np.uint8), np.zeros((60, 90), np.uint8)
    kept[20:40, 50:70] = 1
    small[15:45, 20:50], small[15:20, 50:75] = 1, 1  # around its corner, as after a growth that was cut
    row = make_row(gradient(300, 450), small, kept)
    row["objects"][0]["label"] = label
    holes: list[Mask] = []
    things: list[Mask] = []
    stage = stage_of(tmp_path)
    fill = stage.model

    def spy(images: list[Image], masks: list[Mask], beside: list[Mask]) -> list[Image]:
        holes.extend(masks)
        things.extend(beside)
        return fill(images, masks, beside)

    stage.model = spy
    (made,) = stage(table(row)).to_pylist()
    assert made["status"] == "cleaned"
    assert not (holes[0] & things[0]).any()
    assert holes[0].sum() == pytest.approx(25 * small.sum(), rel=0.02)
    assert (things[0] == scale_up(kept, 300, 450)).all() == (label == "person")


def test_other_bytes_than_those_that_were_seen_are_not_filled(make_row: MakeRow, tmp_path: Path) -> None:
    row = make_row(gradient(60, 90), np.pad(np.ones((9, 9), np.uint8), ((9, 42), (9, 72))))
    (tmp_path / "a.png").write_bytes(encoded(gradient(60, 90)[::-1].copy(), "PNG"))
    gone = row | {"uri": "gone.png"}
    rows = stage_of(tmp_path)(table(row, gone)).to_pylist()
    assert [r["reason"] for r in rows] == ["source_changed", "missing"]
    assert {r["error"]["stage"] for r in rows} == {"inpaint"}
    assert [r["data"] for r in rows] == [None, None]


def test_photos_are_opened_some_at_a_time(make_row: MakeRow, tmp_path: Path) -> None:
    mask = np.pad(np.ones((9, 9), np.uint8), ((9, 42), (9, 72)))
    rows = [make_row(gradient(60, 90), mask if n % 2 else None, name=f"{n}.png") for n in range(10)]
    stage, sizes = stage_of(tmp_path, "placement.inpaint.batch_size=2"), []
    fill = stage.model

    def spy(images: list[Image], masks: list[Mask], things: list[Mask]) -> list[Image]:
        sizes.append(len(images))
        return fill(images, masks, things)

    stage.model = spy
    made = stage(table(*rows)).to_pylist()
    assert sizes == [2, 2, 1]
    assert [r["status"] for r in made] == ["unchanged", "cleaned"] * 5
    assert [r["data"] is None for r in made] == [True, False] * 5


def test_a_picture_that_is_there_stays(make_row: MakeRow, tmp_path: Path) -> None:
    batch = table(make_row(gradient(60, 90), None)).append_column("data", pa.array([b"of before"], PIPELINE["data"]))
    assert stage_of(tmp_path)(batch).column("data").to_pylist() == [b"of before"]


def test_the_model_is_loaded_for_the_first_photo_that_needs_it(
    make_row: MakeRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def load(config: Any, *, workers: int) -> Inpainter:
        loads.append(config.inpainter.model)
        return Inpainter(OpenCvInpainter())

    monkeypatch.setattr("occpipe.stages.inpaint.load_inpainter", load)
    monkeypatch.setattr("occpipe.stages.inpaint.set_threads", lambda *_, **__: 1)
    stage = InpaintStage(load_config(), str(tmp_path))
    stage(table(make_row(gradient(60, 90), None)))
    assert loads == []
    mask = np.pad(np.ones((9, 9), np.uint8), ((9, 42), (9, 72)))
    for _ in range(2):
        stage(table(make_row(gradient(60, 90), mask)))
    assert loads == ["starter"]
    InpaintStage(load_config("local", ["placement.inpaint.num_gpus=0.5"]), str(tmp_path))
    assert loads == ["starter"] * 2, "on a GPU at once"
