"""The versions of an output: each is made in one way, from one input.

A run goes on with the newest version. Mixed settings could not be told apart by those who read the images, and two inputs
with the same relative names would overwrite each other. So other settings are refused, or begin a new version, which is
made beside what is published; another input needs another output.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from occpipe.core.config import Config
from occpipe.core.errors import ConfigError, StorageError
from occpipe.dataset.layout import FIRST, METADATA, SUMS, VERSIONS, Layout
from occpipe.dataset.shards import list_shards
from occpipe.io.storage import Span, Store

_SAME = ("input", "command", "config", "scan", "verdicts", "weights")


@dataclass(frozen=True, slots=True)
class Origin:
    """The command that makes an output, and what `apply` makes it from: digests of a scan and of verdicts."""

    command: str = "clean"
    scan: str | None = None
    verdicts: str | None = None


CLEAN, SCAN = Origin(), Origin("scan")


def open_version(
    store: Store,
    config: Config,
    models: list[dict[str, str | None]],
    root: str,
    origin: Origin = CLEAN,
    *,
    new: bool = False,
) -> Layout:
    """The layout of the newest version of an output, where it was made in this way; the first run makes it.

    Where it was made in another way, `new` begins the next version; without it that is a ConfigError that names what
    differs.
    """
    weights = {str(model["name"]): model["sha256"] for model in models}
    now = {**asdict(origin), "input": root, "config": config.digest, "weights": weights, "settings": config.deciding()}
    keys = sorted(entry.key for entry in store.walk(VERSIONS))
    if not keys and origin.command != SCAN.command and store.list_keys(Span(FIRST.images), 1)[0]:
        raise StorageError(f"{store.uri}/{FIRST.images} has files that no run has written; choose another output")
    if keys:
        then = json.loads(store.read(keys[-1]))
        layout = _layout(store, len(keys), then)
        difference = _difference(then, now)
        if difference is None:
            return layout
        if not _has_rows(store, layout):  # its settings bind nobody yet: it is begun anew
            keys.pop()
        elif not new or then["input"] != root:
            advice = "choose another output"
            advice += "" if then["input"] != root else ", or begin a new version of this one with --new-version"
            raise ConfigError(f"{store.uri} was made with another {difference}; {advice}")
    number = len(keys) + 1
    record = {**now, "metadata": f"{METADATA}.v{number}" if list_shards(store, METADATA) else METADATA}
    store.write(f"{VERSIONS}/{number:04d}.json", json.dumps(record, indent=1).encode())
    return _layout(store, number, record)


def published_version(store: Store) -> int | None:
    """The version that the sums of an output are of; None where it has none yet."""
    try:
        return int(json.loads(store.read(SUMS))["version"])
    except FileNotFoundError:
        return None


def _layout(store: Store, number: int, record: dict[str, Any]) -> Layout:
    return Layout(number, METADATA if published_version(store) == number else record["metadata"])


def _has_rows(store: Store, layout: Layout) -> bool:
    return bool(list_shards(store, layout.metadata)) or any(True for _ in store.walk(layout.all_parts))


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    for what in _SAME:
        if then[what] != now[what]:
            keys = _keys(then["settings"], now["settings"]) if what == "config" else ""
            return f"{what} ({keys or f'{then[what]}, now {now[what]}'})"
    return None


def _keys(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    """`policy.cut was None, now 0.3`, for each key that decides about the output."""
    parts = []
    for key in now:
        if isinstance(now[key], dict):
            parts.append(_keys(then.get(key, {}), now[key], f"{prefix}{key}."))
        elif then.get(key) != now[key]:
            parts.append(f"{prefix}{key} was {then.get(key)}, now {now[key]}")
    return "; ".join(part for part in parts if part)
