"""Draw what a segmenter sees in the demo's photos as one sheet, for its model card.

python jobs/segment_sheet.py [--model starter] --out docs/starter-segments.jpg
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from make_demo import photos, scenes  # type: ignore[import-not-found]  # a job has its own folder on its path
from PIL import Image as Pil

from occpipe.analysis.pages.drawing import draw_segments
from occpipe.core.config_file import load_config
from occpipe.models.loading import load_segmenter

COLUMNS = 2
WIDTH = 620


def main(
    out: Annotated[Path, typer.Option(help="The picture to write.")],
    model: Annotated[str, typer.Option(help="A segmenter by name.")] = "starter",
) -> None:
    """Write the sheet: each photo beside its segments with their labels and scores, and its stuff below."""
    segmenter = load_segmenter(load_config("local", [f"segmenter.model={model}"]))
    panels = []
    for _, rgb in (*photos(), *scenes()):
        (seen,) = segmenter([rgb])
        panel = draw_segments(rgb, seen)
        panels.append(panel.resize((WIDTH, round(panel.height * WIDTH / panel.width)), Pil.Resampling.LANCZOS))
    columns = [panels[number::COLUMNS] for number in range(COLUMNS)]
    height = max(sum(p.height for p in column) for column in columns)
    sheet = Pil.new("RGB", (COLUMNS * WIDTH, height), "white")
    for number, column in enumerate(columns):
        top = 0
        for panel in column:
            sheet.paste(panel, (number * WIDTH, top))
            top += panel.height
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=80)
    print(f"{out}: {len(panels)} photos")


if __name__ == "__main__":
    typer.run(main)
