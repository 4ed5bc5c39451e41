from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from occpipe.analysis.pages.drawing import colour_of, overlay
from occpipe.analysis.pages.preview import GIF_SIDE, save_gif
from occpipe.analysis.pages.preview_sheet import GONE, WIDTH, draw_preview, draw_things
from occpipe.core.types import CleanResult, Evidence, Mask, Reason, SceneObject, Segment, Verdict
from tests.helpers.scenes import gradient


def removed_cat(mask: Mask) -> SceneObject:
    cat = Segment.from_mask("cat", True, 0.9, mask)
    return SceneObject(cat, 0.05, Verdict.REMOVE, Reason.UNRELATED, (Evidence("sea", 0.3), Evidence("sky-other", 0.1)))


def box(height: int = 120, width: int = 160) -> Mask:
    mask = np.zeros((height, width), np.uint8)
    mask[40:80, 40:90] = 1
    return mask


def reds(picture: Pil.Image) -> int:
    return int((np.asarray(picture) == GONE).all(axis=2).sum())


def test_a_preview_names_what_is_removed() -> None:
    rgb, mask = gradient(120, 160), box()
    drawn = draw_preview(rgb, CleanResult(rgb, mask, (removed_cat(mask),), {"sea": 0.8}), 0.1)
    plain = draw_preview(rgb, CleanResult(rgb, mask * 0, (), {}), 0.1)
    assert drawn.size == plain.size
    assert drawn.width == WIDTH
    assert reds(drawn) > 500, "its name, its verdict and its dot"
    assert reds(plain) == 0


def test_a_preview_of_many_things_and_of_odd_shapes_stays_in_bounds() -> None:
    for height, width in ((40, 900), (900, 40)):
        rgb, mask = gradient(height, width), np.ones((height, width), np.uint8)
        drawn = draw_preview(rgb, CleanResult(rgb, mask, (removed_cat(mask),) * 60, {}), 1.0)
        assert drawn.width == WIDTH
        assert drawn.height < 1800


def test_things_are_outlined_and_what_is_filled_is_tinted() -> None:
    rgb, mask = gradient(120, 160), box()
    drawn = draw_things(rgb, CleanResult(rgb, mask, (removed_cat(mask),), {}))
    assert np.abs(drawn[40, 45:85].astype(int) - GONE).mean() < 25, "its edge"
    assert drawn[60, 60, 0] > rgb[60, 60, 0]
    assert np.array_equal(drawn[:, 110:], rgb[:, 110:])


def test_a_gif_holds_before_and_after(tmp_path: Path) -> None:
    rgb, mask = gradient(600, 800), box(600, 800)
    save_gif(rgb, CleanResult(255 - rgb, mask, (), {}), tmp_path / "x.gif")
    with Pil.open(tmp_path / "x.gif") as gif:
        frames, times = [], []
        for number in range(gif.n_frames):  # type: ignore[attr-defined]  # Pillow's types do not know it
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
            times.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    assert max(frames[0].shape) == GIF_SIDE
    longest = sorted(range(len(times)), key=lambda n: -times[n])[:2]
    before, after = (frames[n] for n in sorted(longest))
    small = np.asarray(Pil.fromarray(rgb).resize((GIF_SIDE, GIF_SIDE * 3 // 4)))
    assert np.abs(before - small)[200:].mean() < 12
    assert np.abs(after - (255 - small)).mean() < 12


def test_a_preview_starts_without_what_it_does_not_need() -> None:
    code = "import sys, occpipe.cli.main, occpipe.analysis.pages.preview; "
    code += "print([m for m in ('ray', 'duckdb', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


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
