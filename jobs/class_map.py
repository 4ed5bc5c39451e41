"""Draw the class vectors as a map (the t-SNE figure of the 2019 paper), as SVG.

python jobs/class_map.py [--relations FILE] --out docs/class-map.svg
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from occpipe.core.classes import coco_stuff
from occpipe.models.relations.vectors import read_asset

WIDTH, HEIGHT, MARGIN = 1400, 1000, 70
COLOURS = {True: "#b3361d", False: "#1d5fa8"}
STEPS = 200


def spread(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Push labels apart, N x 2 centres in pixels with N x 2 half sizes, until hardly any two overlap."""
    points = points.copy()
    for _ in range(STEPS):
        gap = points[:, None] - points[None]
        lap = (sizes[:, None] + sizes[None]) - np.abs(gap)
        both = (lap > 0).all(2)
        np.fill_diagonal(both, False)
        push = np.where(both, lap[..., 1], 0) * np.where(gap[..., 1] >= 0, 0.5, -0.5)
        points[:, 1] += push.sum(1).clip(-12, 12) / 2
    return points


def main(
    out: Annotated[Path, typer.Option(help="The SVG to write.")],
    relations: Annotated[
        Path | None, typer.Option(help="A relation file (.safetensors); without it, the shipped one.")
    ] = None,
) -> None:
    """Draw the tokens of the 182 classes: near = seen in like captions; things red, stuff blue."""
    from sklearn.manifold import TSNE

    arrays, description = read_asset(relations)
    kinds = {c.token: c.is_thing for c in reversed(coco_stuff())}
    rows = [(i, t) for i, t in enumerate(description["tokens"]) if t in kinds and arrays["vectors"][i].any()]
    x = arrays["vectors"][[i for i, _ in rows]].astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    points = TSNE(perplexity=12, metric="cosine", init="random", random_state=0).fit_transform(x)
    low, high = points.min(0), points.max(0)
    centres = (points - low) / (high - low) * (np.array([WIDTH, HEIGHT]) - 2 * MARGIN) + MARGIN
    centres = spread(centres, np.array([[4.2 * len(t), 8.5] for _, t in rows]))
    labels = "\n".join(
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{COLOURS[kinds[t]]}">{escape(t)}</text>'
        for (_, t), (x, y) in zip(rows, centres, strict=True)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="15" text-anchor="middle">\n<title>Class vectors by t-SNE: things red, stuff blue</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{labels}\n</svg>\n',
        encoding="utf-8",
    )
    print(f"{out}: {len(rows)} classes")


if __name__ == "__main__":
    typer.run(main)
