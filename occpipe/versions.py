"""The versions of an output below OUTPUT/ledger/versions: each is made in one way, from one input.

A run goes on with the newest version. Mixed settings could not be told apart by who reads the images, and two inputs
with the same relative names would overwrite each other, so other settings are refused, or begin a new version.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from occpipe.config import Config
from occpipe.errors import ConfigError
from occpipe.ledger import next_run
from occpipe.storage import Store

_VERSIONS = "ledger/versions"
_SAME = ("command", "input", "config", "scan", "verdicts", "weights")


@dataclass(frozen=True, slots=True)
class Origin:
    """The command that makes an output, and what `apply` makes it from: digests of a scan and of verdicts."""

    command: str = "clean"
    scan: str | None = None
    verdicts: str | None = None


CLEAN, SCAN = Origin(), Origin("scan")


@dataclass(frozen=True, slots=True)
class Version:
    """One way an output was made; its rows are those of `first_run` and the runs after it."""

    number: int
    first_run: int

    @property
    def images(self) -> str:
        """The folder of its images. Each version has its own: what is published stays whole while a new one is made."""
        return "images" if self.number == 1 else f"images.v{self.number}"


FIRST = Version(1, 1)


def open_version(
    store: Store,
    config: Config,
    models: list[dict[str, str | None]],
    root: str,
    origin: Origin = CLEAN,
    *,
    new: bool = False,
) -> Version:
    """The newest version of an output, where it was made in this way, from this input; the first run makes it.

    Where it was made in another way, `new` begins the next version; without it that is a ConfigError that names what
    differs.
    """
    weights = {str(model["name"]): model["sha256"] for model in models}
    settings = config.deciding()
    now = {**asdict(origin), "input": root, "config": config.digest, "weights": weights, "settings": settings}
    keys = sorted(entry.key for entry in store.walk(_VERSIONS))
    if keys:
        then = asdict(CLEAN) | json.loads(store.read(keys[-1]))  # the earliest records know of nothing else
        difference = _difference(then, now)
        if difference is None:
            return Version(len(keys), then["first_run"])
        if next_run(store) == then["first_run"]:  # it has no rows yet: it is begun anew
            keys.pop()
        elif not new:
            advice = "choose another output, or begin a new version of this one with --new-version"
            raise ConfigError(f"{store.uri} was made with another {difference}; {advice}")
    version = Version(len(keys) + 1, next_run(store))
    record = json.dumps({**now, "first_run": version.first_run}, indent=1)
    store.write(f"{_VERSIONS}/{version.number:04d}.json", record.encode())  # by the one who holds the lock
    return version


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
