from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from occpipe.core.masks import (
    Rle,
    distances,
    regions,
    rescale_rle,
    resize_mask,
    rle_decode,
    scale_down,
    scale_up,
    union,
)
from occpipe.core.types import Box, Segment, Segmentation


def disc(height: int = 60, width: int = 90, radius: int = 20) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    mask: np.ndarray = ((y - 30) ** 2 + (x - 40) ** 2 < radius**2).astype(np.uint8)
    return mask


@pytest.mark.parametrize("mask", [disc(), np.zeros((5, 7), np.uint8), np.ones((5, 7), np.uint8)])
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = Rle.encode(mask)
    assert np.array_equal(rle_decode(rle), mask)
    assert rle.area == mask.sum()


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)))
def test_masks_of_ours_are_masks(mask: np.ndarray) -> None:
    Rle.encode(mask).check()


@given(st.binary(max_size=60) | st.text("0123456789:;<=>?@PQRSTUVWXYZ_`abcdefghijklmno", max_size=40).map(str.encode))
def test_what_passes_as_a_mask_is_one(counts: bytes) -> None:
    """Whatever is let through says what each pixel is, and is coded as we would code it but for runs of no length."""
    rle = Rle(7, 9, counts)
    try:
        rle.check()
    except ValueError:
        return
    assert rle_decode(rle).shape == (7, 9)
    assert rle.area == rle_decode(rle).sum()


@pytest.mark.parametrize("counts", [b"", b"0", b"o1", b"z", b"``````", b"PPPPPPPPPPPPPPPP0", b"oooooooo?", b"\xff"])
def test_what_is_no_mask_is_refused(counts: bytes) -> None:
    with pytest.raises(ValueError, match="a mask"):
        Rle(60, 90, counts).check()
    with pytest.raises(ValueError, match="not have 60 x 91 pixels"):
        Rle(60, 91, Rle.encode(disc()).counts).check()


def test_union() -> None:
    left, right = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    left[:, :2], right[:, 1:3] = 1, 1
    merged = union([Rle.encode(left), Rle.encode(right)])
    assert merged is not None
    assert np.array_equal(rle_decode(merged), left | right)
    assert union([]) is None


def test_resizing_keeps_the_shape() -> None:
    large = rle_decode(rescale_rle(Rle.encode(disc()), 240, 360))
    expected = np.kron(disc(), np.ones((4, 4), np.uint8))
    assert (large & expected).sum() / (large | expected).sum() > 0.97


def test_segment_measures_its_mask() -> None:
    segment = Segment.from_mask("cat", True, 0.5, disc())
    assert segment.bbox == Box(21, 11, 39, 39)
    assert segment.area == disc().sum()


def test_resized_segmentation_drops_what_vanishes() -> None:
    speck = np.zeros((60, 90), np.uint8)
    speck[0, 0] = 1
    scene = Segmentation(
        60, 90, (Segment.from_mask("cat", True, 0.9, disc()), Segment.from_mask("cup", True, 0.9, speck)), {"sky": 0.5}
    )
    small = scene.resized(12, 18)
    assert [s.label for s in small.segments] == ["cat"]
    assert (small.height, small.width, small.stuff) == (12, 18, {"sky": 0.5})
    assert scene.resized(60, 90) is scene


def test_regions_split_things_drop_specks_and_fill_small_holes() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:25, 5:25] = 1
    mask[10:12, 10:12] = 0  # a hole of 4 pixels
    mask[5:25, 35:55] = 1
    mask[10:20, 40:50] = 0  # a hole of 100 pixels
    mask[35, 5:8] = 1  # a speck
    things = regions(mask, 20, split=True)
    assert sorted(int(m.sum()) for m in things) == [300, 400]
    assert [int(m.sum()) for m in regions(mask, 20, split=False)] == [700]
    assert regions(np.zeros((8, 8), np.uint8), 20, split=True) == []


def test_scaled_to_its_own_size_a_mask_is_itself() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (60, 90)).astype(np.uint8)
    assert np.array_equal(scale_up(mask, 60, 90), mask)
    assert rescale_rle(Rle.encode(mask), 60, 90) == Rle.encode(mask)
    assert np.array_equal(scale_down(mask, 60, 90), mask)


@pytest.mark.parametrize(("height", "width"), [(240, 360), (90, 135), (700, 1000)])
def test_a_scaled_mask_is_smooth_and_keeps_its_share(height: int, width: int) -> None:
    small, factor = disc(), width / 90
    y, x = np.mgrid[0:height, 0:width]
    down, right = height / 60, width / 90
    truth = ((y + 0.5) / down - 30.5) ** 2 + ((x + 0.5) / right - 40.5) ** 2 < 20**2
    large = scale_up(small, height, width)
    assert large.sum() / (down * right) == pytest.approx(small.sum(), rel=0.01)
    wrong = (large != truth).sum()
    stairs = (resize_mask(small, height, width) != truth).sum()
    assert wrong < 0.8 * stairs if factor > 2 else wrong <= 1.2 * stairs
    assert np.array_equal(scale_down(large, 60, 90), small) or (scale_down(large, 60, 90) != small).mean() < 0.01


def test_thin_and_small_things_do_not_vanish_when_they_are_scaled() -> None:
    line, speck = np.zeros((60, 90), np.uint8), np.zeros((60, 90), np.uint8)
    line[30] = 1
    speck[30:33, 40:43] = 1
    assert int(scale_up(line, 240, 360).sum()) == pytest.approx(16 * 90, rel=0.05)
    assert int(scale_up(speck, 240, 360).sum()) == pytest.approx(16 * 9, rel=0.1)
    assert not scale_up(np.zeros((60, 90), np.uint8), 240, 360).any()
    assert scale_up(np.ones((60, 90), np.uint8), 240, 360).all()


def test_area_and_box_of_a_thing_in_an_image_of_another_size() -> None:
    segment = Segment.from_mask("cat", True, 0.5, disc())
    assert segment.at(60, 90) == (segment.area, segment.bbox)
    assert segment.at(120, 180) == (4 * segment.area, Box(42, 22, 78, 78))
    large = segment.resized(150, 225)
    area, box = segment.at(150, 225)
    assert area == pytest.approx(large.area, rel=0.01)
    assert np.abs(np.subtract(box, large.bbox)).max() <= 2


def test_distances_are_equal_bits_wherever_the_mask_lies_in_memory() -> None:
    mask = disc(214, 320, 60)
    results = set()
    for offset in range(40):
        buffer = np.empty(mask.size + 64, np.uint8)
        placed = buffer[offset % 16 :][: mask.size].reshape(mask.shape)
        placed[:] = mask
        results.add(distances(placed).tobytes())
    assert len(results) == 1


def test_distances_go_to_the_nearest_pixel_that_is_0() -> None:
    mask = np.ones((9, 9), np.uint8)
    mask[0, 0] = 0
    y, x = np.mgrid[0:9, 0:9]
    assert np.array_equal(distances(mask), np.sqrt(y**2 + x**2).astype(np.float32))
