"""Loaded by every Python process of a run under test: makes a stage die, as the environment asks.

`OCCPIPE_CHAOS` is JSON: `struck`, a file that gets a byte for each time that the fault strikes; `die_in` a stage, after so
many calls in one process (`after`), `once` in all, or whenever the input holds `poison` (hex of some bytes); `memory` is
the number of images beyond which the segmenter says that the GPU's memory is full, as it does for a magenta image alone;
`broken` has the first process that loads a segmenter fail at every image; `count` is a file that gets a byte for each
image that is decoded; `work` are seconds that the segmenter sleeps for each image in place of looking at it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

CHAOS: dict[str, Any] = json.loads(os.environ.get("OCCPIPE_CHAOS", "{}"))
PLACES = {
    "load": ("occpipe.stages.load", "decode_with_header"),
    "segment": ("occpipe.stages.segment", "to_columns"),
    "sums": ("occpipe.pipeline.run", "write_sums"),
    "relate": ("occpipe.stages.relate", "decide"),
    "inpaint": ("occpipe.stages.inpaint", "encode_with_losses"),
}


def strike() -> None:
    """Leave a mark; raises FileExistsError where the fault strikes once and has struck."""
    only_one = os.O_EXCL if CHAOS.get("once") else 0
    file = os.open(CHAOS["struck"], os.O_CREAT | os.O_APPEND | os.O_WRONLY | only_one)
    os.write(file, b"x")
    os.close(file)


def die() -> None:
    """End this process as the kernel would, unless another one did already."""
    with suppress(FileExistsError):
        strike()
        os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which ends the process after some calls, or at poison."""
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        poison = CHAOS.get("poison")
        if poison is None:
            if calls > CHAOS["after"]:
                die()
        elif bytes.fromhex(poison) in arguments[0]:
            die()
        return function(*arguments, **options)

    return wrapped


def half_written(write: Callable[..., Any]) -> Callable[..., Any]:
    """`LocalStore.write`, whose process dies with half of a part in its temporary file."""

    def wrapped(store: Any, key: str, data: bytes) -> None:
        if "/parts/" in key and not Path(CHAOS["struck"]).exists():
            path = store.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / ".occpipe-half").write_bytes(data[: len(data) // 2])
            die()
        write(store, key, data)

    return wrapped


def written_unheard(write: Callable[..., Any]) -> Callable[..., Any]:
    """`S3Store.write`, whose process dies when the server has a part, but before anybody hears of it."""

    def wrapped(store: Any, key: str, data: bytes) -> None:
        write(store, key, data)
        if "/parts/" in key:
            die()

    return wrapped


def half_committed(delete: Callable[..., Any]) -> Callable[..., Any]:
    """The `delete` of a store, whose process dies when a shard is published and its parts are still there."""

    def wrapped(store: Any, key: str) -> None:
        if "/parts/" in key:
            die()
        delete(store, key)

    return wrapped


def broken(call: Callable[..., Any]) -> Callable[..., Any]:
    """The segmenter, which fails in one process for good, as on a broken GPU."""
    here: list[bool] = []

    def wrapped(segmenter: Any, images: Sequence[Any]) -> Any:
        if not here:
            try:
                strike()
                here.append(True)
            except FileExistsError:
                here.append(False)
        if here[0]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered (injected)")
        return call(segmenter, images)

    return wrapped


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which leaves a byte for each call."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        with Path(CHAOS["count"]).open("ab", buffering=0) as file:
            file.write(b"x")
        return function(*arguments, **options)

    return wrapped


def short_of_memory(call: Callable[..., Any]) -> Callable[..., Any]:
    """The segmenter, which fails as CUDA does for too many images at once, and for each that holds poison."""

    def wrapped(segmenter: Any, images: Sequence[Any]) -> Any:
        import torch

        magenta = [image[..., 0].min() > 240 and image[..., 1].max() < 15 for image in images]
        if len(images) > CHAOS["memory"] or any(magenta):
            strike()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        return call(segmenter, images)

    return wrapped


_gpu = Lock()  # it works on one batch at a time


def sleep_as_gpu(pool: str, seconds: float) -> None:
    """Sleep as long as a GPU works; with `asleep`, note the pool, the begin and the end."""
    with _gpu:
        begun = time.time()
        time.sleep(seconds)
        ended = time.time()
    if "asleep" in CHAOS:
        with Path(CHAOS["asleep"]).open("ab", buffering=0) as file:
            file.write(f"{pool} {begun} {ended}\n".encode())


def sleeping(call: Callable[..., Any]) -> Callable[..., Any]:
    """The segmenter, which sleeps for each image, and finds a cat in each wide one."""

    def wrapped(segmenter: Any, images: Sequence[Any]) -> Any:
        import numpy as np

        from occpipe.core.types import Segment, Segmentation

        sleep_as_gpu("segment", CHAOS["work"] * len(images))
        found = []
        for image in images:
            height, width = image.shape[:2]
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : height // 2, width // 4 : width // 2] = 1
            cat = (Segment.from_mask("cat", True, 0.9, mask),) if width > CHAOS.get("wide", 96) else ()
            found.append(Segmentation(height, width, cat, {"grass": 0.9, "tree": 0.9}))
        return found

    return wrapped


def sleeping_to_fill(fill: Callable[..., Any]) -> Callable[..., Any]:
    """An inpainter's `fill`, which sleeps for each crop and paints nothing."""

    def wrapped(model: Any, images: Any, *masks: Any) -> Any:
        sleep_as_gpu("inpaint", CHAOS["fill_work"] * len(images))
        return images

    return wrapped


def spoil(module: ModuleType) -> None:
    """Replace what is to fail in a module that was just imported."""
    if "memory" in CHAOS and module.__name__ == "occpipe.models.segmenters.starter":
        module.StarterSegmenter.__call__ = short_of_memory(module.StarterSegmenter.__call__)
    if "work" in CHAOS and module.__name__ == "occpipe.models.segmenters.starter":
        module.StarterSegmenter.__call__ = sleeping(module.StarterSegmenter.__call__)
    if "fill_work" in CHAOS and module.__name__ == "occpipe.models.inpainters.opencv":
        module.OpenCvInpainter.fill = sleeping_to_fill(module.OpenCvInpainter.fill)
    if CHAOS.get("broken") and module.__name__ == "occpipe.models.segmenters.starter":
        module.StarterSegmenter.__call__ = broken(module.StarterSegmenter.__call__)
    if "count" in CHAOS and module.__name__ == "occpipe.stages.load":
        setattr(module, "decode_with_header", counted(module.decode_with_header))  # noqa: B010 - not known to mypy
    stage = CHAOS.get("die_in")
    if stage == "commit" and module.__name__ == "occpipe.io.storage.local":
        module.LocalStore.delete = half_committed(module.LocalStore.delete)
    elif stage == "commit" and module.__name__ == "occpipe.io.storage.s3":
        module.S3Store.delete = half_committed(module.S3Store.delete)
    elif stage == "write" and module.__name__ == "occpipe.io.storage.local":
        module.LocalStore.write = half_written(module.LocalStore.write)
    elif stage == "write" and module.__name__ == "occpipe.io.storage.s3":
        module.S3Store.write = written_unheard(module.S3Store.write)
    elif stage in PLACES and module.__name__ == PLACES[stage][0]:
        name = PLACES[stage][1]
        setattr(module, name, dying(getattr(module, name)))


class Spoiler(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of occpipe as usual, and spoils them once they are loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith("occpipe."):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                spoil(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if CHAOS:
    sys.meta_path.insert(0, Spoiler())
