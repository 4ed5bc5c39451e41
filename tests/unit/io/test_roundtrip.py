"""A generated collection through a removal: nothing shows what was removed, what is kept stays, losses have names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from occpipe.io.images import decode, encode_like
from tests.roundtrip.collection import LIMITS, Sample, other_pictures, samples, trip
from tests.roundtrip.table import cells, table

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LOSSY = ("JPEG", "WebP lossy", "TIFF jpeg")
EDGE = 40
"""Pixels around a hole that a lossy encoder may change: a block of chroma at the coarsest sampling, smoothed."""
each_sample = pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.id)


def test_the_collection_is_large_and_no_file_is_twice_in_it() -> None:
    assert len({sample.data for sample in samples()}) == len({sample.id for sample in samples()}) >= 200


@each_sample
def test_no_other_picture_is_left(sample: Sample) -> None:
    assert other_pictures(trip(sample).data) == []


@each_sample
def test_pixels_outside_the_hole_stay(sample: Sample) -> None:
    made = trip(sample)
    assert np.abs(made.after[made.hole == 1].astype(int) - made.before[made.hole == 1]).mean() > 5
    if not sample.id.startswith(LOSSY):
        assert (made.after[made.hole == 0] == made.before[made.hole == 0]).all()
        return
    y, x = np.nonzero(made.hole)
    far = np.ones(made.hole.shape, bool)
    far[max(0, y.min() - EDGE) : y.max() + EDGE, max(0, x.min() - EDGE) : x.max() + EDGE] = False
    again = decode(encode_like(made.before, sample.data, LIMITS), LIMITS)
    own_error = np.abs(again.astype(int) - made.before)[far]
    error = np.abs(made.after.astype(int) - made.before)[far]
    if sample.format == "JPEG":
        assert (error == own_error).all(), "blocks are coded apart from one another"
    assert error.mean() <= own_error.mean() * 1.1 + 0.05
    assert own_error.mean() < 2
    assert abs((again.astype(int) - made.before)[far].mean()) < 0.4, "neither darker nor brighter"


def test_nothing_is_lost_silently() -> None:
    silent = {
        f"{name}, {fmt}: {outcome}"
        for name, formats in cells().items()
        for fmt, seen in formats.items()
        for outcome in seen
        if outcome not in ("kept", "named")
    }
    assert silent == set()


def test_the_table_of_the_docs_is_that_of_the_round_trips() -> None:
    page = (Path(__file__).parents[3] / "docs" / "metadata.md").read_text(encoding="utf-8")
    assert page.partition("<!-- table -->\n")[2].partition("<!-- end of the table -->")[0].strip() == table().strip()
