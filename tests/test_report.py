from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from occpipe.config_file import load_config
from occpipe.ledger import write_part
from occpipe.masks import Rle
from occpipe.preview import colour_of, draw_preview, overlay
from occpipe.report import write_report
from occpipe.schemas import PUBLISHED
from occpipe.stages.publish import publish
from occpipe.storage import open_store
from occpipe.summary import Made
from occpipe.types import (
    CleanResult,
    Evidence,
    Reason,
    SceneObject,
    Segment,
    Segmentation,
    Verdict,
)
from tests.scenes import encoded, gradient


def test_the_page_shows_pictures_and_escapes_names(tmp_path: Path) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[10:20, 10:30] = 1
    counts = Rle.encode(mask).counts.decode()
    item = {
        "label": "cat",
        "verdict": "remove",
        "reason": "unrelated",
        "relation": 0.03,
        "evidence": [{"context": "sky-other", "relation": 0.3}, {"context": "sea", "relation": 0.1}],
    }
    base = {"config": "c", "width": 96, "height": 64, "objects": []}
    rows = [
        base | {"image_id": 1, "uri": "plain.jpg", "status": "unchanged", "output": "images/plain.jpg"},
        base
        | {
            "image_id": 2,
            "uri": "<b>cat</b>.jpg",
            "status": "cleaned",
            "output": "images/cat.jpg",
            "mask": counts,
            "objects": [item],
        },
        base | {"image_id": 3, "uri": "bad.jpg", "status": "error", "reason": "truncated", "error": {"message": "<i>"}},
    ]
    corpus, output = open_store(str(tmp_path / "in")), open_store(str(tmp_path / "out"))
    for name in ("plain.jpg", "<b>cat</b>.jpg"):
        corpus.write(name, encoded(gradient()))
    output.write("images/cat.jpg", encoded(gradient()))
    write_part(output, 1, pa.Table.from_pylist(rows, PUBLISHED))
    publish(output, load_config(), [], corpus.uri)
    page = tmp_path / "page" / "report.html"
    assert write_report(output.uri, corpus.uri, page, 2) == 2
    text = page.read_text()
    assert text.index("cat") < text.index("plain.jpg"), "cleaned images come first"
    assert text.count("<img ") == 4
    assert "<b>cat</b>" not in text
    assert "nearest sky-other (0.30), farthest sea (0.10)" in text
    assert "http" not in text.replace("http-equiv", ""), "nothing is loaded from elsewhere"
    assert write_report(output.uri, corpus.uri, page, 9) == 3
    assert "truncated: &lt;i&gt;" in page.read_text()
    assert json.loads(output.read("metadata/_manifest.json"))["removed"] == {"cat": 1}


def test_preview_names_what_is_removed() -> None:
    rgb = gradient(120, 160)
    mask = np.zeros((120, 160), np.uint8)
    mask[40:80, 40:90] = 1
    cat = Segment.from_mask("cat", True, 0.9, mask)
    item = SceneObject(cat, 0.05, Verdict.REMOVE, Reason.UNRELATED, (Evidence("sea", 0.3), Evidence("sky", 0.1)))
    scene = Segmentation(120, 160, (cat,), {"sea": 0.8})
    drawn = np.asarray(draw_preview(rgb, scene, CleanResult(rgb, mask, (item,), scene.stuff), 0.1))
    plain = np.asarray(draw_preview(rgb, Segmentation(120, 160), CleanResult(rgb, mask * 0, (), {}), 0.1))
    assert drawn.shape == plain.shape
    red = (drawn == (214, 40, 40)).all(axis=2)
    assert red.any(), "the removed thing's line is red"


def test_overlay_touches_the_mask_only() -> None:
    rgb = gradient()
    mask = np.zeros(rgb.shape[:2], np.uint8)
    mask[:, :48] = 1
    tinted = overlay(rgb, mask, (255, 0, 0))
    assert np.array_equal(tinted[:, 48:], rgb[:, 48:])
    assert tinted[:, :48, 0].mean() > rgb[:, :48, 0].mean()


def test_colours_differ() -> None:
    names = ["sky-other", "tree", "building-other", "water-other", "grass", "person", "cat", "dog", "car"]
    assert len({colour_of(name) for name in names}) == len(names)


def test_names_in_a_summary_steer_no_terminal() -> None:
    made = Made()
    error = {"stage": "fetch", "type": "ImageError", "message": "unsafe"}
    row = {"uri": "a\x1b[2J\n0 errors.jpg", "status": "error", "reason": "unsafe_path", "error": error}
    made.add(pa.Table.from_pylist([row]))
    assert made.examples == {"unsafe_path": "a\\x1b[2J\\x0a0 errors.jpg: unsafe"}
