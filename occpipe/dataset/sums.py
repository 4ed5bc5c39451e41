"""`metadata/_manifest.json`: sums over the published shards, and what they depend on; the move of a new version."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed
from typing import NotRequired, cast

from occpipe import __version__
from occpipe.core.config import Config
from occpipe.core.schemas import VERSION
from occpipe.dataset.layout import FIRST, METADATA, PASSED_OVER, SUMS, Layout
from occpipe.dataset.shards import TotalSums, read_sums, total
from occpipe.dataset.versions import CLEAN, Command, Origin
from occpipe.io.storage import Store, with_retries
from occpipe.models.weights import ModelIdentity

_THREADS = 16


class OutputSums(TotalSums):
    """`metadata/_manifest.json`; an output of which nothing is published yet has the counts only.

    `schema` is that of the rows, and `version` the number of the output's version. `versions` are those of packages.
    """

    schema: NotRequired[str]
    version: NotRequired[int]
    command: NotRequired[Command]
    scan: NotRequired[str | None]
    verdicts: NotRequired[str | None]
    input: NotRequired[str]
    listed: NotRequired[int]
    passed_over: NotRequired[dict[str, int]]
    shards: NotRequired[int]
    digest: NotRequired[str]
    models: NotRequired[list[ModelIdentity]]
    versions: NotRequired[dict[str, str]]
    config: NotRequired[Mapping[str, object]]


def write_sums(
    store: Store,
    config: Config,
    models: list[ModelIdentity],
    root: str,
    layout: Layout = FIRST,
    origin: Origin = CLEAN,
    *,
    listed: int = 0,
    whole: bool = True,
) -> OutputSums:
    """Write the sums of a version and return them; `listed` is the number of images of the manifest.

    A version beside another one is moved to `metadata/` once all images are listed (`whole`) and each has a row. Until
    then the published sums stay, and are returned.
    """
    shards = read_sums(store, layout.metadata)
    if layout.metadata != METADATA:
        if not whole or sum(sums["rows"] for sums in shards.values()) < listed:
            return _published(store)
        _move(store, layout, shards)
    digest = "\n".join(f"{shard} {sums['digest']}" for shard, sums in shards.items())
    written: OutputSums = {
        "schema": VERSION,
        "version": layout.number,
        "command": origin.command,
        "scan": origin.scan,
        "verdicts": origin.verdicts,
        "input": root,
        **total(shards.values()),
        "listed": listed,
        "passed_over": _passed_over(store),
        "shards": len(shards),
        "digest": hashlib.sha256(digest.encode()).hexdigest()[:16],
        "models": models,
        "versions": {
            "python": platform.python_version(),
            "occpipe": __version__,
            **{name: installed(name) for name in ("ray", "torch")},
        },
        "config": {"digest": config.digest, **config.model_dump(mode="json")},
    }
    data = json.dumps(written, indent=1).encode()
    with_retries(lambda: store.write(SUMS, data))
    if layout.metadata != METADATA:
        _delete(store, layout.metadata)
    return written


def _passed_over(store: Store) -> dict[str, int]:
    try:
        passed: dict[str, int] = json.loads(store.read(PASSED_OVER))
    except FileNotFoundError:  # the listing is not at its end
        return {}
    return passed


def _published(store: Store) -> OutputSums:
    try:
        sums: OutputSums = json.loads(store.read(SUMS))
    except FileNotFoundError:  # the first version was stopped before its sums were written
        return cast("OutputSums", total(()))
    return sums


def _move(store: Store, layout: Layout, shards: Iterable[int]) -> None:
    """Put each shard of a whole version in the place of the published one. What is interrupted is done again."""

    def move(shard: int) -> None:
        data = store.read(layout.rows(shard))
        with_retries(lambda: store.write(FIRST.rows(shard), data))

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(move, shards))


def _delete(store: Store, folder: str) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda entry: store.delete(entry.key), list(store.walk(folder))))
