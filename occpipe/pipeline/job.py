"""A job: a command with its steps, config, source of images and output. `clean`, `scan` and `apply` differ in it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import TypedDict

from occpipe.core.config import Config
from occpipe.core.errors import ConfigError
from occpipe.core.schemas import MANIFEST
from occpipe.dataset.containers import list_containers
from occpipe.dataset.containers_commit import Containers, MakeContainers
from occpipe.dataset.containers_pack import Pack
from occpipe.dataset.corpus import check_apart, open_corpus
from occpipe.dataset.layout import FIRST, Layout
from occpipe.dataset.listing import Listed, list_corpus
from occpipe.dataset.versions import CLEAN, SCAN, Origin
from occpipe.io.storage import Store, locate, open_store
from occpipe.models.loading import identities
from occpipe.models.weights import ModelIdentity
from occpipe.pipeline.monitoring.run_result import ProgressSnapshot
from occpipe.pipeline.steps import STEPS, Step, parts_of
from occpipe.pipeline.units import MAX_UNIT_ROWS, PLACE, Reader, read_manifest
from occpipe.stages.stage import Setup, check_columns


class RunOptions(TypedDict, total=False):
    """The options of a run, see `occpipe.pipeline.run.run`."""

    limit: int | None
    new_version: bool
    share: tuple[int, int]
    listing: bool
    on_progress: Callable[[ProgressSnapshot], None]
    stop: Event | None


Listing = Callable[[Store, int, int | None, Callable[[], Executor], Callable[[int], None]], Iterator[Listed]]
"""Brings the manifest of an output up to date, and yields new and changed shards as they are written: `list_corpus`."""


@dataclass(frozen=True)
class Source:
    """Where the images of a job come from.

    Attributes:
        root: The folder or prefix of the images.
        list: The listing.
        read: The reader of a unit.
        columns: The columns of the file that it reads.
        max_unit_rows: Images of a unit at most: what is repeated where a node is lost.
    """

    root: str
    list: Listing
    read: Reader
    columns: tuple[str, ...]
    max_unit_rows: int


@dataclass(frozen=True)
class Job:
    """What a run does.

    Attributes:
        origin: The command, and what `apply` decides from.
        steps: Its steps, in data order.
        source: Where the images come from.
        models: The models, for the sums of the output.
        setup: What the stages are built from: config and output among others.

    Raises:
        ValueError: A stage reads a column that no stage before it writes.
    """

    origin: Origin
    steps: tuple[Step, ...]
    source: Source
    models: list[ModelIdentity]
    setup: Setup

    def __post_init__(self) -> None:
        check_columns((stage for step in self.steps for stage in step.stages), (*self.source.columns, *PLACE))

    @property
    def config(self) -> Config:
        """The settings."""
        return self.setup.config

    @property
    def output(self) -> str:
        """OUTPUT, with what its store is reached by."""
        return self.setup.output

    def setup_for(self, layout: Layout) -> Setup:
        """What the stages are built from, for a version of the output."""
        return replace(self.setup, images=layout.images, blobs=layout.all_parts)


def corpus_job(config: Config, input_uri: str, output_uri: str, *, scan: bool = False) -> Job:
    """A `clean` or a `scan` of a corpus; raises as `occpipe.pipeline.run.run` does."""
    origin = SCAN if scan else CLEAN
    steps = STEPS[origin.command]
    models = identities(config, parts=parts_of(steps))
    corpus = open_corpus(input_uri, config.corpus, config.storage.input.access)
    output = open_store(locate(output_uri, "OUTPUT"), config.storage.output.access)
    check_apart(corpus, output.uri)
    listing = partial(list_containers if corpus.members else list_corpus, corpus)
    source = Source(corpus.root, listing, read_manifest, tuple(MANIFEST.names), MAX_UNIT_ROWS)
    containers = None if scan else containers_of(config, corpus.root, packed=bool(corpus.members))
    setup = Setup(config, corpus.root, output.uri, FIRST.images, containers=containers)
    return Job(origin, steps, source, models, setup)


def containers_of(config: Config, root: str, *, packed: bool) -> MakeContainers | None:
    """What writes the containers of a job; None: its images are files.

    Args:
        config: The settings.
        root: Where the images lie.
        packed: They lie in containers already.

    Raises:
        ConfigError: The settings are for loose images.
    """
    output = config.output
    if not packed:
        return None if output.pack is None else Pack(root, output.tar_images, output.unchanged == "copy")
    if output.unchanged == "skip" or output.pack is not None:
        raise ConfigError("output.unchanged=skip and output.pack are for loose images: a container keeps its form")
    return Containers(root, output.broken == "keep", output.sidecars)
