from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from occpipe.core.config_file import load_config
from occpipe.core.errors import WeightsError
from occpipe.core.types import Image, Segmentation
from occpipe.models.efficientnet import fold_norms, normalise
from occpipe.models.segmenters.starter import ASSET, StarterSegmenter, input_shape, load_weights
from occpipe.models.segmenters.starter_net import StarterNet
from occpipe.stages.segment import SegmentStage
from tests.helpers.scenes import photo

skimage_data = pytest.importorskip("skimage.data", reason="the demo extra has the photos")


@pytest.fixture(scope="module")
def segmenter() -> StarterSegmenter:
    return StarterSegmenter()


@pytest.fixture(scope="module")
def chelsea(segmenter: StarterSegmenter) -> Segmentation:
    return segmenter([skimage_data.chelsea()])[0]


@pytest.fixture(scope="module")
def astronaut(segmenter: StarterSegmenter) -> Segmentation:
    return segmenter([skimage_data.astronaut()])[0]


def random_net(classes: int = 5, tags: int = 7) -> StarterNet:
    torch.manual_seed(0)
    return StarterNet(classes, tags, "lite0").eval()


def test_the_net_gives_logits_at_stride_4_and_tags() -> None:
    out = random_net()(torch.zeros(2, 3, 64, 96))
    assert out.pixels.shape == (2, 6, 16, 24)
    assert out.tags.shape == (2, 7)


def test_the_net_is_deterministic_and_a_batch_is_its_images_one_by_one() -> None:
    net, x = random_net(), torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        once, again = net(x), net(x)
        single = torch.cat([net(x[i : i + 1]).pixels for i in range(3)])
    assert torch.equal(once.pixels, again.pixels)
    torch.testing.assert_close(once.pixels, single, rtol=1e-4, atol=1e-4)


def test_folding_the_norms_changes_nothing_but_the_speed() -> None:
    net, x = random_net(), torch.randn(1, 3, 64, 64)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.inference_mode():
        before = net(x).pixels
        after = fold_norms(net)(x).pixels
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)


def test_pixels_are_normalised_as_the_published_weights_want() -> None:
    x = normalise(torch.tensor([[[[127, 255, 0]]]], dtype=torch.uint8))
    assert x.shape == (1, 3, 1, 1)
    assert x.ravel().tolist() == pytest.approx([0.0, 1.0, -127 / 128])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 451), (352, 512)), ((1000, 1000), (512, 512)), ((1, 4000), (32, 512)), ((4000, 3000), (512, 384))],
)
def test_input_sides_are_multiples_of_32_and_keep_the_ratio(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert input_shape(size, 512) == expected


def test_the_shipped_weights_are_small_and_say_what_they_are() -> None:
    asset = files("occpipe").joinpath(ASSET)
    assert isinstance(asset, Path)
    assert asset.stat().st_size <= 12_000_000
    with safe_open(asset, framework="pt") as weights:
        meta = json.loads(weights.metadata()["occpipe"])
    assert meta["format"] == 4
    assert len(meta["classes"]) == len(meta["is_thing"]) == 90
    assert sum(meta["is_thing"]) == 80
    assert len(meta["tags"]) == 91
    assert asset.with_suffix(".md").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no starter segmenter weights"):
        load_weights(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("not tensors")
    with pytest.raises(WeightsError, match="no starter segmenter weights"):
        load_weights(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "future", {"occpipe": json.dumps({"format": 99})})
    with pytest.raises(WeightsError, match="format 99"):
        load_weights(tmp_path / "future")
    header = {"format": 4, "variant": "lite0", "classes": ["a"], "is_thing": [True], "tags": ["b"]}
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign", {"occpipe": json.dumps(header)})
    with pytest.raises(WeightsError, match="not those of the starter"):
        load_weights(tmp_path / "foreign")


def test_a_cat_is_seen(chelsea: Segmentation) -> None:
    cat = max(chelsea.things, key=lambda s: s.area)
    assert cat.label == "cat"
    assert cat.score > 0.5
    assert cat.area > 0.4 * chelsea.height * chelsea.width
    assert cat.mask[110, 150] == 1  # between the eyes


def test_a_person_is_seen(astronaut: Segmentation) -> None:
    person = max(astronaut.things, key=lambda s: s.area)
    assert person.label == "person"
    assert person.score > 0.5
    assert person.mask[110, 220] == 1  # the face


def test_segments_are_disjoint_sized_as_the_image_and_scored(chelsea: Segmentation, astronaut: Segmentation) -> None:
    for seen in (chelsea, astronaut):
        assert np.sum([s.mask for s in seen.segments], axis=0).max() == 1
        for s in seen.segments:
            assert s.mask.shape == (seen.height, seen.width)
            assert s.area == s.mask.sum() > 0
            assert 0 < s.score <= 1
        stuff = {s.label for s in seen.segments if not s.is_thing}
        assert stuff <= seen.stuff.keys()
        assert all(0 < v <= 1 for v in seen.stuff.values())


def test_mixed_sizes_in_a_batch_are_as_one_by_one(segmenter: StarterSegmenter) -> None:
    cat, astronaut = skimage_data.chelsea(), skimage_data.astronaut()
    images: list[Image] = [cat, astronaut, np.ascontiguousarray(cat[:, ::-1]), astronaut[:97, :151]]
    together = segmenter(images)
    for image, batched in zip(images, together, strict=True):
        (alone,) = segmenter([image])
        assert (batched.height, batched.width) == image.shape[:2]
        assert [s.label for s in batched.segments] == [s.label for s in alone.segments]
        for a, b in zip(batched.segments, alone.segments, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-3)
            assert (a.mask != b.mask).mean() < 1e-3
        assert batched.stuff == pytest.approx(alone.stuff, abs=1e-3)


def test_odd_images_pass_and_wrong_ones_are_named(segmenter: StarterSegmenter) -> None:
    tiny, wide = np.zeros((1, 1, 3), np.uint8), np.full((3, 700, 3), 255, np.uint8)
    assert [(s.height, s.width) for s in segmenter([tiny, wide])] == [(1, 1), (3, 700)]
    assert segmenter([]) == []
    with pytest.raises(ValueError, match="image 1 is uint8"):
        segmenter([tiny, np.zeros((4, 4), np.uint8)])
    with pytest.raises(ValueError, match="image 0 is float32"):
        segmenter([np.zeros((4, 4, 3), np.float32)])


def test_importing_the_segmenter_does_not_import_torch() -> None:
    code = "import sys, occpipe.models.segmenters.starter; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_thing_comes_with_what_it_may_be(chelsea: Segmentation) -> None:
    cat = max(chelsea.things, key=lambda s: s.area)
    assert cat.classes[0] == ("cat", cat.score)
    chances = [share.probability for share in cat.classes]
    assert len(chances) == 5
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) <= cat.thing <= 1


def test_with_workers_an_image_does_not_depend_on_its_neighbours() -> None:
    images = [photo("chelsea", 160), photo("coffee", 128), photo("chelsea", 96)]
    before = torch.get_num_threads()
    segmenter = StarterSegmenter(max_side=160, batch_size=1, workers=2)
    assert segmenter(images) == [segmenter([image])[0] for image in images]
    assert segmenter([]) == []
    assert torch.get_num_threads() == before, "only its workers take one core each"


def test_the_pipeline_gives_each_thread_of_a_segmenter_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, int] = {}
    monkeypatch.setattr("occpipe.stages.segment.load_segmenter", lambda _, **options: given.update(options))
    before = torch.get_num_threads()
    SegmentStage(load_config("local", ["placement.segment.threads=3"]))
    torch.set_num_threads(before)
    assert given == {"workers": 3}
