"""The inpainters: what each restores, and the contracts of the TorchScript archives on toys of the same contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from occpipe.core.types import Image, Mask
from occpipe.models.inpainters import CropInpainter, Inpainter
from occpipe.models.inpainters.opencv import OpenCvInpainter
from occpipe.models.inpainters.patches import PatchInpainter
from occpipe.models.inpainters.starter import StarterInpainter
from occpipe.models.inpainters.torchscript import BigLamaInpainter, MiganInpainter
from tests.helpers.scenes import photo


def disc(height: int, width: int, y: int, x: int, radius: int) -> Mask:
    yy, xx = np.mgrid[:height, :width]
    inside: Mask = ((yy - y) ** 2 + (xx - x) ** 2 <= radius**2).astype(np.uint8)
    return inside


def gradient(height: int, width: int) -> Image:
    ramp = np.linspace(40, 200, width)[None].repeat(height, 0)
    return np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 90)], 2).astype(np.uint8)


def tiles(height: int, width: int, period: int = 12) -> Image:
    yy, xx = np.mgrid[:height, :width]
    pattern = ((yy % period < 4) | (xx % period < 3)).astype(np.uint8)
    return np.stack([60 + 120 * pattern, 80 + 90 * pattern, 200 - 110 * pattern], 2).astype(np.uint8)


def error(filled: Image, truth: Image, mask: Mask) -> float:
    """Mean absolute error in the hole, in levels."""
    return float(np.abs(filled[mask == 1].astype(int) - truth[mask == 1]).mean())


def spoilt(image: Image, mask: Mask) -> Image:
    """The image with the hole's content replaced by something that must not come through."""
    out = image.copy()
    out[mask == 1] = (255, 0, 255)
    return out


@pytest.mark.parametrize(
    ("model", "limit"),
    [(OpenCvInpainter(), 4.0), (PatchInpainter(), 4.0), (StarterInpainter(), 6.0)],
    ids=["telea", "patches", "starter"],
)
def test_a_gradient_is_continued(model: CropInpainter, limit: float) -> None:
    truth, mask = gradient(120, 160), disc(120, 160, 60, 80, 18)
    filled = Inpainter(model, match_seam=False)(spoilt(truth, mask), mask)
    assert error(filled, truth, mask) < limit


def test_the_starter_restores_a_pattern_that_telea_cannot() -> None:
    truth, mask = tiles(144, 180), disc(144, 180, 70, 90, 22)
    given = spoilt(truth, mask)
    assert error(Inpainter(PatchInpainter(), match_seam=False)(given, mask), truth, mask) < 3
    assert error(Inpainter(OpenCvInpainter(), match_seam=False)(given, mask), truth, mask) > 20


def test_the_starter_copies_texture_at_full_size_when_it_solves_at_less() -> None:
    truth, mask = tiles(300, 400, 16), disc(300, 400, 150, 200, 60)
    filled = Inpainter(PatchInpainter(work_side=220), match_seam=False)(spoilt(truth, mask), mask)
    assert error(filled, truth, mask) < 12
    inside = disc(300, 400, 150, 200, 50) == 1
    assert filled[inside].std() > 0.9 * truth[inside].std()


def test_the_starter_never_takes_from_the_hole() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(100, 120, (150, 170, 3), np.uint8)
    mask = disc(150, 170, 80, 60, 25) | disc(150, 170, 20, 150, 12)
    filled = Inpainter(PatchInpainter(), match_seam=False)(spoilt(image, mask), mask)
    assert filled.min() >= 99
    assert filled.max() <= 120


def test_the_starter_is_deterministic() -> None:
    rng = np.random.default_rng(5)
    image, mask = rng.integers(0, 256, (140, 180, 3), np.uint8), disc(140, 180, 70, 80, 30)
    first = Inpainter(PatchInpainter())(image, mask)
    torch.rand(7)  # other draws from the global generator change nothing
    assert (Inpainter(PatchInpainter())(image, mask) == first).all()


HOLES: dict[str, tuple[tuple[int, int], Mask]] = {
    "one row": ((1, 40), np.eye(1, 40, 7, dtype=np.uint8)),
    "one column": ((40, 1), np.eye(1, 40, 7, dtype=np.uint8).T.copy()),
    "smaller than a patch": ((5, 6), disc(5, 6, 2, 2, 1)),
    "as large as a patch": ((7, 7), disc(7, 7, 3, 3, 1)),
    "one pixel": ((90, 90), disc(90, 90, 45, 45, 0)),
    "corner": ((90, 110), disc(90, 110, 0, 0, 30)),
    "edge": ((90, 110), disc(90, 110, 89, 60, 25)),
    "thin and long": ((60, 300), np.pad(np.ones((2, 280), np.uint8), ((30, 28), (10, 10)))),
    "all but a rim": ((80, 80), np.pad(np.ones((74, 74), np.uint8), 3)),
    "specks": ((60, 70), (np.random.default_rng(1).random((60, 70)) < 0.015).astype(np.uint8)),
    "half": ((60, 120), np.pad(np.ones((60, 60), np.uint8), ((0, 0), (0, 60)))),
}


@pytest.mark.parametrize(
    ("name", "work_side"), [*((n, 800) for n in HOLES), ("edge", 50), ("specks", 50), ("half", 50)]
)
def test_odd_holes_are_filled_with_what_is_around(name: str, work_side: int) -> None:
    size, mask = HOLES[name]
    image = np.full((*size, 3), 130, np.uint8)
    filled = Inpainter(PatchInpainter(work_side=work_side), match_seam=False)(spoilt(image, mask), mask)
    assert (filled[mask == 0] == 130).all()
    assert np.abs(filled.astype(int) - 130).max() <= 8  # Telea, where no patch is to be had, drifts by a few levels


class ToyLama(nn.Module):
    """Checks the input contract of big-lama as the traced graph can, then fills with the mean of the known pixels.

    A trace drops assertions, so a breach shows in the output: the check multiplies it by NaN.
    """

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        good = (image.min() >= 0) & (image.max() <= 1) & (image.max() > 0.5) & ((mask == 0) | (mask == 1)).all()
        known = 1 - mask
        mean = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)
        return torch.where(good, image * known + mask * mean, torch.nan)


class MixingLama(ToyLama):
    """Works at any batch size, but gives every item the first one's mean: what a careless trace may do."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return super().forward(image, mask) * (1 - mask) + mask * image[:1].mean((2, 3), keepdim=True)


class FixedLama(ToyLama):
    """Fails on batches: a reshape with the traced batch size."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return super().forward(image.reshape(1, 3, 64, 64), mask)


class ToyMigan(nn.Module):
    """Checks migan's contract and fills with the mean of the known, in [-1, 1]; breaches turn it to NaN."""

    def forward(self, x: Tensor) -> Tensor:
        mask, image = 0.5 - x[:, :1], x[:, 1:]
        good = ((mask == 0) | (mask == 1)).all() & (image.min() >= -1) & (image.min() < -0.5) & (image.max() <= 1)
        good = good & (image * mask == 0).all()
        mean = image.sum((2, 3), keepdim=True) / (1 - mask).sum((2, 3), keepdim=True)
        return torch.where(good, image + mask * mean, torch.nan)


def traced(module: nn.Module, path: Path, *example: Tensor) -> Path:
    torch.jit.save(torch.jit.trace(module, example, check_trace=False), path)  # type: ignore[no-untyped-call]  # torch's
    return path


def lama(module: nn.Module, tmp_path: Path) -> BigLamaInpainter:
    example = (torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))
    return BigLamaInpainter(traced(module, tmp_path / "lama.pt", *example))


def scenes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, each of its own even colour with a white rim, and one hole each, B x 64 x 64."""
    images = np.stack([np.full((64, 64, 3), 20 + 40 * i, np.uint8) for i in range(count)])
    images[:, :2], images[:, -2:] = 255, 255
    mask = disc(64, 64, 30, 30, 10)
    images[:, mask == 1] = (255, 0, 255)
    return images, np.stack([mask] * count)


def means(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return np.stack([image[mask == 0].mean(0) for image, mask in zip(images, masks, strict=True)])


def test_big_lama_contract(tmp_path: Path) -> None:
    model = lama(ToyLama(), tmp_path)
    images, masks = scenes(4)
    filled = model.fill(images, masks)
    assert filled.dtype == np.uint8
    assert filled.shape == images.shape
    assert model.batched is True
    assert np.abs(filled[:, 30, 30] - means(images, masks)).max() <= 1
    for i in range(4):
        assert (model.fill(images[i : i + 1], masks[i : i + 1])[0] == filled[i]).all()


@pytest.mark.parametrize("module", [MixingLama(), FixedLama()], ids=["mixes", "fails"])
def test_an_archive_that_holds_at_batch_1_only_is_run_one_by_one(
    module: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = lama(module, tmp_path)
    images, masks = scenes(3)
    alone = np.concatenate([model.fill(images[i : i + 1], masks[i : i + 1]) for i in range(3)])
    assert model.batched is None
    assert (model.fill(images, masks) == alone).all()
    assert model.batched is False
    assert "mixes the crops of a batch" in caplog.text
    assert (model.fill(images, masks) == alone).all()


def test_migan_contract(tmp_path: Path) -> None:
    model = MiganInpainter(traced(ToyMigan(), tmp_path / "migan.pt", torch.zeros(1, 4, 512, 512)))
    image = np.zeros((300, 900, 3), np.uint8)
    image[:, ::2] = 200
    mask = disc(300, 900, 100, 150, 40) | disc(300, 900, 150, 800, 30)
    filled = Inpainter(model, context=0.5)(spoilt(image, mask), mask)
    assert (filled[mask == 0] == image[mask == 0]).all()
    assert np.abs(filled[mask == 1].astype(int) - 100).max() <= 3
    assert model.batched is True


def test_many_images_through_big_lama_equal_one_by_one(tmp_path: Path) -> None:
    model = lama(ToyLama(), tmp_path)
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((150, 200), (64, 300), (150, 200))]
    masks = [disc(i.shape[0], i.shape[1], 40, 50, 15) for i in images]
    together = Inpainter(model, batch_size=4).fill_many(images, masks)
    for image, mask, filled in zip(images, masks, together, strict=True):
        alone = Inpainter(lama(ToyLama(), tmp_path))(image, mask)
        assert np.abs(alone.astype(int) - filled).max() <= 1


def test_starter_gives_equal_bits_every_time() -> None:
    """BLAS rounds otherwise from call to call; the fill must not show it."""
    rgb = photo("coffee", 300)
    mask = np.zeros(rgb.shape[:2], np.uint8)
    mask[60:150, 90:210] = 1
    threads = torch.get_num_threads()
    try:
        results, answers = [], []
        for count in (2, 1, 2, 1):
            torch.set_num_threads(count)
            starter = StarterInpainter()
            results.append(Inpainter(starter)(rgb, mask))
            # a rounding shows in few fills, but always before they are rounded to whole levels
            answers.append(starter._change(rgb[:176, :256].copy(), mask[:176, :256]))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(result, results[0]) for result in results)
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_patches_follow_their_guide() -> None:
    rng = np.random.default_rng(0)
    image = np.empty((160, 240, 3), np.uint8)
    image[:, :120] = rng.integers(20, 60, (160, 120, 1))
    image[:, 120:] = rng.integers(180, 220, (160, 120, 1))
    mask = np.zeros((160, 240), np.uint8)
    mask[40:120, 70:170] = 1

    def dark(pixels: Tensor, hole: Tensor) -> Tensor:
        assert pixels.shape == (*hole.shape, 3)
        assert 40 <= min(hole.shape) < 160, "neither the smallest scales nor the last one are guided"
        return 40 - pixels

    alone, guided = (PatchInpainter(guide=g).fill(image[None], mask[None])[0] for g in (None, dark))
    right = np.s_[45:115, 125:165]
    assert alone[right].mean() > 150
    assert guided[right].mean() < 70
    assert guided[right].std() > 6, "copied from the left, where the guide's picture is flat"
    assert (guided[mask == 0] == image[mask == 0]).all()


def test_the_peer_restores_a_pattern() -> None:
    pytest.importorskip("patchmatch", reason="the peers extra has pypatchmatch")
    from occpipe.models.inpainters.pypatchmatch import PyPatchMatchInpainter

    truth, mask = tiles(144, 180), disc(144, 180, 70, 90, 22)
    filled = Inpainter(PyPatchMatchInpainter(), match_seam=False)(spoilt(truth, mask), mask)
    assert error(filled, truth, mask) < 20
    assert (filled[mask == 0] == truth[mask == 0]).all()


def test_nothing_is_copied_from_a_thing() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 110, (140, 180, 3), np.uint8)
    image[40:100, 100:150] = (220, 40, 40)
    thing = np.zeros((140, 180), np.uint8)
    thing[40:100, 100:150] = 1
    mask = disc(140, 180, 70, 80, 26) & (1 - thing)
    engine = Inpainter(PatchInpainter(), match_seam=False)
    free, barred = engine(spoilt(image, mask), mask), engine(spoilt(image, mask), mask, thing)
    inside = mask == 1
    assert barred[inside].max() < 115
    assert free[inside].max() > 200  # without being told, it lets the thing grow into the hole


@pytest.mark.parametrize("work_side", [800, 200])
def test_specks_and_lines_beside_a_large_hole_are_filled_with_what_is_beside_them(work_side: int) -> None:
    rng = np.random.default_rng(0)
    image = np.full((400, 400, 3), (90, 140, 220), np.uint8)
    image[200:] = (60, 150, 50)
    image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    mask = disc(400, 400, 90, 200, 70)
    thin = np.zeros_like(mask)
    thin[320, 50:350] = 1
    thin[260:262, 100:102] = 1
    filled = PatchInpainter(work_side=work_side).fill(image[None], (mask | thin)[None])[0]
    assert np.abs(filled[thin == 1].astype(int) - (60, 150, 50)).mean() < 8
    assert np.abs(filled[mask == 1].astype(int) - (90, 140, 220)).mean() < 12
