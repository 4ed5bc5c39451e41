"""Every command in docs/ is run as it stands there."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from jobs.make_demo import scenes
from occpipe.core.classes import coco_stuff
from occpipe.models.relations.vectors import read_asset
from tests.helpers.containers import datasets_table, tar_of, write_parquet
from tests.helpers.published import publish_rows, removed_row, scene_row
from tests.helpers.scenes import encoded
from tests.helpers.tiny_models import save_tiny_sam3
from tests.integration.test_readme import ROOT, bash

DOCS = ROOT / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def test_the_sql_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each query runs, one after the other, and those of the command stand there as it asks them."""
    from occpipe.analysis.audit import queries

    rows = [removed_row(n, {"cat": 0.05, "dog": 0.11}, {"grass": 0.9, "tree": 0.5}, share=0.3) for n in range(1, 4)]
    publish_rows(tmp_path / "cleaned", [*rows, scene_row(9, {"car": 0.9}, {"road": 0.9})])
    publish_rows(tmp_path / "earlier", [rows[0], scene_row(2, {}, {})])
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "sql.md").read_text(encoding="utf-8")
    scripts = re.findall(r"^```sql\n(.*?)^```", page, re.M | re.S)
    said = [query.strip().removesuffix(";") for query in scripts]
    assert set(queries().values()) <= set(said)
    assert (ROOT / "occpipe" / "analysis" / "views.sql").read_text(encoding="utf-8") == scripts[0]
    with duckdb.connect() as database:
        answers = [database.execute(script).fetchall() for script in scripts]
    empty = [query.split()[0] for query, answer in zip(said, answers, strict=True) if not answer]
    assert empty == ["CREATE", "SELECT", "SET"], "no image failed"
    assert answers[-1] == [("unchanged", "cleaned", 1, "2.jpg")]
    assert (tmp_path / "large.txt").read_text().split() == ["1.jpg", "2.jpg", "3.jpg"]


def labelled(folder: Path) -> None:
    """Two photos whose set labels person and sky: a meadow below the sky, and one without a list of its stuff."""
    names = [c.name for c in coco_stuff()]
    sky, grass = names.index("sky-other"), names.index("grass")
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    (folder / "label_space.json").write_text(json.dumps({"classes": names, "supervised": {"mine": [0, sky]}}))
    rows = []
    for name in ("a", "b"):
        rgb, label = np.full((120, 160, 3), (150, 190, 250), np.uint8), np.full((120, 160), sky, np.uint8)
        rgb[70:], label[70:] = (60, 140, 40), 254
        Image.fromarray(rgb).save(folder / "images" / f"{name}.jpg")
        Image.fromarray(label).save(folder / "labels" / f"{name}.png")
        rows.append(json.dumps({"name": name, "set": "mine", "image_level_stuff": [sky, grass]}))
    (folder / "index.jsonl").write_text("\n".join(rows) + "\n")


def add_labels(folder: Path) -> None:
    """A mask, an annotation and a tiny SAM 3 for the photo of the palace: something before it is called a toilet."""
    mask = np.zeros((427, 640), np.uint8)
    mask[277:, :150] = 255
    (folder / "masks").mkdir()
    Image.fromarray(mask).save(folder / "masks" / "palace.png")
    classes = [{"id": c.id, "name": c.name} for c in coco_stuff()]
    boxes = {"toilet": [0, 277, 150, 150]} | {
        name: [0, 0, 640, 200] for name in ("sky-other", "grass", "building-other")
    }
    numbers = {c.name: c.id for c in coco_stuff()}
    things = [{"image_id": 1, "category_id": numbers[name], "bbox": box} for name, box in boxes.items()]
    images = [{"id": 1, "file_name": "palace.jpg", "height": 427, "width": 640}]
    document = {"images": images, "annotations": things, "categories": classes}
    (folder / "instances.json").write_text(json.dumps(document))
    save_tiny_sam3(folder / "sam3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Captions, lists, aliases, a photo, an earlier run and its verdicts, by the names that the pages use."""
    rng = random.Random(0)
    worlds = [("surfboard person boat", "sea sand rock sky-other"), ("cat bed book", "pillow blanket wall-other rug")]
    captions, things, stuff = ["image\tcaption"], ["image\tclasses"], ["image\tclasses"]
    for number in range(400):
        own, around = (part.split() for part in worlds[number % 2])
        seen, near = rng.sample(own, 2), rng.sample(around, 3)
        captions.append(
            f"{number}\tA {seen[0]} and a {seen[1]} and a lorry near the {near[0]} and {near[1].split('-')[0]}."
        )
        things.append(f"{number}\t{','.join(seen)}")
        stuff.append(f"{number}\t{','.join(near)}")
    for name, rows in (("captions", captions), ("things", things), ("stuff", stuff)):
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "aliases.csv").write_text("alias,token\nlorry,truck\n")
    cars = [scene_row(n, {"car": 0.9, "cat": 0.8}, {"road": 0.9, "tree": 0.6}) for n in range(120)]
    publish_rows(tmp_path / "cleaned", cars)
    publish_rows(tmp_path / "earlier", cars[:60])
    verdicts = [f"{n}.jpg,{thing},{v}" for n in range(100) for thing, v in (("0", "keep"), ("cat", "remove"))]
    (tmp_path / "verdicts.csv").write_text("image,object,verdict\n" + "\n".join(verdicts) + "\n")
    labelled(tmp_path / "labelled")
    answers = [f"palace.jpg,{run},{natural},no,Ada" for run, natural in (("original", "yes"), ("first", "no"))]
    (tmp_path / "answers.csv").write_text("image,run,natural,missing,rater\n" + "\n".join(answers) + "\n")
    (tmp_path / "photos").mkdir()
    palace = encoded(dict(scenes())["cat_at_the_palace"])
    (tmp_path / "photos" / "palace.jpg").write_bytes(palace)
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "00000.tar").write_bytes(tar_of([("0.jpg", palace), ("0.txt", b"a palace")]))
    write_parquet(tmp_path / "parquet" / "train-00000.parquet", datasets_table([palace], caption=["a palace"]))
    return tmp_path


@pytest.mark.parametrize(("page", "script"), [(p.name, b) for p in sorted(DOCS.glob("*.md")) for b in blocks(p.name)])
def test_commands_of_the_pages(page: str, script: str, folder: Path) -> None:
    if page == "labels.md":
        add_labels(folder)
    printed = bash(script, folder)
    made = re.findall(r"^occpipe (?:clean|scan|apply) \S+ (\S+)(?!.*--dry-run)", script, re.M)
    for output in made:  # which say how it went on standard error
        assert (folder / output / "metadata" / "_manifest.json").is_file()
    for name in re.findall(r"^occpipe preview .*--out (\S+)", script, re.M):
        assert [path.suffix for path in (folder / name).iterdir()] == [".png"]
    assert printed or made
    for name in re.findall(r"--overlays (\S+)", script):
        assert {p.name for p in (folder / name).iterdir()} == {"a.png", "b.png"}
    for name in re.findall(r"--out (\S+\.safetensors)", script):
        _, description = read_asset(folder / name)
        assert description["calibration"]["scale"] > 0
        assert 0 < description["default_cut"] < 1


def test_pictures_of_the_pages_can_be_drawn_again(tmp_path: Path) -> None:
    bash(f"python jobs/class_map.py --out {tmp_path}/map.svg", ROOT)
    drawn, shown = (
        (folder / name).read_text("utf-8") for folder, name in ((tmp_path, "map.svg"), (DOCS, "class-map.svg"))
    )
    assert re.findall(r">(\w+)</text>", drawn) == re.findall(r">(\w+)</text>", shown)  # places differ by processor
    bash(f"python jobs/segment_sheet.py --out {tmp_path}/sheet.jpg", ROOT)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.size[0] == 1240
