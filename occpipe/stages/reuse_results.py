"""reuse_results: the picture of an earlier run where it came from the same decision; 1:1, on CPUs, bound by the network."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from occpipe import __version__
from occpipe.core.config import Config, Policy
from occpipe.core.rows import Row
from occpipe.core.types import Status
from occpipe.dataset.containers_commit import read_output
from occpipe.dataset.layout import METADATA, rows_key
from occpipe.dataset.parquet import read_parquet
from occpipe.dataset.reader import Published
from occpipe.io.images import ImageError
from occpipe.io.storage import is_safe_key, store_of, with_retries
from occpipe.models.loading import needed, source_type
from occpipe.models.relations.decide import is_protected
from occpipe.models.weights import ModelIdentity
from occpipe.stages.rows import Rows
from occpipe.stages.stage import Setup, Stage

_SIZES = ("width", "height", "mask_width", "mask_height")
_PHOTO = ("size", "etag", "sha256")
_OUTPUT = ("output", "output_offset", "output_size", "output_sha256")
_OLD = ("uri", "status", "objects", "mask", "removed", "lost", *_OUTPUT, *_SIZES, *_PHOTO)


@dataclass(frozen=True, slots=True)
class Base:
    """An output that was cleaned before: the place of its rows, and its policy, which decides what is protected."""

    uri: str
    metadata: str
    policy: Policy


def base_of(published: Published, config: Config, models: list[ModelIdentity], root: str) -> Base | None:
    """A published output as a base for another decision; None where the same mask could be filled in another way there."""
    manifest = published.manifest
    if manifest.get("command") == "scan" or manifest["input"] != root:
        return None
    before = published.config
    fills = {weight.name for weight in needed(config, parts=("inpainter",))}
    same = (
        before.deciding()["inpainter"] == config.deciding()["inpainter"]
        and source_type(before) == source_type(config)
        and before.output.metadata == config.output.metadata
        and _weights(manifest["models"], fills) == _weights(models, fills)
        and manifest["versions"]["occpipe"] == __version__
    )
    return Base(published.store.uri, METADATA, before.policy) if same else None


@dataclass(frozen=True)
class ReuseResults(Stage):
    """Closes what has to be cleaned, and was cleaned before from the same photo and decision, with that picture.

    A batch holds rows of one shard, and a base has the same images in the shard of the same number.
    """

    bases: tuple[Base, ...]
    policy: Policy
    threads: int

    READS = ("uri", "shard", *_PHOTO, *_SIZES, "objects", "mask", "removed", "status", "reason", "error")
    WRITES = ("data", "mask", "removed", "lost", "copied", "status", "reason", "error")

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.bases, setup.config.policy, setup.config.placement.load.threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "reuse")
        names = ("data", "mask", "removed", "lost", "copied")
        columns = {name: rows.column(name) for name in names}
        new = {index: rows.row(index) for index in rows.open()}
        uris = [row["uri"] for row in new.values()]
        published = [(base, _rows(base, next(iter(new.values()))["shard"], uris)) for base in self.bases if uris]

        def work(index: int) -> None:
            for base, earlier in published:
                old = earlier.get(new[index]["uri"])
                with rows.attempt(index):
                    if old is None or not self._is_same(base, old, new[index]):
                        continue
                    data = _picture(base.uri, old)
                    if data is not None:
                        columns["data"][index], columns["copied"][index] = data, True
                        columns["mask"][index], columns["removed"][index] = old["mask"], old["removed"]
                        columns["lost"][index] = old["lost"]
                        rows.finish(index, Status.CLEANED)
                        return

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, new))
        return rows.table(**columns)

    def _is_same(self, base: Base, old: Row, new: Row) -> bool:
        """Whether the fill would be the same: the photo, and for each thing its mask, its verdict and its protection."""
        photo = ("sha256",) if old["sha256"] and new["sha256"] else _PHOTO
        if old["status"] != Status.CLEANED or any(old.get(name) != new.get(name) for name in (*photo, *_SIZES)):
            return False
        return _decision(old, base.policy) == _decision(new, self.policy)


def _decision(row: Row, policy: Policy) -> list[tuple[str, str, bool]]:
    return [(item["mask"], item["verdict"], is_protected(item["label"], policy)) for item in row["objects"] or ()]


def _rows(base: Base, shard: int, uris: list[str]) -> dict[str, Row]:
    """The rows of these images in a base; none where it has published nothing of the shard yet."""
    try:
        table = _file(base.uri, rows_key(shard, base.metadata))
    except FileNotFoundError:
        return {}
    rows = table.filter(pc.is_in(table.column("uri"), pa.array(uris, pa.string())))
    return {row["uri"]: row for row in rows.to_pylist()}


@lru_cache(maxsize=2)
def _file(uri: str, key: str) -> pa.Table:
    """The rows of a shard, up to 100 MB; a batch of the same shard follows. No picture is taken from it unchecked."""
    return read_parquet(store_of(uri), key, _OLD)


def _picture(uri: str, row: Row) -> bytes | None:
    """The picture of a row; None where it is not there any more, or not as it was written."""
    key = row["output"]
    if not key or not is_safe_key(key):
        return None
    try:
        data = with_retries(lambda: read_output(store_of(uri), row))
    except (OSError, ImageError):
        return None
    return data if hashlib.sha256(data).hexdigest() == row["output_sha256"] else None


def _weights(models: list[ModelIdentity], names: set[str]) -> dict[str, str | None]:
    return {str(model["name"]): model["sha256"] for model in models if model["name"] in names}
