"""Both pools on a GPU: `pytest -m gpu`. Where there is none, only what a CPU can show of it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from benchmarks.shapes import save_lama
from jobs.make_demo import scenes
from occpipe.core.config_file import load_config
from occpipe.core.types import Image, Mask
from occpipe.models.inpainters import Inpainter
from occpipe.models.inpainters.torchscript import BigLamaInpainter
from occpipe.models.segmenters.huggingface import HuggingFaceSegmenter
from occpipe.models.segmenters.panoptic import MergeRule, merge
from occpipe.models.segmenters.starter import StarterSegmenter
from occpipe.pipeline.run import clean_corpus
from tests.helpers.scenes import photo
from tests.helpers.tiny_models import save_tiny_eomt
from tests.unit.models.test_panoptic import STUFF, random_logits

GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def outputs_of(segmenter: HuggingFaceSegmenter, images: list[Image]) -> list[torch.Tensor]:
    """Class and mask logits of a batch."""
    seen: list[torch.Tensor] = []
    model = segmenter._model

    def noted(**inputs: Any) -> Any:
        outputs = model(**inputs)
        seen.extend((outputs.class_queries_logits.float().cpu(), outputs.masks_queries_logits.float().cpu()))
        return outputs

    segmenter._model = noted
    segmenter(images)
    segmenter._model = model
    return seen


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_half_precision_is_near_single(device: str, tmp_path: Path) -> None:
    images = [photo("chelsea", 64), photo("coffee", 96), photo("astronaut", 50)]
    single = HuggingFaceSegmenter(save_tiny_eomt(tmp_path), device, half=False)
    half = HuggingFaceSegmenter(tmp_path, device)
    half._half = True  # on a CPU too
    for exact, rounded in zip(outputs_of(single, images), outputs_of(half, images), strict=True):
        error = (exact - rounded).abs()
        assert 0 < error.max() < 0.1 * (exact.max() - exact.min())
        assert error.mean() < 0.01 * (exact.max() - exact.min())


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["eomt", "mask2former", "oneformer"])
def test_merging_on_a_gpu_gives_the_same_segments(family: Any) -> None:
    differ = 0
    for seed in range(50):
        logits, rule, sizes = random_logits(seed), MergeRule(family, STUFF), [(64, 40), (50, 64)]
        here = merge(*logits, rule, (64, 64), sizes, sizes)
        there = merge(logits[0].cuda(), logits[1].cuda(), rule, (64, 64), sizes, sizes)
        for one, other in zip(here, there, strict=True):
            assert [s[:2] for s in one.segments] == [s[:2] for s in other.segments]
            differ += int((one.label_map != other.label_map).sum())
    assert differ <= 50, "pixels on an edge, where two products are equal but for rounding"


@pytest.mark.gpu
def test_segmenters_see_on_a_gpu_what_they_see_on_a_cpu(tmp_path: Path) -> None:
    images = [photo("chelsea", 160), photo("astronaut", 96), photo("coffee", 130)]
    folder = save_tiny_eomt(tmp_path)
    for here, there in (
        (StarterSegmenter(), StarterSegmenter(device="cuda")),
        (HuggingFaceSegmenter(folder), HuggingFaceSegmenter(folder, "cuda", half=False)),
    ):
        for one, other in zip(here(images), there(images), strict=True):
            assert [s.label for s in one.segments] == [s.label for s in other.segments]
            for a, b in zip(one.segments, other.segments, strict=True):
                assert a.score == pytest.approx(b.score, abs=0.02)
                assert a.area == pytest.approx(b.area, rel=0.05, abs=20)


@pytest.mark.gpu
def test_the_memory_of_a_card_divides_a_batch_once(tmp_path: Path) -> None:
    """A card of which only so much may be used that 64 photos do not fit: they are halved, and stay halved."""
    segmenter = HuggingFaceSegmenter(save_tiny_eomt(tmp_path), "cuda")
    photos = [photo("chelsea", 64)] * 64
    expected = segmenter(photos[:8])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    segmenter(photos[:16])
    enough = 2 * torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(enough / torch.cuda.get_device_properties(0).total_memory)
    try:
        scenes = segmenter(photos)
        fitted = segmenter._batch_that_fits
        assert fitted is not None
        assert fitted < 64
        segmenter(photos)
        assert segmenter._batch_that_fits == fitted
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [scene.segments for scene in scenes[:8]] == [scene.segments for scene in expected]


@pytest.mark.gpu
def test_an_inpainter_fills_on_a_gpu_as_on_a_cpu(tmp_path: Path) -> None:
    save_lama(tmp_path / "lama.pt", channels=8, blocks=2)
    images = [photo("chelsea", 160), photo("astronaut", 160), photo("coffee", 130)]
    holes: list[Mask] = [np.zeros(image.shape[:2], np.uint8) for image in images]
    for hole in holes:
        hole[30:60, 40:80] = 1
    here = Inpainter(BigLamaInpainter(tmp_path / "lama.pt")).fill_many(images, holes)
    there = Inpainter(BigLamaInpainter(tmp_path / "lama.pt", "cuda"), workers=4, calls=1).fill_many(images, holes)
    for one, other in zip(here, there, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 3


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_a_run_keeps_both_pools_on_the_gpu(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, rgb in scenes():
        Pil.fromarray(rgb).save(tmp_path / "in" / f"{name}.jpg", quality=92)
    names = ("segmenter.device", "inpainter.device")
    pools = [f"placement.{pool}.num_gpus=0.5" for pool in ("segment", "inpaint")]
    config = load_config("local", [*(f"{name}=cuda" for name in names), *pools, "policy.cut=0.24"])
    summary = clean_corpus(config, str(tmp_path / "in"), str(tmp_path / "out"))
    assert summary.statuses["error"] == 0
    assert summary.statuses["cleaned"] > 0
