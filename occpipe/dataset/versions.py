"""The versions of an output: each has one command, one config, one set of weights and one input.

A run goes on with the newest version. A reader of the images could not see which settings each has, and two inputs with the
same relative names would overwrite each other. So other settings are refused, or begin a new version beside what is
published; another input needs another output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from occpipe.core.config import Config
from occpipe.core.errors import ConfigError, StorageError
from occpipe.dataset.layout import FIRST, METADATA, SUMS, VERSIONS, Layout
from occpipe.dataset.shards import list_shards
from occpipe.io.storage import Span, Store
from occpipe.models.weights import ModelIdentity

Command = Literal["clean", "scan", "apply"]
"""The commands that write an output."""
_Compared = Literal["input", "command", "config", "scan", "verdicts", "weights"]
_COMPARED: tuple[_Compared, ...] = get_args(_Compared)


@dataclass(frozen=True, slots=True)
class Origin:
    """The command that writes an output, and what `apply` decides from: digests of a scan and of verdicts."""

    command: Command = "clean"
    scan: str | None = None
    verdicts: str | None = None


CLEAN, SCAN = Origin(), Origin("scan")


class VersionRecord(TypedDict, total=False):
    """The file of a version: what its rows depend on, and the folder of its rows.

    `config` is a digest, and `settings` are the values behind it; `weights` are checksums by name.
    """

    command: Command
    scan: str | None
    verdicts: str | None
    input: str
    config: str
    weights: dict[str, str | None]
    settings: Mapping[str, object]
    metadata: str


def open_version(
    store: Store,
    config: Config,
    models: list[ModelIdentity],
    root: str,
    origin: Origin = CLEAN,
    *,
    new: bool = False,
) -> Layout:
    """The layout of the newest version of an output; the first run creates it.

    Where something differs from that version, `new` begins the next one.

    Raises:
        ConfigError: Something differs, and `new` is not set; the message names it.
        StorageError: The folder of the images has files of another origin.
    """
    now: VersionRecord = {
        "command": origin.command,
        "scan": origin.scan,
        "verdicts": origin.verdicts,
        "input": root,
        "config": config.digest,
        "weights": {str(model["name"]): model["sha256"] for model in models},
        "settings": config.deciding(),
    }
    keys = sorted(entry.key for entry in store.walk(VERSIONS))
    if not keys and origin.command != SCAN.command and store.list_keys(Span(FIRST.images), 1)[0]:
        raise StorageError(f"{store.uri}/{FIRST.images} has files that no run has written; choose another output")
    if keys:
        then: VersionRecord = json.loads(store.read(keys[-1]))
        layout = _layout(store, len(keys), then)
        difference = _difference(then, now)
        if difference is None:
            return layout
        if not _has_rows(store, layout):  # no row depends on its settings yet: it is begun anew
            keys.pop()
        elif not new or then["input"] != root:
            advice = "choose another output"
            advice += "" if then["input"] != root else ", or begin a new version of this one with --new-version"
            raise ConfigError(f"{store.uri} was made with another {difference}; {advice}")
    number = len(keys) + 1
    record: VersionRecord = {**now, "metadata": f"{METADATA}.v{number}" if list_shards(store, METADATA) else METADATA}
    store.write(f"{VERSIONS}/{number:04d}.json", json.dumps(record, indent=1).encode())
    return _layout(store, number, record)


def published_version(store: Store) -> int | None:
    """The version that the sums of an output are of; None where it has none yet."""
    try:
        return int(json.loads(store.read(SUMS))["version"])
    except FileNotFoundError:
        return None


def _layout(store: Store, number: int, record: VersionRecord) -> Layout:
    return Layout(number, METADATA if published_version(store) == number else record["metadata"])


def _has_rows(store: Store, layout: Layout) -> bool:
    return bool(list_shards(store, layout.metadata)) or any(True for _ in store.walk(layout.all_parts))


def _difference(then: VersionRecord, now: VersionRecord) -> str | None:
    for what in _COMPARED:
        if then[what] != now[what]:
            keys = _keys(then["settings"], now["settings"]) if what == "config" else ""
            return f"{what} ({keys or f'{then[what]}, now {now[what]}'})"
    return None


def _keys(then: Mapping[str, object], now: Mapping[str, object], prefix: str = "") -> str:
    """`policy.cut was None, now 0.3`, for each key that decides about the output."""
    parts = []
    for key, value in now.items():
        before = then.get(key)
        if isinstance(value, Mapping):
            parts.append(_keys(before if isinstance(before, Mapping) else {}, value, f"{prefix}{key}."))
        elif before != value:
            parts.append(f"{prefix}{key} was {before}, now {value}")
    return "; ".join(part for part in parts if part)
