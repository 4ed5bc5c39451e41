"""Real loading code on tiny random weights, saved by the library that makes the real ones, in its own format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from transformers import EomtImageProcessor

from occpipe.core.config_file import load_config
from occpipe.core.errors import WeightsError
from occpipe.core.types import Image, Segmentation
from occpipe.models.loading import load_segmenter
from occpipe.models.segmenters.huggingface import Batch, HuggingFaceSegmenter
from occpipe.models.segmenters.maskrcnn import MaskRcnnSegmenter
from occpipe.models.segmenters.panoptic import Merged
from tests.helpers.scenes import photo
from tests.helpers.tiny_models import LABELS, save_tiny_eomt, save_tiny_mask2former


def check_scenes(scenes: list[Segmentation], images: list[Image], labels: set[str]) -> None:
    assert [(scene.height, scene.width) for scene in scenes] == [image.shape[:2] for image in images]
    for scene in scenes:
        taken = np.zeros((scene.height, scene.width), int)
        for segment in scene.segments:
            assert segment.label in labels
            assert 0 <= segment.score <= 1
            assert segment.mask.sum() == segment.area > 0
            taken += segment.mask
        assert taken.max(initial=0) <= 1, "a pixel belongs to one segment"


@pytest.fixture(scope="module")
def images() -> list[Image]:
    return [photo("chelsea", 160), photo("astronaut", 96), photo("coffee", 130)]


@pytest.fixture(scope="module")
def eomt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_eomt(tmp_path_factory.mktemp("eomt"))


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_mask2former(tmp_path_factory.mktemp("mask2former"))


@pytest.mark.parametrize("family", ["eomt", "mask2former"])
def test_transformers_models(family: str, images: list[Image], request: pytest.FixtureRequest) -> None:
    segmenter = HuggingFaceSegmenter(request.getfixturevalue(family), threshold=0.0, mask_threshold=0.05, overlap=0.0)
    scenes = segmenter(images)
    check_scenes(scenes, images, {*LABELS.values()})
    assert any(scene.segments for scene in scenes), "a threshold of 0 lets random queries through"
    for scene in scenes:
        assert all(segment.is_thing is (segment.label in ("person", "cat")) for segment in scene.segments)
        stuff = [segment.label for segment in scene.segments if not segment.is_thing]
        assert len(stuff) == len({*stuff}), "stuff is one segment a class"
        assert {*stuff} == scene.stuff.keys()
    alone = [segmenter([image])[0] for image in images]
    assert [scene.segments for scene in alone] == [scene.segments for scene in scenes], "a batch changes nothing"
    assert segmenter([]) == []


def test_eomt_undoes_its_padding(eomt: Path) -> None:
    """A wide image is padded at the bottom; what is found must lie in the image, and cover it when all is one class."""
    segmenter = HuggingFaceSegmenter(eomt, threshold=0.0, mask_threshold=0.0, overlap=0.0)
    wide = photo("coffee", 128)[:40]
    (scene,) = segmenter([wide])
    assert sum(segment.area for segment in scene.segments) <= wide.shape[0] * wide.shape[1]
    bottom = max((segment.bbox.y + segment.bbox.height for segment in scene.segments), default=0)
    assert bottom == wide.shape[0]


def test_the_input_of_eomt_is_that_of_its_processor(eomt: Path, images: list[Image]) -> None:
    """Photos that are larger and smaller than its square, and one that fits and is taken as it is."""
    mixed = [*images, photo("coffee", 48), photo("chelsea", 64)]
    segmenter = HuggingFaceSegmenter(eomt)
    made = segmenter.prepare(mixed)
    values = segmenter.normalised(made.tensors["bytes"])
    processor = EomtImageProcessor.from_pretrained(eomt)
    expected = processor(images=mixed, return_tensors="pt")["pixel_values"]
    assert values.shape == expected.shape
    assert torch.allclose(values, expected, atol=1e-5)
    assert made.contents[-1] == mixed[-1].shape[:2]


def test_photos_of_all_sizes_share_a_batch_of_eomt(
    eomt: Path, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = HuggingFaceSegmenter(eomt)
    calls, forward = [], segmenter.forward

    def counted(batch: Batch) -> list[Merged]:
        calls.append(len(batch.sizes))
        return forward(batch)

    monkeypatch.setattr(segmenter, "forward", counted)
    segmenter(images)
    assert calls == [len(images)]


def test_a_batch_that_fitted_is_remembered(
    eomt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory for 20 photos: of 32 one batch is repeated, in halves, and none after it."""
    segmenter = HuggingFaceSegmenter(eomt)
    calls, forward = [], segmenter.forward

    def small_card(batch: Batch) -> list[Merged]:
        calls.append(len(batch.sizes))
        if calls[-1] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(segmenter, "forward", small_card)
    photos = [photo("chelsea", 64)] * 32
    assert len(segmenter(photos)) == len(segmenter(photos)) == 32
    assert calls == [32, 16, 16, 16, 16]
    assert "out of memory with 32 photos; the batch is now 16" in caplog.text
    monkeypatch.setattr(segmenter, "forward", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("no memory")))
    with pytest.raises(torch.OutOfMemoryError):
        segmenter(photos[:1])


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        HuggingFaceSegmenter(tmp_path)
    assert "\n" not in str(caught.value)


def test_pickled_transformers_weights_are_refused(eomt: Path, tmp_path: Path) -> None:
    for file in eomt.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        HuggingFaceSegmenter(tmp_path)


@pytest.mark.parametrize("content", [b"these are no safetensors", b""])
def test_damaged_transformers_weights_are_one_line(content: bytes, eomt: Path, tmp_path: Path) -> None:
    for file in eomt.iterdir():
        (tmp_path / file.name).write_bytes(content if file.suffix == ".safetensors" else file.read_bytes())
    with pytest.raises(WeightsError) as caught:
        HuggingFaceSegmenter(tmp_path)
    assert "\n" not in str(caught.value)


def sky(images: Sequence[Image]) -> list[Segmentation]:
    return [Segmentation(1, 1, (), {"sky-other": 0.7}) for _ in images]


def relabelled(source: Path, target: Path, labels: dict[int, str]) -> Path:
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    return target


@pytest.mark.parametrize("family", ["eomt", "mask2former"])
def test_a_model_without_stuff_takes_that_of_the_tagger(
    family: str, images: list[Image], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    panoptic = request.getfixturevalue(family)
    instance = relabelled(panoptic, tmp_path, {0: "person", 1: "cat", 2: "dog", 3: "boat"})
    scenes = HuggingFaceSegmenter(instance, tagger=sky, threshold=0.0, mask_threshold=0.05, overlap=0.0)(images)
    assert [scene.stuff for scene in scenes] == [{"sky-other": 0.7}] * 3
    check_scenes(scenes, images, {"person", "cat", "dog", "boat"})
    assert any(scene.segments for scene in scenes)
    assert HuggingFaceSegmenter(instance, tagger=sky)([]) == []
    scenes = HuggingFaceSegmenter(panoptic, tagger=sky, threshold=0.0, mask_threshold=0.05, overlap=0.0)(images)
    assert all("sky-other" not in scene.stuff for scene in scenes), "its own stuff is better"


def test_the_starter_tags_for_a_local_model_without_stuff(eomt: Path, tmp_path: Path) -> None:
    instance = relabelled(eomt, tmp_path, {0: "person", 1: "cat", 2: "dog", 3: "boat"})
    segmenter = load_segmenter(load_config("local", [f"segmenter.model=hf:{instance}", "segmenter.device=cpu"]))
    (scene,) = segmenter([photo("rocket", 320)])
    assert scene.stuff, "the starter sees stuff here"


class Silent:
    def load_state_dict(self, state: object) -> None:
        raise RuntimeError


def test_errors_without_a_message_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"RuntimeError$"):
        MaskRcnnSegmenter(tmp_path / "weights.pth", network=cast(Any, Silent()))
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="no state dict"):
        MaskRcnnSegmenter(tmp_path / "empty.pth", network=tiny_maskrcnn())

    def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("transformers.AutoModelForUniversalSegmentation.from_pretrained", fail)
    with pytest.raises(WeightsError, match=r"OSError$"):
        HuggingFaceSegmenter(tmp_path)


def tiny_maskrcnn() -> MaskRCNN:
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    return MaskRCNN(backbone, num_classes=91, min_size=96, max_size=128, box_score_thresh=0.0, box_detections_per_img=5)


def test_maskrcnn_with_a_tagger(images: list[Image], tmp_path: Path) -> None:
    torch.save(tiny_maskrcnn().state_dict(), tmp_path / "weights.pth")

    def tagger(images: Sequence[Image]) -> list[Segmentation]:
        return [Segmentation(1, 1, (), {"sky-other": 0.7})] * 3

    network = tiny_maskrcnn()
    segmenter = MaskRcnnSegmenter(tmp_path / "weights.pth", tagger=tagger, threshold=0.0, network=network)
    scenes = segmenter(images)
    categories = set(torch_categories())
    check_scenes(scenes, images, categories)
    assert all(segment.is_thing for scene in scenes for segment in scene.segments)
    assert [scene.stuff for scene in scenes] == [{"sky-other": 0.7}] * 3
    assert segmenter([]) == []


def torch_categories() -> list[str]:
    from occpipe.models.segmenters.maskrcnn import _CATEGORIES

    return _CATEGORIES


def test_maskrcnn_refuses_other_weights(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no state dict of maskrcnn"):
        MaskRcnnSegmenter(tmp_path / "other.pth", network=tiny_maskrcnn())


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code of a stranger ran",))


def test_maskrcnn_runs_no_pickled_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(WeightsError):
        MaskRcnnSegmenter(tmp_path / "hostile.pth", network=tiny_maskrcnn())
    assert "ran" not in capsys.readouterr().out


def test_safetensors_of_another_net_are_refused(tmp_path: Path) -> None:
    from occpipe.models.segmenters.starter import StarterSegmenter

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError):
        StarterSegmenter(tmp_path / "x.safetensors")
