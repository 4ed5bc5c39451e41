"""Decide again on what a scan or a clean has seen, and inpaint only what changed.

In data order:

    1 discover  1:0..1  published rows -> manifest of what is to do   driver, bound by reading the rows
    2 recall    1:1     segments and stuff, from those rows           CPU tasks, bound by reading the rows
    3 relate    1:1     verdicts and the removal mask                 CPU tasks, milliseconds an image
    4 reuse     1:1     the picture of an earlier run, where the same CPU tasks, bound by the network
    5 refetch   1:1     encoded bytes, of the photo that was seen     CPU tasks, bound by the network
    6 inpaint   1:1     the cleaned picture, where masked             GPU pool B, bound by the model on crops
    7 sink      1:1     image first, then its row                     CPU tasks, bound by the network
    8 publish   n:1     one row an image, with a manifest             driver

No segmenter is loaded. Rows and images are those of a `clean` with the same settings, byte for byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from occpipe.config import Config
from occpipe.errors import StorageError
from occpipe.journal import GuardedInpaint, Stoppable, Timed
from occpipe.models import identities, needed
from occpipe.pipeline import run
from occpipe.published import Published
from occpipe.recipe import Options, Recipe
from occpipe.stages.discover import Discovery, check_not_inside, check_not_over
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.recall import Recall
from occpipe.stages.refetch import Refetch
from occpipe.stages.relate import Relate
from occpipe.stages.reuse import Base, Reuse, base_of
from occpipe.stages.sink import Sink
from occpipe.storage import Entry, open_store
from occpipe.summary import Summary
from occpipe.verdicts import Review
from occpipe.versions import Origin

if TYPE_CHECKING:
    from ray.data import Dataset  # whose import takes seconds, which a dry run does without

APPLY_CHAIN = (Recall, Relate, Reuse, Refetch, InpaintStage, Sink)
"""The stages between discover and publish, in order."""
_LOADED = ("inpainter", "relations")
_STAGES = ("relate", "fetch", "inpaint", "sink")  # those that are watched


def apply_corpus(
    config: Config, scan: Published, output_uri: str, review: Review | None = None, **options: Unpack[Options]
) -> Summary:
    """Decide again on the published rows of a scan or a clean, and clean what is to be cleaned into `output_uri`.

    `config` is as `occpipe.scan_settings` gives it. What is left of `review.unknown` is not in the scan, or beyond a
    `limit`. The options and errors are those of `occpipe.pipeline.run`.
    """
    store, root = open_store(output_uri), scan.manifest["input"]
    check_not_over(root, store.uri)
    if not _is_listed(scan):
        check_not_inside(root, store.uri)
    if store.uri == scan.store.uri:
        raise StorageError(f"{output_uri} is what is decided on again: choose another output")
    models = [*_seen_by(scan), *identities(config, parts=_LOADED)]

    def build(config: Config, found: Discovery, sink: Sink, journal: Any) -> Dataset:
        import ray.data

        from occpipe.cluster import configure_data
        from occpipe.on_ray import in_pool, in_tasks
        from occpipe.stages.source import ManifestSource

        configure_data(config.ray)
        at = config.placement
        decide = Relate(config, review.store(store), review.digest(config)) if review else Relate(config)
        fetch = Refetch(root, config.corpus, config.output.unchanged, at.fetch.threads)
        bases = tuple(_bases(config, models, scan, output_uri))
        rows = ray.data.read_datasource(ManifestSource(sink.output, found))
        rows = in_tasks(rows, Recall(scan.by_id, config.corpus.max_pixels), at.relate)  # 2
        rows = in_tasks(rows, Timed("relate", decide, journal), at.relate)  # 3
        rows = in_tasks(rows, Reuse(bases, config.policy, at.fetch.threads), at.fetch)  # 4
        rows = in_tasks(rows, Timed("fetch", Stoppable(fetch, journal), journal), at.fetch)  # 5
        rows = in_pool(rows, GuardedInpaint, config, journal, at.inpaint)  # 6
        return in_tasks(rows, Timed("sink", sink, journal), at.sink)  # 7

    origin = Origin("apply", scan.digest, review.sha256 if review else None)
    recipe = Recipe(origin, models, root, _entries(scan, review), _STAGES, build)
    return run(recipe, config, output_uri, **options)


def _is_listed(scan: Published) -> bool:
    """Whether its photos came from an explicit list, which knows no tags; no run looks for others below its root."""
    first = next(scan.rows(["etag"]), None)
    return first is None or not first["etag"]


def _entries(scan: Published, review: Review | None) -> Iterator[Entry]:
    """The images of a scan as a listing has them, by rising image_id."""
    for table in scan.tables(["image_id", "uri", "size", "etag"]):
        for row in table.to_pylist():
            if review is not None:
                review.unknown -= {row["uri"], str(row["image_id"])}
            yield Entry(row["uri"], row["size"], row["etag"] or "")


def _seen_by(scan: Published) -> list[dict[str, str | None]]:
    """The models that have seen the photos: all of the scan's but those that are loaded anew."""
    anew = {weight.name for weight in needed(scan.config, parts=_LOADED)}
    anew.add(Path(scan.config.relations.vectors or "").name)
    return [model for model in scan.manifest["models"] if model["name"] not in anew]


def _bases(config: Config, models: list[dict[str, str | None]], scan: Published, output_uri: str) -> Iterator[Base]:
    """Where the picture may be already: in what the output has published so far, and in what is decided on again."""
    for uri in (output_uri, scan.uri):
        with contextlib.suppress(StorageError):  # nothing is published there yet, or by another version of occpipe
            if (base := base_of(Published(uri), config, models, scan.manifest["input"])) is not None:
                yield base
