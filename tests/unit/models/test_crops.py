"""The crop engine: what changes, what never does, and what the model gets to see."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from occpipe.core.types import Image, Mask
from occpipe.models.inpainters import Inpainter, MaskGrowth, check_fill, grow_mask
from occpipe.models.inpainters.opencv import OpenCvInpainter


class Recorder:
    """Fills with the mean of each crop's known pixels and notes what it was given."""

    def __init__(self, multiple: int = 8, fixed_size: int | None = None, max_side: int = 512) -> None:
        self.multiple = multiple
        self.fixed_size = fixed_size
        self.max_side = max_side
        self.shapes: list[tuple[int, ...]] = []
        self.images: list[NDArray[np.uint8]] = []
        self.masks: list[NDArray[np.uint8]] = []

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert images.dtype == np.uint8
        assert masks.dtype == np.uint8
        assert images.shape[:3] == masks.shape
        self.shapes.append(masks.shape)
        self.images.extend(images)
        self.masks.extend(masks)
        filled = np.zeros_like(images)  # known pixels come back black: the engine must not use them
        for out, image, mask in zip(filled, images, masks, strict=True):
            out[mask == 1] = np.rint(image[mask == 0].mean(0))
        return filled


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def box(height: int, width: int, y: int, x: int, h: int, w: int) -> Mask:
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


HOLES = {
    "centre": box(120, 160, 40, 50, 30, 40),
    "corner": box(120, 160, 0, 0, 20, 25),
    "edge": box(120, 160, 90, 100, 30, 20),
    "one pixel": box(120, 160, 60, 80, 1, 1),
    "stripe across": box(120, 160, 50, 0, 10, 160),
    "all but a column": box(120, 160, 0, 1, 120, 159),
    "specks": (np.random.default_rng(1).random((120, 160)) < 0.02).astype(np.uint8),
}


@pytest.mark.parametrize(
    "model",
    [Recorder(), Recorder(fixed_size=64), Recorder(1), OpenCvInpainter()],
    ids=["any", "fixed", "one", "opencv"],
)
@pytest.mark.parametrize("name", HOLES)
def test_only_the_mask_changes(name: str, model: Recorder | OpenCvInpainter) -> None:
    image, mask = noise(120, 160), HOLES[name]
    before, given = image.copy(), mask.copy()
    filled = Inpainter(model)(image, mask)
    assert filled.shape == image.shape
    assert filled.dtype == np.uint8
    assert (filled[mask == 0] == image[mask == 0]).all()
    assert (filled[mask == 1] != image[mask == 1]).any()
    assert (image == before).all()
    assert (mask == given).all()


def test_an_empty_mask_returns_an_equal_image_without_the_model() -> None:
    model, image = Recorder(), noise(30, 40)
    filled = Inpainter(model)(image, np.zeros((30, 40), np.uint8))
    assert (filled == image).all()
    assert filled is not image
    assert model.shapes == []


def test_what_cannot_be_filled_is_refused_with_the_reason() -> None:
    image, mask = noise(10, 12), np.ones((10, 12), np.uint8)
    fill = Inpainter(Recorder())
    with pytest.raises(ValueError, match="nothing is left to fill from"):
        fill(image, mask)
    with pytest.raises(ValueError, match=r"\(10, 12\), not uint8 \(10, 11\)"):
        fill(image, mask[:, 1:])
    with pytest.raises(ValueError, match="0 and 1 only"):
        fill(image, mask * np.uint8(255) - np.uint8(1))
    with pytest.raises(ValueError, match="RGB uint8"):
        check_fill(image[..., 0], mask)
    with pytest.raises(ValueError, match="not bool"):
        check_fill(image, mask.astype(bool))


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (1, 2), (3, 3), (2, 700)])
@pytest.mark.parametrize(
    "model", [Recorder(), Recorder(fixed_size=64), OpenCvInpainter()], ids=["any", "fixed", "opencv"]
)
def test_tiny_images(size: tuple[int, int], model: Recorder | OpenCvInpainter) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[-1, -1] = 1
    image[-1, -1] = 0
    filled = Inpainter(model, match_seam=False)(image, mask)
    assert (filled[mask == 0] == 90).all()
    assert abs(int(filled[-1, -1, 0]) - 90) <= 4  # Telea overshoots by 2 on a single row


def test_far_holes_get_their_own_crops_and_near_ones_share() -> None:
    far = box(600, 900, 50, 50, 40, 40) | box(600, 900, 500, 800, 40, 40)
    near = box(600, 900, 50, 50, 40, 40) | box(600, 900, 60, 110, 40, 40)
    engine = Inpainter(Recorder())
    assert len(engine.plan(far)) == 2
    (crop,) = engine.plan(near)
    assert crop.hole == (50, 50, 100, 50)
    model = Recorder()
    Inpainter(model)(noise(600, 900), far)
    assert [s[0] for s in model.shapes] == [2]  # one real batch


def test_each_hole_pixel_is_in_exactly_one_crop() -> None:
    rng = np.random.default_rng(3)
    mask = np.zeros((700, 800), np.uint8)
    for _ in range(25):
        y, x = rng.integers(0, 680), rng.integers(0, 780)
        mask[y : y + rng.integers(1, 60), x : x + rng.integers(1, 60)] = 1
    cover = np.zeros_like(mask)
    for crop in Inpainter(Recorder()).plan(mask):
        h, w = crop.hole, crop.window
        cover[h.y : h.y + h.height, h.x : h.x + h.width] += 1
        assert w.x <= h.x
        assert w.y <= h.y
        assert w.x + w.width >= h.x + h.width
        assert w.y + w.height >= h.y + h.height
    assert (cover[mask == 1] == 1).all()


def test_windows_hold_at_least_as_much_context_as_hole() -> None:
    large = {
        "large": box(1000, 1500, 300, 400, 400, 500),
        "large, in a corner": box(1000, 1500, 0, 1000, 400, 500),
        "large, at an edge": box(1000, 1500, 600, 400, 400, 400),
    }
    small = {name: HOLES[name] for name in ("centre", "corner", "edge")}
    for name, mask in (small | large).items():
        for crop in Inpainter(Recorder(max_side=2000)).plan(mask):
            hole, window = crop.hole, crop.window
            assert window.width * window.height >= 2 * hole.width * hole.height, name


def test_sides_are_multiples_and_padding_mirrors() -> None:
    mask = box(75, 101, 20, 20, 30, 30)
    model, image = Recorder(), noise(75, 101) * (1 - mask)[..., None]
    Inpainter(model)(image, mask)
    ((_, height, width),) = model.shapes
    assert (height, width) == (96, 128)
    (seen,) = model.images
    assert (seen[:75, :101] == image).all()
    assert (seen[75:, :101] == image[:-22:-1]).all()
    assert (seen[:75, 101:] == image[:, :-28:-1]).all()


def test_a_large_window_is_filled_downscaled_and_only_its_hole_replaced() -> None:
    image = np.full((900, 1500, 3), 60, np.uint8)
    mask = box(900, 1500, 200, 300, 500, 600)
    image[mask == 1] = 250
    model = Recorder(max_side=256)
    filled = Inpainter(model, match_seam=False)(image, mask)
    assert max(model.shapes[0]) <= 256
    (seen,), (hole,) = model.images, model.masks
    assert (seen[hole == 0] == 60).all()  # nothing of the thing leaks into what the model takes for known
    assert (filled == 60).all()


def test_a_fixed_size_gets_true_context_before_padding() -> None:
    mask = box(300, 400, 100, 100, 10, 10)
    model, image = Recorder(fixed_size=128), noise(300, 400) * (1 - mask)[..., None]
    Inpainter(model)(image, mask)
    assert model.shapes == [(1, 128, 128)]
    (seen,) = model.images
    assert any((seen == image[y : y + 128, x : x + 128]).all() for y in range(40, 52) for x in range(40, 52))


def test_many_images_equal_one_by_one() -> None:
    images = [noise(120, 160, 1), noise(200, 90, 2), noise(120, 160, 3), noise(64, 64, 4)]
    masks = [
        HOLES["centre"],
        box(200, 90, 80, 20, 40, 30),
        np.roll(HOLES["centre"], 9, axis=1) | HOLES["corner"],
        np.zeros((64, 64), np.uint8),
    ]
    model = Recorder()
    together = Inpainter(model, batch_size=3).fill_many(images, masks)
    assert max(s[0] for s in model.shapes) > 1
    for image, mask, filled in zip(images, masks, together, strict=True):
        assert (Inpainter(Recorder())(image, mask) == filled).all()


def test_batches_are_bounded_by_pixels() -> None:
    model = Recorder(max_side=1024)
    mask = box(1024, 1024, 100, 100, 600, 600)
    Inpainter(model, batch_size=8).fill_many([noise(1024, 1024)] * 3, [mask] * 3)
    assert [s[0] for s in model.shapes] == [2, 1]


@pytest.mark.parametrize(("size", "radius"), [((512, 768), 19), ((3000, 4000), 104), ((10, 10), 1)])
def test_growth_follows_the_image_size(size: tuple[int, int], radius: int) -> None:
    assert MaskGrowth().radius(*size) == radius
    mask = box(*size, size[0] // 2, size[1] // 2, 1, 1)
    grown = grow_mask(mask, MaskGrowth())
    x, y, w, h = cv2.boundingRect(grown)
    assert (w, h) == (2 * radius + 1, 2 * radius + 1)
    assert grown.sum() < w * h or radius == 1  # a disc, not a box
    assert grown[y + h // 2, x + w // 2] == 1


def test_the_growth_of_the_paper() -> None:
    mask = box(60, 70, 20, 20, 5, 5)
    paper = cv2.dilate(mask, np.ones((5, 5), np.uint8), iterations=3)
    assert (grow_mask(mask, MaskGrowth(pixels=2, iterations=3, square=True)) == paper).all()
    assert paper.sum() == 17 * 17


def test_growth_of_nothing_and_by_nothing() -> None:
    empty, mask = np.zeros((9, 9), np.uint8), box(9, 9, 3, 3, 2, 2)
    assert not grow_mask(empty, MaskGrowth(pixels=3)).any()
    assert (grow_mask(mask, MaskGrowth(fraction=0)) == mask).all()
    assert (grow_mask(mask, MaskGrowth(pixels=0)) == mask).all()


class Copier(Recorder):
    """Records which things it must not copy from."""

    def __init__(self) -> None:
        super().__init__()
        self.things: list[Mask] = []

    def fill_beside(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], things: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        self.things.extend(things)
        return self.fill(images, masks)


def test_things_beside_a_hole_are_barred_and_those_around_it_are_not() -> None:
    image, hole = noise(200, 200), box(200, 200, 80, 80, 40, 40)
    beside, around = box(200, 200, 80, 120, 40, 30), box(200, 200, 40, 40, 120, 120)
    model = Copier()
    engine = Inpainter(model)
    engine(image, hole, beside)
    engine(image, hole, around)
    engine(image, hole)
    shirt = box(200, 200, 40, 40, 120, 70)  # around one hole, beside the other
    engine(image, hole & box(200, 200, 80, 80, 20, 20) | box(200, 200, 80, 112, 40, 40), shirt)
    first, second, third, fourth = (int(thing.sum()) for thing in model.things)
    assert fourth == 0
    assert first == beside.sum()
    assert second == third == 0
    assert (engine(image, hole, beside) == Inpainter(Recorder())(image, hole, beside)).all()  # others are not asked


def test_a_hole_of_which_every_pixel_has_the_same_share_is_filled() -> None:
    model, image = Recorder(max_side=100), noise(400, 400)
    mask = np.zeros((400, 400), np.uint8)
    mask[::2, ::2] = 1
    filled = Inpainter(model, match_seam=False)(image, mask)
    assert model.masks[0].any()
    assert (filled[mask == 0] == image[mask == 0]).all()


def test_batches_that_are_filled_side_by_side_give_the_same_pixels() -> None:
    """Each in a thread with its share of the cores; what is copied of a photo does not depend on its neighbours."""
    images = [noise(120 + 10 * n, 160, seed=n) for n in range(5)]
    masks = [box(120 + 10 * n, 160, 40, 50, 30 + n, 40) for n in range(5)]
    alone = Inpainter(OpenCvInpainter()).fill_many(images, masks)
    together = Inpainter(OpenCvInpainter(), workers=3).fill_many(images, masks)
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    with pytest.raises(ValueError, match="covers the whole image"):
        Inpainter(OpenCvInpainter(), workers=3).fill_many(images, [*masks[:-1], np.ones_like(masks[-1])])
