"""reuse: the picture of an earlier run, where it came from the same decision; 1:1, on CPUs, bound by the network."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from occpipe import __version__
from occpipe.config import Config, Policy
from occpipe.decide import is_protected
from occpipe.models import needed, source_type
from occpipe.published import Published, RowsById
from occpipe.rows import Rows
from occpipe.stages.fetch import store_of
from occpipe.storage import is_safe_key, with_retries
from occpipe.types import Status
from occpipe.versions import SCAN

_OLD = ("status", "size", "etag", "objects", "mask", "removed", "output", "output_sha256")


@dataclass(frozen=True, slots=True)
class Base:
    """What was cleaned before: its rows, and the policy, which says what was protected."""

    rows: RowsById
    policy: Policy


def base_of(published: Published, config: Config, models: list[dict[str, str | None]], root: str) -> Base | None:
    """A published output as a base for another decision; None where the same mask could be filled in another way there."""
    manifest = published.manifest
    if manifest.get("command") == SCAN.command or manifest["input"] != root:
        return None
    before = published.config
    fills = {weight.name for weight in needed(config, parts=("inpainter",))}
    same = (
        before.deciding()["inpainter"] == config.deciding()["inpainter"]
        and source_type(before) == source_type(config)
        and _weights(manifest["models"], fills) == _weights(models, fills)
        and manifest["versions"]["occpipe"] == __version__
    )
    return Base(published.by_id, before.policy) if same else None


@dataclass(frozen=True)
class Reuse:
    """Closes what has to be cleaned, and was cleaned before from the same photo and decision, with that picture."""

    bases: tuple[Base, ...]
    policy: Policy
    threads: int

    READS = ("image_id", "size", "etag", "objects", "mask", "removed", "status", "reason", "error")
    WRITES = ("data", "mask", "removed", "copied", "status", "reason", "error")

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "reuse")
        columns: dict[str, list[Any]] = {name: batch.column(name).to_pylist() for name in ("mask", "removed")}
        columns |= {"data": rows.nulls(), "copied": rows.nulls()}
        ids = {index: rows.value("image_id", index) for index in rows.open()}
        found = [(base, base.rows(list(ids.values()), _OLD)) for base in self.bases]

        def work(index: int) -> None:
            for base, old in found:
                row = old.get(ids[index])
                with rows.attempt(index):
                    if row is None or not self._is_same(base, row, rows, index):
                        continue
                    data = _picture(base.rows.uri, row)
                    if data is not None:
                        columns["data"][index], columns["copied"][index] = data, True
                        columns["mask"][index], columns["removed"][index] = row["mask"], row["removed"]
                        rows.finish(index, Status.CLEANED)
                        return

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, ids))
        return rows.table(**columns)

    def _is_same(self, base: Base, row: dict[str, Any], rows: Rows, index: int) -> bool:
        """Whether the fill would be the same: the photo, and for each thing its mask, its verdict and its protection."""
        if row["status"] != Status.CLEANED or any(row[name] != rows.value(name, index) for name in ("size", "etag")):
            return False
        return _decision(row["objects"], base.policy) == _decision(rows.value("objects", index), self.policy)


def _decision(objects: list[dict[str, Any]], policy: Policy) -> list[tuple[str, str, bool]]:
    return [(item["mask"], item["verdict"], is_protected(item["label"], policy)) for item in objects]


def _picture(uri: str, row: dict[str, Any]) -> bytes | None:
    """The picture of a row; None where it is not there any more, or not as it was written."""
    key = row["output"]
    if not key or not is_safe_key(key):
        return None
    try:
        data = with_retries(lambda: store_of(uri).read(key))
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == row["output_sha256"] else None


def _weights(models: list[dict[str, str | None]], names: set[str]) -> dict[str, str | None]:
    return {str(model["name"]): model["sha256"] for model in models if model["name"] in names}
