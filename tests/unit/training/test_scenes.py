from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from occpipe.core.config import Policy
from occpipe.core.types import ClassShare, Image, Mask, Reason, SceneObject, Segment, Segmentation, Verdict
from occpipe.models.relations import load_relations
from occpipe.models.relations.benchmark import LabelledImage, Npmi
from occpipe.training import scene_evaluation as ev
from occpipe.training.scene_calibration import Sightings, fit, lines
from occpipe.training.scenes import AREA, Scene, compose, digest, read_statistics, strange_labels

NAMES = [f"class {i}" for i in range(182)]
for number, called in {16: "bird", 8: "boat", 69: "toilet", 123: "grass", 154: "sand", 155: "sea"}.items():
    NAMES[number] = called


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seas with a boat, and four photos of a toilet alone."""
    root = tmp_path_factory.mktemp("scenes")
    for part in ("images", "labels"):
        (root / part).mkdir()
    space = {"classes": NAMES, "supervised": {"seas": [8, 154, 155], "rooms": [69]}}
    (root / "label_space.json").write_text(json.dumps(space))
    rows = []
    for i in range(8):
        group, thing = ("seas", 8) if i < 4 else ("rooms", 69)
        label = np.full((200, 300), 254, np.uint8)
        if group == "seas":
            label[:150], label[150:] = 155, 154
        cv2.circle(label, (80 + 4 * i, 90), 40, thing, -1)
        image = np.zeros((200, 300, 3), np.uint8)
        image[..., 0] = label
        rows.append({"name": f"{group}_{i}", "set": group})
        cv2.imwrite(str(root / "images" / f"{group}_{i}.jpg"), image)
        cv2.imwrite(str(root / "labels" / f"{group}_{i}.png"), label)
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Npmi:
    """Boats lie on the sea, toilets stand by sinks."""
    root = tmp_path_factory.mktemp("lists")
    for name, pair in {"things": ("boat", "toilet"), "stuff": ("sea,sand", "wall,floor")}.items():
        with gzip.open(root / f"{name}.tsv.gz", "wt") as out:
            out.write("image\tclasses\n" + "\n".join(f"{n}\t{pair[n % 2]}" for n in range(200)) + "\n")
    return read_statistics(root / "things.tsv.gz", root / "stuff.tsv.gz")


@pytest.fixture(scope="module")
def scenes(folder: Path, statistics: Npmi) -> list[Scene]:
    return compose(folder, statistics, 6, held_out=None)


def test_only_what_does_not_belong_is_pasted(scenes: list[Scene], statistics: Npmi) -> None:
    assert [scene.label for scene in scenes] == ["toilet"] * 6
    assert {scene.name.split("_")[0] for scene in scenes} == {"seas"}, "of the rooms too little is known"
    assert strange_labels(["boat", "toilet"], ["sea", "sand"], statistics) == ["toilet"]
    assert strange_labels(["boat", "toilet"], ["sea", "toilet"], statistics) == [], "what is there is not strange"


def test_a_pasted_thing_has_the_wanted_size_and_nothing_else_changes(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 0.9 * AREA[0] <= scene.area <= 1.1 * AREA[1]
        near = cv2.dilate(scene.outline, np.ones((5, 5), np.uint8))
        assert (scene.image == scene.untouched)[near == 0].all()
        assert (scene.image != scene.untouched)[scene.outline > 0].any()


def test_scenes_depend_on_folder_and_seed_only(folder: Path, statistics: Npmi, scenes: list[Scene]) -> None:
    assert digest(compose(folder, statistics, 6, held_out=None)) == digest(scenes)
    assert digest(compose(folder, statistics, 6, held_out=None, seed=1)) != digest(scenes)
    pairs = ((("boat", "toilet"), ("sand", "sea")), (("cat",), ("wall",)))
    together = Npmi([LabelledImage(str(n), *pairs[n % 2]) for n in range(20)])
    with pytest.raises(ValueError, match="give 0 scenes"):
        compose(folder, together, 6, held_out=None)


def box(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((100, 100), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


OUTLINE = box(40, 40, 20, 20)
SCENE = Scene("a", "cat", np.zeros((100, 100, 3), np.uint8), OUTLINE, np.ones((100, 100, 3), np.uint8))


def item(label: str, mask: Mask, verdict: Verdict) -> SceneObject:
    return SceneObject(Segment.from_mask(label, True, 0.9, mask), 0.5, verdict, Reason.RELATED)


@pytest.mark.parametrize(
    ("label", "mask", "steps"),
    [
        ("cat", box(40, 40, 20, 20), {"outlined", "named", "judged", "removed"}),
        ("dog", box(40, 40, 20, 20), {"outlined", "judged", "removed"}),
        ("cat", box(40, 40, 20, 11), set()),  # 55% of it
        ("cat", box(30, 30, 40, 40), set()),  # four times its area
        ("cat", box(38, 38, 30, 30), {"outlined", "named", "judged", "removed"}),
    ],
)
def test_how_far_an_intruder_gets(label: str, mask: Mask, steps: set[str]) -> None:
    assert ev.measure(SCENE, ((item(label, mask, Verdict.REMOVE),), mask)).steps == steps
    kept = ev.measure(SCENE, ((item(label, mask, Verdict.KEEP),), None))
    assert kept.steps == steps - {"judged", "removed"}


def test_what_lies_elsewhere_is_a_wrong_removal() -> None:
    elsewhere, partly = box(0, 0, 20, 20), box(40, 50, 20, 20)
    objects = (item("cat", elsewhere, Verdict.REMOVE), item("dog", partly, Verdict.REMOVE))
    outcome = ev.measure(SCENE, (objects, elsewhere | partly))
    assert outcome.wrong == ("cat",), "half of the other one lies on the intruder"
    assert "removed" not in outcome.steps


def test_precision_counts_untouched_photos_and_f1_is_of_both() -> None:
    def judge(image: Image) -> ev.Decided:
        if image.max() == 0:
            return (item("cat", OUTLINE, Verdict.REMOVE),), OUTLINE
        return ((item("boat", box(0, 0, 9, 9), Verdict.REMOVE),), box(0, 0, 9, 9)) if image.max() == 1 else ((), None)

    ordinary = [("x.jpg", np.ones((100, 100, 3), np.uint8)), ("y.jpg", np.full((100, 100, 3), 2, np.uint8))]
    result = ev.evaluate_scenes(judge, [SCENE] * 4, ordinary)
    assert (result["precision"], result["recall"]) == (0.8, 1.0)
    assert result["f1"] == pytest.approx(2 * 0.8 / 1.8)
    assert result["wrong_in_untouched"] == {"boat": 1}
    assert result["ordinary"] == {"photos": 2, "changed": {"x.jpg": ["boat"]}}
    table = "\n".join(ev.lines(result))
    assert "precision 0.800, recall 1.000, F1 0.889" in table
    assert "1 of 2 changed (50.00%)" in table
    assert ev.sheet([(SCENE.image, OUTLINE, None)] * 3, columns=2).size == (480, 480)


def seen(label: str, probability: float, mask: Mask) -> Segmentation:
    segment = Segment.from_mask(label, True, probability, mask, [ClassShare(label, probability)], probability)
    return Segmentation(100, 100, (segment,), {"sea": 0.9, "sand": 0.9, "sky-other": 0.9})


def test_a_fit_tells_intruders_from_what_belongs_and_from_what_is_hardly_seen() -> None:
    sightings = Sightings(load_relations(), Policy())
    rng = np.random.default_rng(0)
    for _ in range(40):
        sightings.add(seen("toilet", rng.uniform(0.5, 0.9), OUTLINE), OUTLINE)
        sightings.add(seen("boat", rng.uniform(0.5, 0.9), OUTLINE), ordinary=True)
        sightings.add(seen("toilet", rng.uniform(0.1, 0.4), OUTLINE), ordinary=True)
        sightings.add(Segmentation(100, 100), ordinary=True)
    decision = fit(sightings)
    assert (decision.scenes, decision.photos, len(decision.lowest)) == (40, 120, 7)
    strange, own = ([t for t in sightings.things if t.strange is kind] for kind in (True, False))
    right = [decision.belongs(t.label, t.values) < 0.5 for t in strange]
    wrong = [decision.belongs(t.label, t.values) < 0.5 for t in own]
    assert np.mean(right) > 0.9 > 0.1 > np.mean(wrong)
    assert next(lines(decision)) == "40 scenes, 120 ordinary photos"


def test_a_fit_needs_both_kinds_of_photos() -> None:
    sightings = Sightings(load_relations(), Policy())
    sightings.add(seen("toilet", 0.9, OUTLINE), OUTLINE)
    with pytest.raises(ValueError, match="needs ordinary photos"):
        fit(sightings)


def test_what_lies_half_on_the_intruder_is_neither() -> None:
    sightings = Sightings(load_relations(), Policy())
    sightings.add(seen("toilet", 0.9, box(40, 50, 20, 20)), OUTLINE)
    assert sightings.things == []
    sightings.add(seen("person", 0.9, OUTLINE), OUTLINE)
    assert sightings.things == [], "people are protected, so nothing is to be decided"
