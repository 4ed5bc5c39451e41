"""segment: how many photos the model sees at once, and what becomes of one that cannot be decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image as Pil

from occpipe.config_file import load_config
from occpipe.schemas import PIPELINE
from occpipe.stages.segment import SegmentStage
from occpipe.types import Image, Segmentation


class Recorder:
    """A segmenter that sees nothing, and notes the grey of the photos that it was given together."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        self.seen.append([int(image[0, 0, 0]) for image in images])
        return [Segmentation(40, 48, (), {"sky-other": image[0, 0, 0] / 255}) for image in images]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def grey(level: int) -> bytes:
    data = io.BytesIO()
    Pil.fromarray(np.full((40, 48, 3), level, np.uint8)).save(data, "PNG")
    return data.getvalue()


def test_the_model_sees_batches_in_order_whatever_the_task_holds() -> None:
    photos = [grey(level) for level in range(10)]
    photos[4] = b"no photo"
    batch = pa.table({"data": pa.array(photos, PIPELINE["data"]), "status": pa.nulls(10, pa.string())})
    seen = Recorder()
    rows = SegmentStage(load_config("local", ["placement.segment.batch_size=4"]), seen)(batch)
    assert seen.seen == [[0, 1, 2, 3], [5, 6, 7], [8, 9]]
    assert rows.column("status").to_pylist() == [None] * 4 + ["error"] + [None] * 5
    assert rows.column("reason")[4].as_py() == "not_an_image"
    confidences = [stuff and stuff[0]["confidence"] * 255 for stuff in rows.column("stuff").to_pylist()]
    assert confidences == pytest.approx([0, 1, 2, 3, None, 5, 6, 7, 8, 9])
    assert rows.column("height").to_pylist() == [40] * 4 + [None] + [40] * 5


def test_nothing_open_is_nothing_to_do() -> None:
    batch = pa.table({"data": pa.array([b""], PIPELINE["data"]), "status": ["error"]})
    seen = Recorder()
    assert SegmentStage(load_config(), seen)(batch).column("stuff").to_pylist() == [None]
    assert seen.seen == []
