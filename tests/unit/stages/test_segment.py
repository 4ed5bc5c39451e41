"""segment: how many photos the model sees at once, what goes on of what it saw, and what becomes of broken rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch

from occpipe.core.config_file import load_config
from occpipe.core.masks import Rle
from occpipe.core.schemas import PIPELINE
from occpipe.core.types import Image, Segment, Segmentation
from occpipe.stages.segment import SegmentStage


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


def batch_of(levels: list[int | None], status: str | None = None) -> pa.Table:
    """Rows of 48 x 40 grey pixels; None is a row of too few bytes."""
    pixels = [b"few" if level is None else bytes([level]) * (40 * 48 * 3) for level in levels]
    columns = {"pixels": pixels, "mask_width": [48] * len(levels), "mask_height": [40] * len(levels)}
    columns |= {"status": [status] * len(levels)}
    return pa.table({name: pa.array(values, PIPELINE[name]) for name, values in columns.items()})


def test_the_model_sees_batches_in_order_whatever_the_block_holds() -> None:
    batch = batch_of([0, 1, 2, 3, None, *range(5, 10)])
    seen = Recorder()
    rows = SegmentStage(load_config("local", ["placement.segment.batch_size=4"]), seen)(batch)
    assert seen.seen == [[0, 1, 2, 3], [5, 6, 7], [8, 9]]
    assert rows.column("status").to_pylist() == [None] * 4 + ["error"] + [None] * 5
    assert rows.column("reason")[4].as_py() == "stage_failed"
    confidences = [stuff and stuff[0]["confidence"] * 255 for stuff in rows.column("stuff").to_pylist()]
    assert confidences == pytest.approx([0, 1, 2, 3, None, 5, 6, 7, 8, 9])
    assert "pixels" not in rows.column_names


def test_pixels_are_the_model_s_own() -> None:
    """Torch warns of read-only memory, which is what Arrow hands out."""

    def write(images: Sequence[Image]) -> list[Segmentation]:
        for image in images:
            assert image.shape == (40, 48, 3)
            image[0, 0, 0] += 1
        return [Segmentation(40, 48) for _ in images]

    batch = batch_of([7])
    rows = SegmentStage(load_config(), write)(batch)
    assert rows.column("status").to_pylist() == [None]
    assert batch.column("pixels")[0].as_py()[0] == 7


def test_things_go_on_with_their_masks_and_stuff_with_its_confidence() -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[5:15, 10:30] = 1
    cat, grass = Segment.from_mask("cat", True, 0.75, mask), Segment.from_mask("grass", False, 0.5, 1 - mask)
    scene = Segmentation(40, 48, (grass, cat), {"sky-other": 0.25, "grass": 0.5})
    (row,) = SegmentStage(load_config(), lambda _: [scene])(batch_of([0])).to_pylist()
    classes = [{"label": "cat", "probability": 0.75}]
    seen = {"label": "cat", "score": 0.75, "thing": 0.75, "classes": classes, "mask": Rle.encode(mask).counts.decode()}
    assert row["segments"] == [seen]
    assert row["stuff"] == [{"label": "grass", "confidence": 0.5}, {"label": "sky-other", "confidence": 0.25}]


def test_nothing_open_is_nothing_to_do() -> None:
    seen = Recorder()
    assert SegmentStage(load_config(), seen)(batch_of([1], "error")).column("stuff").to_pylist() == [None]
    assert seen.seen == []
