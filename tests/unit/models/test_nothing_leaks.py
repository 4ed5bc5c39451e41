"""No pixel under a mask is read: whatever stands there, the same bytes come out, from any inpainter and on any way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.shapes import save_lama
from occpipe.core.config_file import load_config
from occpipe.core.schemas import PIPELINE
from occpipe.core.types import Image, Mask, Segment, Segmentation
from occpipe.io.images import Limits, decode
from occpipe.models.inpainters import CropInpainter, Inpainter
from occpipe.models.inpainters.opencv import OpenCvInpainter
from occpipe.models.inpainters.pypatchmatch import PyPatchMatchInpainter
from occpipe.models.inpainters.starter import StarterInpainter
from occpipe.models.inpainters.torchscript import BigLamaInpainter, MiganInpainter
from occpipe.stages.cleaner import Cleaner
from occpipe.stages.inpaint import InpaintStage
from tests.helpers.scenes import encoded, photo
from tests.unit.models.test_inpainters import ToyMigan, traced

SEEDS = (1, 2)
Make = Callable[[Path], CropInpainter]
MODELS: dict[str, Make] = {
    "starter": lambda _: StarterInpainter(),
    "telea": lambda _: OpenCvInpainter(),
    "navier-stokes": lambda _: OpenCvInpainter("navier-stokes"),
    "pypatchmatch": lambda _: PyPatchMatchInpainter(),
    "big-lama": lambda folder: random_lama(folder),
    "migan-512": lambda folder: random_migan(folder),
}


def random_lama(folder: Path) -> CropInpainter:
    save_lama(folder / "lama.pt", channels=8, blocks=1)
    return BigLamaInpainter(folder / "lama.pt")


def random_migan(folder: Path) -> CropInpainter:
    return MiganInpainter(traced(ToyMigan(), folder / "migan.pt", torch.zeros(1, 4, 512, 512)))


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> CropInpainter:
    if request.param == "pypatchmatch" and find_spec("patchmatch") is None:
        pytest.skip("pypatchmatch is not installed")
    return MODELS[request.param](tmp_path)


def two_holes(height: int, width: int) -> Mask:
    """A large hole, and a small one whose window reaches into it."""
    mask: Mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 3, height // 2), (width // 7, height // 5), 20, 0, 360, 1, -1)
    mask[height // 4 : height // 4 + 9, width // 2 : width // 2 + 14] = 1
    return mask


def variants(image: Image, mask: Mask) -> list[Image]:
    """The image with noise under the mask, and with one loud colour."""
    noise = [np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8) for seed in SEEDS]
    loud = np.full_like(image, (255, 0, 255))
    return [image, *(np.where(mask[..., None] == 1, other, image) for other in (*noise, loud))]


@pytest.mark.parametrize("side", [200, 900])
def test_fill_gives_the_same_bytes(model: CropInpainter, side: int) -> None:
    """At 900 pixels with a model that takes 128, the fill is scaled up and gets the photo's detail."""
    image = photo("coffee", 200)
    image = np.asarray(cv2.resize(image, (side, side * 2 // 3)), np.uint8)
    mask = two_holes(*image.shape[:2])
    if side > 200 and model.fixed_size is None:
        model.max_side = 128
    fill = Inpainter(model)
    first, *others = (fill(one, mask) for one in variants(image, mask))
    assert all((first == other).all() for other in others)


def test_a_photo_that_is_cleaned_in_one_call_gives_the_same_bytes(model: CropInpainter) -> None:
    image = photo("coffee", 160)
    mask = two_holes(*image.shape[:2])
    cleaner = Cleaner(load_config("local", ["policy.remove=[cat]", "policy.max_area=1"]))
    cleaner.inpainter = Inpainter(model)
    height, width = mask.shape
    scene = Segmentation(height, width, (Segment.from_mask("cat", True, 0.9, mask),), {"grass": 0.9})
    grown = cleaner.apply(image, scene).mask
    assert grown.sum() > mask.sum()
    first, *others = (cleaner.apply(one, scene).image for one in variants(image, grown))
    assert all((first == other).all() for other in others)


def test_the_stage_gives_the_same_pixels(model: CropInpainter, tmp_path: Path) -> None:
    image = photo("coffee", 160)
    mask = two_holes(*image.shape[:2])
    stage = InpaintStage(load_config(), str(tmp_path), Inpainter(model))
    pictures = []
    for number, one in enumerate(variants(image, mask)):
        data = encoded(one, "PNG")
        (tmp_path / f"{number}.png").write_bytes(data)
        row = {"uri": f"{number}.png", "size": len(data), "etag": "", "sha256": hashlib.sha256(data).hexdigest()}
        row |= {
            "height": mask.shape[0],
            "width": mask.shape[1],
            "mask_height": mask.shape[0],
            "mask_width": mask.shape[1],
        }
        row |= {"objects": [], "mask": Segment.from_mask("cat", True, 0.9, mask).rle.counts.decode("ascii")}
        row |= {"removed": 0.1, "status": None, "reason": None, "error": None}
        table = pa.table({name: pa.array([value], PIPELINE[name]) for name, value in row.items()})
        (result,) = stage(table).to_pylist()
        assert result["status"] == "cleaned", result["error"]
        pictures.append(decode(result["data"], Limits()))
    assert all((pictures[0] == other).all() for other in pictures[1:])
    assert (pictures[0][mask == 0] == image[mask == 0]).all()
