"""Given labels on a real Ray: masks and annotations, on a disk and on S3, killed and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from occpipe.api import load_inpainter
from occpipe.core.classes import coco_stuff
from occpipe.core.config_file import load_config
from occpipe.core.masks import Rle
from occpipe.core.types import Image, Mask, Segment, Segmentation
from occpipe.io.images import Limits, decode
from occpipe.models.loading import load_relations
from occpipe.models.relations.decide import decide
from occpipe.pipeline.run import clean_corpus, scan_corpus
from tests.chaos.runs import Run
from tests.helpers.s3 import s3_environment, s3_server
from tests.helpers.scenes import SHARED_DATA, encoded, photo
from tests.integration.test_pipeline import rows_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

COUNT = 50


def photo_of(number: int) -> Image:
    """A cut-out of one of four photos, 128 x 160."""
    whole = photo(("astronaut", "chelsea", "coffee", "rocket")[number % 4])
    top, left = number * 7 % (whole.shape[0] - 128), number * 13 % (whole.shape[1] - 160)
    return whole[top : top + 128, left : left + 160]


def mask_of(number: int) -> Mask:
    """A disc at a place of its own."""
    y, x = np.mgrid[:128, :160]
    disc: Mask = ((y - 40 - number) ** 2 + (x - 50 - number) ** 2 < (10 + number % 12) ** 2).astype(np.uint8)
    return disc


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    for part in ("photos/a", "masks/a"):
        (folder / part).mkdir(parents=True)
    for number in range(COUNT):
        grey = np.repeat(mask_of(number)[..., None] * np.uint8(255), 3, -1)
        (folder / f"photos/a/{number:02}.png").write_bytes(encoded(photo_of(number), "PNG"))
        (folder / f"masks/a/{number:02}.png").write_bytes(encoded(grey, "PNG"))
    (folder / "photos" / "without.png").write_bytes(encoded(photo_of(0), "PNG"))
    names = [f"{number:02}.png" for number in range(COUNT)]
    images = [{"id": n, "file_name": name, "height": 128, "width": 160} for n, name in enumerate(names)]
    things = [{"image_id": n, "category_id": 17, "segmentation": rle_of(mask_of(n))} for n in range(COUNT)]
    write_coco(folder / "labels.json", images, things, [{"id": 17, "name": "cat"}])
    return folder


def rle_of(mask: Mask) -> dict[str, Any]:
    return {"size": [*mask.shape], "counts": Rle.encode(mask).counts.decode()}


def write_coco(path: Path, images: list[Any], annotations: list[Any], categories: list[Any]) -> None:
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


@pytest.fixture(scope="module")
def filled(corpus: Path) -> Path:
    """The output of a run on a disk."""
    config = load_config("local", [f"segmenter.model=masks:{corpus}/masks"])
    clean_corpus(config, str(corpus / "photos"), str(corpus / "filled"))
    return corpus / "filled"


def test_given_masks_are_filled_and_nothing_else(filled: Path) -> None:
    fill = load_inpainter("starter", device="cpu")
    rows = rows_of(str(filled))
    assert len(rows) == COUNT + 1
    assert (rows["without.png"]["reason"], rows["without.png"]["output"]) == ("no_label", None)
    for number in range(COUNT):
        row = rows[f"a/{number:02}.png"]
        assert [(thing["label"], thing["reason"]) for thing in row["objects"]] == [("given mask", "given")]
        written = decode((filled / row["output"]).read_bytes(), Limits())
        assert (written == fill(photo_of(number), mask_of(number))).all(), number


@pytest.fixture
def bucket(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Photos, masks and annotations in a bucket."""
    with s3_server(tmp_path) as address:
        for name, value in s3_environment(address).items():
            monkeypatch.setenv(name, value)
        for part in ("photos", "masks"):
            shutil.copytree(corpus / part, tmp_path / "bucket" / part)
        shutil.copy(corpus / "labels.json", tmp_path / "bucket")
        yield "s3://bucket"


def killed_and_resumed(source: str, output: str, settings: list[str]) -> dict[str, dict[str, Any]]:
    """The rows of a run that was killed in the middle, and went on."""
    settings = [*settings, "inpainter.model=starter", "ray.block_mb=1"]
    run = Run(source, output, settings=settings)
    run.wait_for(8)
    run.kill()
    assert 8 <= run.rows_committed() < COUNT, "it was killed in the middle"
    code, last = Run(source, output, settings=settings).finish()
    assert code == 0, last
    return rows_of(output)


def test_masks_on_s3_give_the_same_bytes_after_a_kill(bucket: str, filled: Path) -> None:
    model = f"segmenter.model=masks:{bucket}/masks/{{stem}}.png"
    remote = killed_and_resumed(f"{bucket}/photos", f"{bucket}/out", [model])
    local = rows_of(str(filled))
    sums = [{uri: row["output_sha256"] for uri, row in rows.items()} for rows in (remote, local)]
    assert sums[0] == sums[1]


def test_annotations_on_s3_give_the_masks_that_they_hold_after_a_kill(bucket: str) -> None:
    rows = killed_and_resumed(f"{bucket}/photos", f"{bucket}/out", [f"segmenter.model=coco:{bucket}/labels.json"])
    assert rows.pop("without.png")["reason"] == "no_label"
    for uri, row in rows.items():
        (thing,) = row["objects"]
        assert thing["mask"] == Rle.encode(mask_of(int(Path(uri).stem))).counts.decode()
        assert (thing["label"], thing["score"], row["status"]) == ("cat", 1.0, "cleaned")
    assert any(row["stuff"] for row in rows.values()), "the file knows no stuff, and the starter tags it"


LABELLED = SHARED_DATA / "segmentation"


@pytest.mark.skipif(not LABELLED.is_dir(), reason="needs the labelled photos of ../shared/data/segmentation")
def test_decisions_on_given_labels_are_those_of_decide(tmp_path: Path) -> None:
    """354 photos of COCO: their class masks and lists of stuff as a JSON file."""
    entries = [json.loads(line) for line in (LABELLED / "index.jsonl").read_text().splitlines()]
    entries = [entry for entry in entries if entry["set"] == "coco"]
    assert len(entries) == 354
    classes = coco_stuff()
    config = load_config("local", [f"segmenter.model=coco:{tmp_path}/labels.json"])
    scorer = load_relations(config.relations)
    expected: dict[str, list[Any]] = {}
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        with Pil.open(LABELLED / "labels" / f"{entry['name']}.png") as picture:
            label = np.asarray(picture)
        segments = []
        for index in entry["classes"]:
            mask = (label == index).astype(np.uint8)
            if classes[index].is_thing and mask.any():
                segments.append(Segment.from_mask(classes[index].name, True, 1.0, mask))
                annotations.append({"image_id": number, "category_id": index, "segmentation": rle_of(mask)})
        listed = entry["image_level_stuff"] or ()
        stuff = {classes[index].name: 1.0 for index in listed}
        boxes = [{"image_id": number, "category_id": index, "bbox": [0, 0, 1, 1]} for index in listed]
        annotations += boxes
        size = {"height": label.shape[0], "width": label.shape[1]}
        images.append({"id": number, "file_name": f"{entry['name']}.jpg", **size})
        things = decide(Segmentation(size["height"], size["width"], tuple(segments), stuff), scorer, config.policy)
        expected[f"{entry['name']}.jpg"] = [(t.label, t.verdict, t.reason) for t in things]
    write_coco(
        tmp_path / "labels.json", images, annotations, [{"id": n, "name": c.name} for n, c in enumerate(classes)]
    )
    scan_corpus(config, f"{LABELLED}/images/coco_*.jpg", str(tmp_path / "out"))
    rows = rows_of(str(tmp_path / "out"))
    decided = {uri: [(o["label"], o["verdict"], o["reason"]) for o in row["objects"]] for uri, row in rows.items()}
    assert decided == expected
