"""The inpaint stage on rows as relate leaves them, without Ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from occpipe.api import Cleaner
from occpipe.config_file import load_config
from occpipe.images import Limits, decode
from occpipe.inpainters import Inpainter
from occpipe.inpainters.opencv import OpenCvInpainter
from occpipe.masks import Rle, rle_decode
from occpipe.schemas import PIPELINE
from occpipe.stages.inpaint import InpaintStage
from occpipe.types import Image, Mask, Segment, Segmentation
from tests.scenes import encoded
from tests.test_shadow import SHAPE, dark, darkened, ground, thing

Kept = tuple[str, Mask]


def rle(mask: Mask) -> str:
    return Rle.encode(mask).counts.decode("ascii")


def table(picture: Image, mask: Mask, kept: Mask | None = None) -> pa.Table:
    """One row with a mask, and a kept thing where one is given."""
    objects: list[dict[str, Any]] = []
    if kept is not None:
        box = {"x": 0, "y": 0, "width": 1, "height": 1}
        objects = [
            {"label": "dog", "score": 0.9, "area": int(kept.sum()), "bbox": box, "mask": rle(kept), "relation": 0.9}
            | {"verdict": "keep", "reason": "related", "evidence": []}
        ]
    row = {"data": encoded(picture, "PNG"), "mask": rle(mask), "removed": float(mask.mean()), "objects": objects}
    row |= {"height": SHAPE[0], "width": SHAPE[1], "status": None, "reason": None, "error": None}
    return pa.table({name: pa.array([value], PIPELINE[name]) for name, value in row.items()})


def cleaned(batch: pa.Table, *settings: str) -> tuple[Image, Mask, float]:
    stage = InpaintStage(load_config("local", settings), Inpainter(OpenCvInpainter()))
    (row,) = stage(batch).to_pylist()
    assert row["status"] == "cleaned"
    mask = rle_decode(Rle(*SHAPE, row["mask"].encode("ascii")))
    return decode(row["data"], Limits()), mask, row["removed"]


@pytest.mark.parametrize("shadow", ["false", "true"])
def test_the_shadow_goes_where_it_is_asked_to(shadow: str) -> None:
    scene = darkened(ground(), dark(), 0.5)
    scene[thing() == 1] = (200, 40, 40)
    picture, mask, removed = cleaned(table(scene, thing()), f"inpainter.shadow={shadow}")
    middle = dark() & (1 - mask) if shadow == "false" else dark()
    brightness = picture[middle == 1].mean() / ground()[middle == 1].mean()
    assert brightness == pytest.approx(0.5 if shadow == "false" else 1.0, abs=0.15)
    assert (mask & dark()).any() == (shadow == "true")
    assert removed == pytest.approx(mask.mean())
    assert (picture[mask == 0] == scene[mask == 0]).all()


def test_a_shadow_on_a_kept_thing_stays() -> None:
    scene = darkened(ground(), dark(), 0.5)
    kept = np.zeros(SHAPE, np.uint8)
    kept[150:200, 190:240] = 1
    picture, mask, _ = cleaned(table(scene, thing(), kept), "inpainter.shadow=true")
    assert (mask & dark() & (1 - kept)).any()
    assert not (mask & kept).any()
    assert (picture[kept == 1] == scene[kept == 1]).all()


def test_one_image_in_python_is_cleaned_as_a_job_does_it() -> None:
    scene = darkened(ground(), dark(), 0.5)
    scene[thing() == 1] = (200, 40, 40)
    kept = np.zeros(SHAPE, np.uint8)
    kept[150:200, 190:240] = 1
    settings = ("inpainter.model=telea", "inpainter.shadow=true", "inpainter.dilation=0", "policy.remove=[cat]")
    cleaner = Cleaner(load_config("local", settings))
    segments = (Segment.from_mask("cat", True, 0.9, thing()), Segment.from_mask("person", True, 0.9, kept))
    result = cleaner.apply(scene, Segmentation(*SHAPE, segments, {}))
    _, mask, _ = cleaned(table(scene, thing(), kept), "inpainter.shadow=true")
    assert (mask & dark()).any()
    assert (result.mask == mask).all()
