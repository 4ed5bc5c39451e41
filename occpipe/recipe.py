"""What a run makes its rows from, and through which stages: what `clean`, `scan` and `apply` differ in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol, TypeAlias, TypedDict

import pyarrow as pa
from ray.data import Dataset

from occpipe.config import Config
from occpipe.models import PARTS, identities
from occpipe.plan import STAGES
from occpipe.stages.discover import Discovery, check_apart, open_corpus
from occpipe.stages.sink import Sink
from occpipe.storage import Entry, open_store
from occpipe.summary import Tick
from occpipe.versions import CLEAN, SCAN, Origin

Build: TypeAlias = Callable[[Config, Discovery, Sink, Any], Dataset]
"""From a config, a manifest, a sink and the journal to the data set of thin rows; nothing runs before it is read."""


class Stage(Protocol):
    """A stage that runs as tasks."""

    def __call__(self, batch: pa.Table, /) -> pa.Table: ...


class Options(TypedDict, total=False):
    """How far a run goes and whom it tells: see `occpipe.pipeline.run`."""

    limit: int | None
    new_version: bool
    on_progress: Callable[[Tick], None]
    stop: Event | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """The images below `root` as `entries`, the models that work on them, and the stages that their rows pass.

    `stages` are the names in `placement` of those that are watched, in the order of `build`.
    """

    origin: Origin
    models: list[dict[str, str | None]]
    root: str
    entries: Iterator[Entry]
    build: Build
    stages: tuple[str, ...]


def of_corpus(config: Config, input_uri: str, output_uri: str, build: Build, *, scan: bool = False) -> Recipe:
    """How the images below `input_uri` are cleaned, or only scanned; raises as `clean_corpus` does."""
    models = identities(config, parts=("segmenter", "relations") if scan else PARTS)
    root, entries = open_corpus(input_uri, config.corpus)
    check_apart(input_uri, root, open_store(output_uri).uri)
    stages = tuple(stage for stage in STAGES if not (scan and stage == "inpaint"))
    return Recipe(SCAN if scan else CLEAN, models, root, entries, build, stages)
