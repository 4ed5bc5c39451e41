"""Decide again on the detections of a scan or a clean, and inpaint only what changed.

    list     published shards -> manifest shards of the same numbers      driver, bound by reading narrow columns
    load     published rows -> things and stuff; no image is read         tasks
    relate   verdicts and the mask, then the image of an earlier run      tasks
    inpaint  rows with a mask that have no image yet                      pool B
    write    as in `clean`                                                tasks

No segmenter is loaded. Rows and images are those of a `clean` with the same settings, byte for byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.core.config import Config
from occpipe.core.errors import StorageError
from occpipe.core.schemas import MANIFEST, PUBLISHED
from occpipe.dataset.corpus import check_not_inside, check_not_over
from occpipe.dataset.layout import FIRST, manifest_key, rows_key
from occpipe.dataset.listing import Listed
from occpipe.dataset.manifest import load_index, save_index, write_shard
from occpipe.dataset.parquet import read_parquet
from occpipe.dataset.reader import Published
from occpipe.dataset.verdicts import Review
from occpipe.dataset.versions import Origin
from occpipe.io.containers import place_of
from occpipe.io.storage import Address, Store, locate, open_store, store_of
from occpipe.models.loading import identities, needed
from occpipe.models.weights import ModelIdentity
from occpipe.pipeline.job import Job, RunOptions, Source, containers_of
from occpipe.pipeline.monitoring.run_result import RunResult
from occpipe.pipeline.run import run
from occpipe.pipeline.steps import STEPS, parts_of
from occpipe.pipeline.units import Unit, read_manifest, read_rows
from occpipe.stages.reuse_results import Base, base_of
from occpipe.stages.stage import Setup

MAX_UNIT_ROWS = 128
"""Rows of a unit: those of a scan are small, and travel in one block."""
_STEPS = STEPS["apply"]


def list_scan(
    uri: str,
    output: Store,
    shard_images: int,  # noqa: ARG001 - shards are those of the scan
    limit: int | None,
    executor: Callable[[], Executor],  # noqa: ARG001 - there is nothing to wait for
    mark_changed: Callable[[int], None],
) -> Iterator[Listed]:
    """A manifest shard for each shard that a scan has published, with its rows in their order; see `list_corpus`."""
    scan, known, seen = Published(uri), {info.number for info in load_index(output)}, 0
    for file in scan.files:
        rows = read_parquet(scan.store, rows_key(file.shard), MANIFEST.names).cast(MANIFEST)
        seen += len(rows)
        if file.shard not in known:
            yield Listed(seen, (write_shard(output, file.shard, rows),), ())
        elif not read_parquet(output, manifest_key(file.shard)).cast(MANIFEST).equals(rows):
            mark_changed(file.shard)
            yield Listed(seen, (write_shard(output, file.shard, rows),), (file.shard,))
        if limit is not None and seen >= limit:
            break
    save_index(output, load_index(output))


@dataclass(frozen=True)
class ReadPublished:
    """Gives the rows of a unit from what a scan has published, by their names."""

    uri: str

    def __call__(self, output: Store, unit: Unit) -> pa.Table:
        images, key = read_manifest(output, unit), rows_key(unit.shard)
        with contextlib.suppress(IndexError, pa.ArrowInvalid):
            rows = read_rows(store_of(self.uri), key, unit)
            if rows.column("uri").equals(images.column("uri")):
                return rows
        rows = read_parquet(store_of(self.uri), key)  # it was written again meanwhile, and its rows have other places
        place = pc.index_in(images.column("uri"), rows.column("uri").combine_chunks())
        rows = rows.take(place.drop_null())
        for name in ("shard", "row", "earlier"):
            rows = rows.append_column(name, images.column(name).filter(pc.is_valid(place)))
        return rows


def apply_corpus(
    config: Config, scan: Published, output_uri: str, review: Review | None = None, **options: Unpack[RunOptions]
) -> RunResult:
    """Decide again on the published rows of a scan or a clean, and clean into `output_uri`.

    Args:
        config: The settings, as `scan_settings` gives them.
        scan: The published rows.
        output_uri: Where images and rows are written.
        review: The verdicts of people; `unknown` keeps the images that the scan does not have.
        **options: Those of `run`.

    Returns:
        What the run did.

    Raises:
        StorageError: `output_uri` is the scan itself, or lies within its input; and as `run` does.
    """
    store = open_store(locate(output_uri, "OUTPUT"), config.storage.output.access)
    root = Address(scan.manifest["input"], config.storage.input.access)
    check_not_over(root, store.uri)
    if not _is_listed(scan):
        check_not_inside(root, store.uri)
    if store.uri == scan.store.uri:
        raise StorageError(f"{output_uri} is the input of this command: choose another output")
    models = [*_seen_by(scan), *identities(config, parts=parts_of(_STEPS))]
    containers = containers_of(config, root, packed=place_of(_first_tag(scan)) is not None)
    bases = tuple(_bases(config, models, scan, store.uri))
    setup = Setup(config, root, store.uri, FIRST.images, bases=bases, containers=containers)
    if review is not None:
        for rows in scan.batches(["uri", "image_id"]):
            review.unknown -= {*rows.column("uri").to_pylist(), *map(str, rows.column("image_id").to_pylist())}
        setup = replace(setup, verdicts=review.store(store), digest=review.digest(config))
    origin = Origin("apply", scan.digest, review.sha256 if review else None)
    uri = scan.store.uri
    source = Source(root, partial(list_scan, uri), ReadPublished(uri), tuple(PUBLISHED.names), MAX_UNIT_ROWS)
    return run(Job(origin, _STEPS, source, models, setup), **options)


def _is_listed(scan: Published) -> bool:
    """Whether its photos are from an explicit list, which has no tags; then no run lists what is below its root."""
    return not _first_tag(scan)


def _first_tag(scan: Published) -> str | None:
    first = next(scan.rows(["etag"]), None)
    return None if first is None else first["etag"]


def _seen_by(scan: Published) -> list[ModelIdentity]:
    """The models of the scan, without those that this job loads itself."""
    own = {weight.name for weight in needed(scan.config, parts=parts_of(_STEPS))}
    own.add(Path(scan.config.relations.vectors or "").name)
    return [model for model in scan.manifest["models"] if model["name"] not in own]


def _bases(config: Config, models: list[ModelIdentity], scan: Published, output_uri: str) -> Iterator[Base]:
    """Outputs that may have a picture already: this one, from an earlier run, and the one that is decided on again."""
    for uri in (output_uri, scan.store.uri):
        with contextlib.suppress(StorageError):  # nothing is published there yet, or by another version of occpipe
            if (base := base_of(Published(uri), config, models, str(scan.manifest["input"]))) is not None:
                yield base
