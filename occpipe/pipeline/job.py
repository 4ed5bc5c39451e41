"""What a run is told: the command, the models, the source of its images. In these `clean`, `scan` and `apply` differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Protocol, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from occpipe.core.config import Config
from occpipe.dataset.corpus import check_apart, open_corpus
from occpipe.dataset.layout import manifest_key
from occpipe.dataset.listing import Listed, list_corpus
from occpipe.dataset.manifest import with_ids
from occpipe.dataset.parquet import with_file
from occpipe.dataset.versions import CLEAN, SCAN, Origin
from occpipe.io.storage import Store, locate, open_store
from occpipe.models.loading import PARTS, identities
from occpipe.pipeline.monitoring.run_result import Tick
from occpipe.pipeline.steps import Kind
from occpipe.stages.load import Load
from occpipe.stages.relate import Relate


class Stage(Protocol):
    """A step over the rows of a batch."""

    def __call__(self, batch: pa.Table, /) -> pa.Table:
        """The rows after it."""
        ...


class Options(TypedDict, total=False):
    """How far a run goes and whom it tells: see `occpipe.pipeline.run.run`."""

    limit: int | None
    new_version: bool
    share: tuple[int, int]
    listing: bool
    on_progress: Callable[[Tick], None]
    stop: Event | None


@dataclass(frozen=True)
class Unit:
    """What a load task reads: rows of a shard by their places there, and the image that an earlier run wrote for each."""

    shard: int
    rows: NDArray[np.int32]
    earlier: tuple[str | None, ...] | None = None


Reader = Callable[[Store, Unit], pa.Table]
"""From an output and a unit to its rows, as the first stage takes them; it goes to the workers."""


Listing = Callable[[Store, int, int | None, Callable[[], Executor], Callable[[int], None]], Iterator[Listed]]
"""Brings the manifest of an output up to date, and tells of new and changed shards as they are written: `list_corpus`."""


@dataclass(frozen=True)
class Job:
    """A command with what it works on.

    Its images lie below `root`. `list` finds them, `read` gives the rows of a unit, `load` makes them into rows for the
    next stage, and `relate` decides about what was seen: in these `apply` differs from `clean`.
    """

    kind: Kind
    origin: Origin
    models: list[dict[str, str | None]]
    root: str
    list: Listing
    read: Reader
    load: Stage
    relate: Stage


def corpus_job(config: Config, input_uri: str, output_uri: str, *, scan: bool = False) -> Job:
    """A `clean` or a `scan` of a corpus; raises as `occpipe.pipeline.run.run` does."""
    models = identities(config, parts=("segmenter", "relations") if scan else PARTS)
    corpus = open_corpus(input_uri, config.corpus, config.storage.input.access)
    check_apart(corpus, open_store(locate(output_uri, "OUTPUT")).uri)
    load = Load(corpus.root, config.corpus, config.segmenter.decode_side, config.placement.load.threads)
    kind: Kind = "scan" if scan else "clean"
    return Job(
        kind,
        SCAN if scan else CLEAN,
        models,
        corpus.root,
        partial(list_corpus, corpus),
        read_manifest,
        load,
        Relate(config),
    )


def read_manifest(output: Store, unit: Unit) -> pa.Table:
    """The rows of a unit from the manifest of an output."""
    return with_ids(read_rows(output, manifest_key(unit.shard), unit))


def read_rows(store: Store, key: str, unit: Unit) -> pa.Table:
    """Rows of a Parquet file by their places, with `shard`, `row` and `earlier`; other row groups stay unread."""

    def read(file: pq.ParquetFile) -> pa.Table:
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        groups = np.unique(np.searchsorted(starts, unit.rows, side="right") - 1)
        offsets = np.concatenate([[0], np.cumsum([counts[group] for group in groups])])[:-1]
        which = np.searchsorted(groups, np.searchsorted(starts, unit.rows, side="right") - 1)
        places = unit.rows - starts[groups][which] + offsets[which]
        return file.read_row_groups(groups.tolist()).take(pa.array(places))

    table = with_file(store, key, read)
    earlier = [None] * len(table) if unit.earlier is None else list(unit.earlier)
    table = table.replace_schema_metadata(None).append_column("shard", pa.array([unit.shard] * len(table), pa.int32()))
    table = table.append_column("row", pa.array(unit.rows, pa.int32()))
    return table.append_column("earlier", pa.array(earlier, pa.string()))
