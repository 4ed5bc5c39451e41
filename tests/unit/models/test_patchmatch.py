"""One scale of the patch fill: what a patch holds, which source is nearest, and what patches vote for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from occpipe.models.inpainters.patchmatch import RADIUS, PatchLevel, row_map, vote

SIZE = (23, 31)
HOLE = np.s_[0:9, 10:19]  # at the upper edge


def level() -> PatchLevel:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (*SIZE, 5)).astype(np.float32))
    hole = torch.zeros(SIZE, dtype=torch.bool)
    hole[HOLE] = True
    return PatchLevel(image, hole, (240.0, 60.0), torch.Generator().manual_seed(0))


def colours(image: NDArray[np.float32], y: int, x: int) -> NDArray[np.float32]:
    """The 7 x 7 colours around a pixel, continued at the edge of the image."""
    wide = np.pad(image[..., :3], ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="edge")
    return wide[y : y + 2 * RADIUS + 1, x : x + 2 * RADIUS + 1].ravel()


def test_a_patch_is_what_lies_around_its_pixel() -> None:
    one = level()
    image = one.image.numpy()
    places = [(0, 0), (0, 30), (22, 30), (11, 4)]
    patches = one.patches(torch.tensor([y * SIZE[1] + x for y, x in places])).numpy()
    assert patches.shape == (4, 159)
    for patch, (y, x) in zip(patches, places, strict=True):
        assert (patch[:147] == colours(image, y, x)).all()
        assert (patch[157:] == np.rint([y * 240 / 31, x * 60 / 31])).all()


def test_the_nearest_source_is_the_one_that_is_alike() -> None:
    one = level()
    rows, distances = one.exact(one.table[5:9])
    assert rows.tolist() == [5, 6, 7, 8]
    assert distances.tolist() == [0, 0, 0, 0]
    field, found = one.search(None, reach=8)
    difference = one.patches(one.targets).float() - one.table[one.row_of_source[field]].float()
    assert (difference.square().sum(1) == found).all()


def test_the_first_guess_copies_sources() -> None:
    one = level()
    known = {tuple(pixel) for pixel in one.image.reshape(-1, 5)[one.sources].tolist()}
    one.peel()
    assert all(tuple(pixel) in known for pixel in one.image[one.hole].tolist())


def test_each_pixel_is_the_weighted_mean_of_the_patches_over_it() -> None:
    height, width = SIZE
    for radius in (1, RADIUS):
        one = level()
        rng = np.random.default_rng(1)
        field = one.sources[torch.from_numpy(rng.integers(0, len(one.sources), len(one.targets)))]
        weight = torch.from_numpy(rng.random(len(one.targets)).astype(np.float32))
        before, rows = one.image.clone().numpy(), row_map(one.targets, height * width).view(SIZE)
        vote(one.image, one.hole_index, one.row_of_target, field, weight, radius=radius)
        assert (one.image.numpy()[~one.hole.numpy()] == before[~one.hole.numpy()]).all()
        for y, x in [(0, 10), (0, 18), (8, 14), (4, 15)]:
            total, shares = np.zeros(5), 0.0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if not (0 <= y - dy < height and 0 <= x - dx < width) or (row := int(rows[y - dy, x - dx])) < 0:
                        continue
                    source = int(field[row])
                    total += float(weight[row]) * before[source // width + dy, source % width + dx]
                    shares += float(weight[row])
            np.testing.assert_allclose(one.image[y, x].numpy(), total / shares, rtol=1e-4)
