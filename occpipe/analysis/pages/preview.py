"""The preview of a run over some photos: a picture, a GIF of before and after, or a page."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image as Pil

from occpipe.analysis.pages.entries import ByteLimits, page_entry
from occpipe.analysis.pages.page import assemble
from occpipe.analysis.pages.preview_sheet import draw_preview, draw_things
from occpipe.analysis.pages.types import PageData
from occpipe.analysis.pages.why import Why
from occpipe.core.config import Config, Corpus
from occpipe.core.errors import StorageError
from occpipe.core.masks import Rle
from occpipe.core.rows import Row
from occpipe.core.types import CleanResult, Image, Status
from occpipe.dataset.corpus import open_corpus
from occpipe.io.containers import ENDINGS, index, read_member
from occpipe.io.images import ImageError, Limits, decode
from occpipe.io.storage import open_store
from occpipe.stages.cleaner import Cleaner
from occpipe.stages.relate import object_row

Format = Literal["png", "gif", "html"]
GIF_SIDE = 640
"""Long side of a GIF in pixels."""
_HOLD_MS, _STEP_MS, _STEPS = 1400, 60, 6
_LIMITS = ByteLimits(60_000, 400_000)
FROM_CONTAINER = 16
"""Images of a tar or a Parquet file that are drawn, the first ones."""
AT_ONCE = 8
"""Photos that are segmented together, on a core each where there is no GPU."""


def preview_files(
    cleaner: Cleaner, paths: Iterable[Path], out: Path, form: Format = "png"
) -> Iterator[tuple[Path, str | None]]:
    """Write one file for each image into `out`; yields its path, or the image's path with its error.

    Raises StorageError where there is no image at all.
    """
    corpus = cleaner.config.corpus
    limits = Limits(corpus.max_pixels, corpus.min_side)
    files = list(dict.fromkeys(_files(paths, corpus.extensions)))  # one that is named twice is one image
    if not files:
        raise StorageError(f"no image there ({' '.join(corpus.extensions)})")
    out.mkdir(parents=True, exist_ok=True)
    targets: set[Path] = set()
    why = Why(cleaner.config, cleaner.relations)
    for start in range(0, len(files), AT_ONCE):
        photos: dict[Path, Image | str] = {}
        for path in files[start : start + AT_ONCE]:
            try:
                photos[path] = decode(path.read_bytes(), limits, max_side=cleaner.config.segmenter.decode_side)
            except (ImageError, OSError) as error:
                photos[path] = str(error)
        scenes = iter(cleaner.segmenter([rgb for rgb in photos.values() if not isinstance(rgb, str)]))
        for path, rgb in photos.items():
            if isinstance(rgb, str):
                yield path, rgb
                continue
            result = cleaner.apply(rgb, next(scenes))
            target = _free_name(out, path.stem, f"preview.{form}", targets)
            match form:
                case "png":
                    draw_preview(rgb, result, cleaner.rule.cut).save(target)
                case "gif":
                    save_gif(rgb, result, target)
                case "html":
                    target.write_text(preview_page(rgb, result, path.name, cleaner.config, why), encoding="utf-8")
            yield target, None


def save_gif(rgb: Image, result: CleanResult, target: Path) -> None:
    """A photo, H x W x 3, with its things outlined, and its result, in turn and without end, one fading into the other."""
    before, after = (Pil.fromarray(picture) for picture in (draw_things(rgb, result), result.image))
    for picture in (before, after):
        picture.thumbnail((GIF_SIDE, GIF_SIDE), Pil.Resampling.LANCZOS)
    there = [Pil.blend(before, after, step / _STEPS) for step in range(_STEPS + 1)]
    both = Pil.new("RGB", (before.width, 2 * before.height))  # one palette for all frames, or still parts would flicker
    both.paste(before)
    both.paste(after, (0, before.height))
    palette = both.quantize(256)
    frames = [frame.quantize(palette=palette) for frame in (*there, *there[-2:0:-1])]
    times = [_HOLD_MS if step in (0, _STEPS) else _STEP_MS for step in range(len(frames))]
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=times, loop=0, disposal=1)


def preview_page(rgb: Image, result: CleanResult, name: str, config: Config, why: Why) -> str:
    """A page of one photo, H x W x 3: a slider between before and after, and why each thing stayed or went."""
    cleaned = bool(result.mask.any())
    row: Row = {
        "image_id": 0,
        "uri": name,
        "status": Status.CLEANED if cleaned else Status.UNCHANGED,
        "reason": None,
        "error": None,
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "mask_width": rgb.shape[1],
        "mask_height": rgb.shape[0],
        "removed": float(result.mask.mean()),
        "mask": Rle.encode(result.mask).counts.decode("ascii") if cleaned else None,
        "objects": [object_row(item, *rgb.shape[:2]) for item in result.objects],
        "stuff": [{"label": label, "confidence": confidence} for label, confidence in result.stuff.items()],
    }
    entry = page_entry(row, [], why.shares(row), lambda _: (rgb, result.image)[: 1 + cleaned], _LIMITS)
    about = [f"{config.segmenter.model} segmenter", f"{config.inpainter.model} inpainter"]
    data = PageData(id="", title=name, about=about, blind=False, policy=why.limits, entries=[entry])
    return assemble("preview", f"{name} · occpipe preview", data)


def unpacked(path: Path, settings: Corpus, folder: Path) -> Path:
    """The first images of a container as files in a new folder within `folder`; any other path stays as it is."""
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        return path
    corpus = open_corpus(str(path), settings)
    target = folder / f"{len([*folder.iterdir()])}"
    target.mkdir()
    store, key = open_store(corpus.root), path.name
    with store.open(key) as file:
        members = index(file, key, path.stat().st_size, "", corpus.column, corpus.is_member)
    for member in [member for member in members if member.place.kind != "fault"][:FROM_CONTAINER]:
        data = read_member(store, f"{key}#{member.name}", member.size, member.place, settings.max_bytes)
        name = PurePosixPath(member.name).name if member.place.kind == "tar" else f"{path.stem}-{member.name}.jpg"
        (target / name).write_bytes(data)
    return target


def _files(paths: Iterable[Path], extensions: tuple[str, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            files = (file for file in path.iterdir() if file.suffix.lower() in extensions)
            yield from sorted(file for file in files if not file.name.startswith("."))
        else:
            yield path


def _free_name(folder: Path, stem: str, suffix: str, targets: set[Path]) -> Path:
    """`STEM.SUFFIX`, numbered where two photos of one call have the same name; never the name of a photo."""
    numbered = (f"{stem}{f'-{n}' if n > 1 else ''}.{suffix}" for n in itertools.count(1))
    target = next(folder / name for name in numbered if folder / name not in targets)
    targets.add(target)
    return target
