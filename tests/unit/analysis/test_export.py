from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from occpipe.analysis.export import export
from occpipe.analysis.export.coco import FIRST_OWN_ID, category_ids
from occpipe.analysis.export.huggingface import card
from occpipe.analysis.export.sidecar import name_of
from occpipe.core.errors import StorageError
from occpipe.core.masks import Rle, rle_decode
from occpipe.io.storage import open_store
from tests.helpers.published import publish_rows, removed_row, scene_row
from tests.helpers.scenes import encoded, gradient
from tests.helpers.stores import CREDENTIALS, make_bucket, moto_server

NAMES = {1: "train/1.jpg", 2: "=cmd|' /C calc'!<b>|.jpg"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos from which a cat goes, with their images, and one that failed, in two shards; names from a stranger."""
    folder = tmp_path_factory.mktemp("export") / "cleaned"
    error = {"stage": "load", "type": "ImageError", "message": "no"}
    rows = [
        removed_row(1, {"cat": 0.05, "person": 0.8}, {"grass": 0.9}, share=0.1),
        removed_row(2, {"cat": 0.11, "gnome": 0.4}, {"grass": 0.7}, share=0.25),
    ]
    for row in rows:
        row |= {"uri": NAMES[row["image_id"]], "output": f"images/{NAMES[row['image_id']]}"}
        path = folder / row["output"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(gradient(90, 100), quality=90 + row["image_id"]))
    bad = {"image_id": 3, "uri": "../3.jpg", "status": "error", "reason": "unsafe_path", "error": error, "config": "c"}
    return publish_rows(folder, [rows[0], bad, rows[1]], shard_images=2)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read_coco(folder: Path) -> COCO:
    """The files of all shards as one: no id may be in two of them."""
    content: dict[str, Any] = {"images": [], "annotations": []}
    for path in sorted(folder.iterdir()):
        shard = json.loads(path.read_text())
        assert content.setdefault("categories", shard["categories"]) == shard["categories"]
        for name in ("images", "annotations"):
            content[name] += shard[name]
    for name in ("images", "annotations"):
        ids = [item["id"] for item in content[name]]
        assert len(ids) == len(set(ids))
    merged = COCO()
    merged.dataset = content
    merged.createIndex()
    return merged


def test_pycocotools_reads_the_things_and_their_areas(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(str(output), str(tmp_path / "coco"), "coco") == 2
    names = [f"{kind}/shard-00000{shard}.json" for kind in ("objects", "removals") for shard in (0, 1)]
    assert files_below(tmp_path / "coco") == set(names)
    objects = read_coco(tmp_path / "coco" / "objects")
    assert [image["file_name"] for image in objects.loadImgs(objects.getImgIds())] == list(NAMES.values())
    classes = {number: category["name"] for number, category in objects.cats.items()}
    assert classes == {1: "person", 17: "cat", FIRST_OWN_ID: "gnome"}, "COCO's ids for COCO's names"
    verdicts = [(a["image_id"], classes[a["category_id"]], a["verdict"], a["reason"]) for a in objects.anns.values()]
    assert verdicts == [
        (1, "cat", "remove", "unrelated"),
        (1, "person", "keep", "related"),
        (3, "cat", "remove", "unrelated"),
        (3, "gnome", "keep", "related"),
    ]
    uris = {image["id"]: image["file_name"] for image in objects.imgs.values()}
    numbers = {uri: number for number, uri in NAMES.items()}
    for annotation in objects.anns.values():
        mask = objects.annToMask(annotation)
        assert mask.shape == (90, 100)
        assert mask.sum() == annotation["area"] == 12 * (20 + numbers[uris[annotation["image_id"]]])
        left, top, width, height = annotation["bbox"]
        assert mask[int(top) : int(top + height), int(left) : int(left + width)].all(), "it is a full box"
    removals = COCO(str(tmp_path / "coco" / names[2]))
    assert [a["area"] for a in removals.anns.values()] == [12 * 21], "pycocotools reads a file by itself"
    removals = read_coco(tmp_path / "coco" / "removals")
    assert [a["area"] for a in removals.anns.values()] == [12 * 21, 12 * 22]
    capsys.readouterr()  # pycocotools prints


def test_masks_of_coco_are_scaled_up_to_the_image_and_those_of_a_sidecar_are_not(tmp_path: Path) -> None:
    row = removed_row(1, {"cat": 0.05, "person": 0.8}, {"grass": 0.9}, share=0.1) | {"width": 400, "height": 360}
    output = publish_rows(tmp_path / "cleaned", [row])
    assert export(str(output), str(tmp_path / "coco"), "coco") == 1
    for kind, number in (("objects", 2), ("removals", 1)):
        content = read_coco(tmp_path / "coco" / kind)
        assert len(content.anns) == number
        for annotation in content.anns.values():
            mask = content.annToMask(annotation)
            assert mask.shape == (360, 400)
            assert mask.sum() == annotation["area"] == pytest.approx(16 * 12 * 21, rel=0.02)
            left, top, width, height = annotation["bbox"]
            assert (width, height) == (4 * 12, 4 * 21)
            assert mask[int(top) : int(top + height), int(left) : int(left + width)].mean() > 0.98, (
                "but for its corners"
            )
    export(str(output), str(tmp_path / "side"), "sidecar")
    assert json.loads((tmp_path / "side" / "1.jpg.json").read_text())["mask"]["size"] == [90, 100]


def test_what_fiftyone_asks_of_coco(output: Path, tmp_path: Path) -> None:
    """FiftyOne's importer reads these keys, and takes run lengths as a dict with `size` and `counts`."""
    export(str(output), str(tmp_path / "coco"), "coco")
    content = json.loads((tmp_path / "coco" / "objects" / "shard-000000.json").read_text())
    assert {"info", "licenses", "categories", "images", "annotations"} == content.keys()
    assert {"id", "file_name", "width", "height"} <= content["images"][0].keys()
    assert {"id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd"} <= content["annotations"][
        0
    ].keys()
    assert {"size", "counts"} == content["annotations"][0]["segmentation"].keys()


def test_categories_of_two_spellings_have_ids_of_their_own() -> None:
    ids = category_ids(["dining table", "table-merged", "table", "gnome", "table"])
    assert ids == {"dining table": 67, "table": 165, "gnome": 1001, "table-merged": 1002}


def test_ids_count_on_over_row_groups_and_shards(tmp_path: Path) -> None:
    rows = [scene_row(number, {"cat": 0.9, f"toy {number % 7}": 0.8}, {}) for number in range(2_500)]
    output = publish_rows(tmp_path / "cleaned", rows, shard_images=1_200)
    assert export(str(output), str(tmp_path / "coco"), "coco") == 2_500
    objects = read_coco(tmp_path / "coco" / "objects")
    assert sorted(objects.imgs) == list(range(1, 2_501))
    assert sorted(objects.anns) == list(range(1, 5_001))
    assert sorted(category["name"] for category in objects.cats.values()) == ["cat", *(f"toy {n}" for n in range(7))]
    assert read_coco(tmp_path / "coco" / "removals").imgs == {}


def test_datasets_loads_the_folder(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    assert export(str(output), str(tmp_path / "hf"), "hf") == 2
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "hf"), cache_dir=cache)
    assert {split: len(part) for split, part in loaded.items()} == {"train": 2}
    by_path = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=cache)
    assert set(by_path["uri"]) == set(NAMES.values())
    (first,) = (row for row in loaded["train"] if row["uri"] == NAMES[1])  # it reads shards in any order
    assert np.asarray(first["image"]).shape == (90, 100, 3)
    assert (first["uri"], first["status"], first["objects"][0]["reason"]) == ("train/1.jpg", "cleaned", "unrelated")
    counts = first["objects"][0]["mask"].encode()
    assert rle_decode(Rle(90, 100, counts)).sum() == first["objects"][0]["area"]
    for shard, name in enumerate(NAMES.values()):
        copied = tmp_path / "hf" / f"shard-00000{shard}" / "000000.jpg"
        assert copied.read_bytes() == (output / "images" / name).read_bytes()


def test_the_card_says_how_it_was_made_and_is_no_markup_of_strangers(output: Path, tmp_path: Path) -> None:
    manifest = json.loads((output / "metadata" / "_manifest.json").read_text())
    manifest["removed"] = {"<script>|\n# x": 2, "cat": 1}
    manifest["models"] = [{"name": "starter", "licence": "Apache-2.0", "sha256": "ab" * 32}]
    text = "".join(card(manifest, 2))
    assert "size_categories:\n- n<1K" in text
    assert "| cleaned | 2 |" in text
    assert f"| starter | Apache-2.0 | {'ab' * 32} |" in text
    assert "| &lt;script&gt;\\| # x | 2 |" in text
    assert "    policy:\n" in text


def test_a_sidecar_for_each_image(output: Path, tmp_path: Path) -> None:
    assert export(str(output), str(tmp_path / "side"), "sidecar") == 2, "a name that leaves the folder has none"
    content = json.loads((tmp_path / "side" / "train" / "1.jpg.json").read_text())
    assert [(item["label"], item["verdict"]) for item in content["objects"]] == [("cat", "remove"), ("person", "keep")]
    assert content["mask"] == {"size": [90, 100], "counts": content["objects"][0]["mask"]["counts"]}
    assert not list(tmp_path.glob("*.json"))


def test_no_sidecar_is_in_the_way_of_another() -> None:
    uris = ("a", "a.json/b.jpg", "a.json_/b.jpg", "a.json/a.json/b.jpg", "a.json/a")
    names = [name_of(uri) for uri in uris]
    assert names[:3] == ["a.json", "a.json_/b.jpg.json", "a.json__/b.jpg.json"]
    folders = {str(parent) for name in names for parent in Path(name).parents}
    assert len({*names, *folders}) == len(uris) + len(folders)


def test_a_bucket_gets_the_same_files_as_a_folder(
    output: Path, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    bucket = make_bucket(tmp_path.name)
    there, here = open_store(f"{bucket}/cleaned"), str(output)
    for key in files_below(output):
        there.write(key, (output / key).read_bytes())
    for kind, source in (("coco", there.uri), ("hf", there.uri), ("hf", here), ("sidecar", here)):
        dest, local = open_store(f"{bucket}/{kind}-{len(source)}"), tmp_path / f"{kind}-{len(source)}"
        assert export(source, dest.uri, kind) == export(source, str(local), kind) == 2
        assert {entry.key for entry in dest.walk()} == files_below(local)
        for key in files_below(local):
            assert dest.read(key) == (local / key).read_bytes()
    with pytest.raises(StorageError, match="not an empty folder"):
        export(here, dest.uri, "coco")


def test_nothing_is_overwritten(output: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(StorageError, match="not an empty folder"):
            export(str(output), str(folder), "coco")
    with pytest.raises(StorageError, match="nothing is published"):
        export(str(tmp_path), str(tmp_path / "new"), "coco")
    assert not (tmp_path / "new").exists()
