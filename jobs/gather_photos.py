"""Gather labelled photo folders into one folder, in the format of docs/segmenters.md, for `train_segmenter.py`.

python jobs/gather_photos.py DIR1 DIR2 --out DIR --pseudo LABELS

Fine classes of stuff are merged into coarse ones. A photo that stands in two folders is taken from the later one, under
its first name, so that it stays on its side of the held-out split. Pseudo-labels (8-bit PNGs, 255 = unsure) fill pixels
that are none of the classes of their set. Photos of the calibration split are left out: no training sees them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from occpipe.training.segmentation_data import IGNORE, NONE, THINGS, is_calibration, is_held_out

# What has pixels beside the 80 things; "from" classes are labelled as the class they are listed under.
STUFF = {
    "building-other": ("house", "bridge", "roof", "skyscraper"),
    "cabinet": ("cupboard",),
    "ceiling-other": ("ceiling-tile",),
    "dirt": ("gravel", "ground-other"),
    "fence": (),
    "floor-other": ("floor-wood", "floor-tile", "floor-stone", "floor-marble", "rug", "carpet"),
    "flower": (),
    "grass": ("playingfield",),
    "mountain": ("hill",),
    "pavement": (),
    "road": (),
    "rock": ("stone",),
    "sand": (),
    "sky-other": ("clouds",),
    "snow": (),
    "tree": ("bush",),
    "wall-other": ("wall-brick", "wall-stone", "wall-tile", "wall-wood", "wall-concrete", "wall-panel"),
    "water-other": ("sea", "river"),
    "window-other": ("window-blind",),
}
SETS = ("voc", "msrc", "ccp", "camvid", "coco", "pano", "coco2", "adestuff", "amenity")


def merging(names: list[str]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """256 entries: index of a class to the index under which it is labelled; stuff that nothing covers to NONE."""
    lut = np.arange(256, dtype=np.uint8)
    lut[THINGS : len(names)] = NONE
    for name, others in STUFF.items():
        for other in (name, *others):
            if other in names:
                lut[names.index(other)] = names.index(name)
    return lut


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of labelled photos; later ones win.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    pseudo: Annotated[Path | None, typer.Option(help="Folder of pseudo-labels, NAME.png.")] = None,
) -> None:
    """Write the gathered folder; photos are links."""
    for part in ("images", "labels"):
        (out / part).mkdir(parents=True, exist_ok=True)
    rows: dict[str, tuple[Path, dict[str, Any]]] = {}
    supervised: dict[str, list[int]] = {}
    for folder in folders:
        space = json.loads((folder / "label_space.json").read_text())
        names: list[str] = space["classes"]
        lut = merging(names)
        for group, indices in space["supervised"].items():
            supervised[group] = sorted({int(lut[i]) for i in indices} - {NONE})
        for line in (folder / "index.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["set"] not in SETS or is_calibration(row["name"]):
                continue
            name = row.get("also") or row["name"]
            listed = row.get("image_level_stuff") or rows.get(name, (folder, {}))[1].get("image_level_stuff")
            if listed and row.get("coco_split") != "val2017":  # some folders count stuff from 182 on
                shift = THINGS if max(listed) >= len(names) else 0
                row["image_level_stuff"] = [i - shift for i in listed]
            else:
                row.pop("image_level_stuff", None)
            rows[name] = folder, row
    with (out / "index.jsonl").open("w") as index:
        for name, (folder, row) in rows.items():
            label = cv2.imread(str(folder / "labels" / f"{row['name']}.png"), cv2.IMREAD_UNCHANGED)
            guess = None if pseudo is None else cv2.imread(str(pseudo / f"{row['name']}.png"), cv2.IMREAD_UNCHANGED)
            merged = lut[label]
            if guess is not None and not is_held_out(name):
                free = (merged == NONE) | ((merged == IGNORE) & (row["set"] == "amenity"))
                own = np.isin(guess, supervised[row["set"]])  # a set that labels a class knows better
                merged = np.where(free & (guess != IGNORE) & ~own, guess, merged)
            cv2.imwrite(str(out / "labels" / f"{name}.png"), merged)
            link = out / "images" / f"{name}.jpg"
            link.unlink(missing_ok=True)
            link.symlink_to((folder / "images" / f"{row['name']}.jpg").resolve())
            index.write(
                json.dumps({k: row[k] for k in ("set", "image_level_stuff") if k in row} | {"name": name}) + "\n"
            )
    used = {group: supervised[group] for group in SETS if group in supervised}
    (out / "label_space.json").write_text(json.dumps({"classes": names, "supervised": used}))
    print(f"{len(rows)} photos")


if __name__ == "__main__":
    typer.run(main)
