"""The registry of models: the loader of each, the source, checksum and licence of its weights; and how a node gets them.

Weights are in `weights.dir`: the user's cache by default, a folder or any URI. From a URI each node copies a weight once
to its own cache: of several processes one copies, and the others wait. What is downloaded or copied is written beside its
place and renamed, so that no place holds half a file.

A `file` entry has a checksum from its publisher, and a file that does not match is refused. A `hub` entry has none: its
sha256 is recorded with the results. A licence that forbids commercial use must be accepted by name in the config.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypedDict

import yaml

from occpipe.core import config as cfg
from occpipe.core.errors import WeightsError, first_line
from occpipe.io.storage import is_safe_key, open_store, scheme_of
from occpipe.io.storage.local import alone_in

logger = logging.getLogger(__name__)
_MODEL_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_CONFIG_FILE = "config.json"


class ModelIdentity(TypedDict):
    """A model in the results of a run; unknown properties of a user's own model are None."""

    name: str
    sha256: str | None
    licence: str | None
    source: str


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One entry of `weights.yaml`. At most one of `shipped`, `file` and `hub` is its source; with none it has no weights.

    `loader` is a class or function by its dotted name. It gets the path of the weights and the device (unless there are no
    weights), `options` as keywords, and the values that `takes` names: workers, batch_size or tagger. `package` is what it
    imports beyond the requirements, from the extra `extra`.
    """

    name: str
    kind: str
    loader: str
    licence: str | None
    shipped: str | None = None
    file: str | None = None
    hub: str | None = None
    md5: str | None = None
    sha256_prefix: str | None = None
    classes: str | None = None
    paper: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    takes: Sequence[str] = ()
    package: str | None = None
    extra: str | None = None

    @property
    def has_weights(self) -> bool:
        """Whether it is more than code."""
        return bool(self.shipped or self.file or self.hub)

    @property
    def source(self) -> str:
        """Where its weights come from, for people."""
        if not self.has_weights:
            return "no weights"
        return self.file or (f"hf:{self.hub}" if self.hub else "shipped with occpipe")

    @property
    def needs_consent(self) -> bool:
        """Whether its licence forbids commercial use."""
        return "-NC" in (self.licence or "")

    @property
    def has_checksum(self) -> bool:
        """Whether its publisher gives a checksum; hub and shipped entries have none."""
        return bool(self.md5 or self.sha256_prefix)


@cache
def registry() -> dict[str, ModelEntry]:
    """All models of `weights.yaml` by name."""
    return read_entries(files("occpipe").joinpath("models/weights.yaml").read_text())


def read_entries(text: str) -> dict[str, ModelEntry]:
    """The entries of a YAML text by name."""
    return {name: ModelEntry(name=name, **values) for name, values in yaml.safe_load(text).items()}


def find_hub(hub: str) -> ModelEntry | None:
    """The entry of a hub id, whatever its case (the hub does not tell `A/b` from `a/B`); None if none is registered."""
    return next((w for w in registry().values() if w.hub and w.hub.casefold() == hub.strip("/").casefold()), None)


def check_consent(weight: ModelEntry, settings: cfg.Weights) -> None:
    """Raise WeightsError if a licence forbids commercial use and the config does not accept it by name."""
    if weight.needs_consent and weight.licence not in settings.accept_licence:
        raise WeightsError(
            f"{weight.name} is under {weight.licence}, which forbids commercial use; to accept it: "
            f"--set weights.accept_licence=[{weight.licence}]"
        )


def locate(weight: ModelEntry, settings: cfg.Weights) -> Path:
    """The local file or folder of a weight, checked by `verify`; copied from `weights.dir` first if that is a URI.

    Raises WeightsError if it is missing (with the command that fetches it) or damaged, or its licence is not accepted.
    """
    check_consent(weight, settings)
    path = _place_of(weight, settings)
    if not path.exists() and settings.dir and scheme_of(settings.dir):
        _copy_from_store(weight, settings.dir, path)
    if not path.exists():
        raise WeightsError(f"{weight.name} is not at {path}; get it with: {_command(weight, settings)}")
    verify(weight, path)
    return path


def is_here(weight: ModelEntry, settings: cfg.Weights) -> bool:
    """Whether a weight is on this machine; nothing is hashed or downloaded, and no bucket is contacted."""
    path = _place_of(weight, settings)
    return not weight.has_weights or (path.exists() and not (weight.hub and _missing_part(path)))


def verify(weight: ModelEntry, path: Path) -> None:
    """Raise WeightsError if the file at `path` differs from its publisher's checksum, or a hub folder misses a part.

    For hub entries there is no published checksum to compare; changed bytes are visible only in the recorded sha256.
    """
    if fault := _fault(weight, path):
        raise WeightsError(f"{path} {fault}")


def fetch(weight: ModelEntry, settings: cfg.Weights) -> Path:
    """Download a weight from its source into the cache and return its path. An existing one is only verified.

    If `weights.dir` is a URI, the weight is also written there and replaces an existing one, for clusters without internet.
    Raises WeightsError; if the licence is not accepted, before the download.
    """
    check_consent(weight, settings)
    path = _place_of(weight, settings)
    if weight.file and not path.exists():
        url = weight.file
        _fill(weight, path, url, lambda whole: _download_file(url, whole))
    elif weight.hub and not path.exists():
        hub = weight.hub
        _fill(weight, path, f"hf:{hub}", lambda whole: _download_hub(hub, whole))
    path = locate(weight, settings)
    if not weight.shipped and settings.dir and scheme_of(settings.dir):
        _copy_to_store(weight, path, settings.dir)
    return path


def identity(weight: ModelEntry, path: Path) -> ModelIdentity:
    """The identity of a model whose weights are at `path`."""
    return {"name": weight.name, "sha256": sha256(path), "licence": weight.licence, "source": weight.source}


def sha256(path: Path) -> str | None:
    """The sha256 of a file, or of `model.safetensors` in a folder; None if that does not exist."""
    file = path / _MODEL_FILE if path.is_dir() else path
    return _digest(file, "sha256") if file.exists() else None


def cache_folder(settings: cfg.Weights) -> Path:
    """The folder of weights on this node: `weights.dir` if it is a folder, else the user's cache."""
    if settings.dir and not scheme_of(settings.dir):
        return Path(settings.dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "occpipe" / "weights"


def _place_of(weight: ModelEntry, settings: cfg.Weights) -> Path:
    if weight.shipped:
        return Path(str(files("occpipe").joinpath("models/assets", weight.shipped)))
    return cache_folder(settings) / _name_on_disk(weight)


def _name_on_disk(weight: ModelEntry) -> str:
    return weight.file.rsplit("/", 1)[1] if weight.file else weight.name


def _command(weight: ModelEntry, settings: cfg.Weights) -> str:
    where = f" --set weights.dir={settings.dir}" if settings.dir else ""
    return f"occpipe models fetch {weight.name}{where}"


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _fault(weight: ModelEntry, path: Path) -> str | None:
    for algorithm, expected in (("md5", weight.md5), ("sha256", weight.sha256_prefix)):
        if expected and not (digest := _digest(path, algorithm)).startswith(expected):
            return f"is not {weight.name}: its {algorithm} is {digest}, expected {expected}"
    if weight.hub and (part := _missing_part(path)):
        return f"is not the whole of {weight.name}: {part} is missing; delete it and fetch it again"
    return None


def _missing_part(folder: Path) -> str | None:
    """A missing file that transformers needs; large models have several files, which an index names."""
    parts = {_CONFIG_FILE, _MODEL_FILE}
    if (folder / _INDEX_FILE).is_file():
        try:
            parts = {_CONFIG_FILE, *map(str, json.loads((folder / _INDEX_FILE).read_bytes())["weight_map"].values())}
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"a readable {_INDEX_FILE}"
    return next((part for part in sorted(parts) if not (folder / part).is_file()), None)


def _fill(weight: ModelEntry, path: Path, source: str, fill: Callable[[Path], None]) -> None:
    """Fill a temporary place beside `path`, verify it and rename it, unless another process was faster."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            alone_in(path.parent),
            tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True) as beside,
        ):
            if path.exists():
                return
            whole = Path(beside) / path.name
            logger.info("getting %s from %s", weight.name, source)
            fill(whole)
            if fault := _fault(weight, whole):
                raise WeightsError(f"what came from {source} {fault}")
            try:
                whole.rename(path)
            except OSError:  # a folder that is not empty is never replaced
                if not path.exists():
                    raise
                logger.info("%s is at %s already, from another process", weight.name, path)
    except OSError as error:
        raise WeightsError(f"{weight.name} cannot be written to {path}: {error}") from error


def _copy_from_store(weight: ModelEntry, uri: str, path: Path) -> None:
    store = open_store(uri)
    store.check_readable()
    name = _name_on_disk(weight)
    try:
        keys = [name] if weight.file else [entry.key for entry in store.walk(name)]
    except OSError as error:
        raise WeightsError(f"{weight.name}: {store.url(name)} cannot be listed: {error}") from error
    for key in keys:
        if not is_safe_key(key) or key.split("/", 1)[0] != name:
            raise WeightsError(f"{weight.name}: {store.uri} has a key that is not a file name: {key!r}")
    if not keys:
        return

    def copy(whole: Path) -> None:
        for key in keys:
            target = whole.parent / key
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                data = store.read(key)
            except FileNotFoundError:
                command = _command(weight, cfg.Weights(dir=uri))
                raise WeightsError(f"{weight.name} is not at {store.url(key)}; get it with: {command}") from None
            except OSError as error:
                raise WeightsError(f"{weight.name}: {store.url(key)} cannot be read: {error}") from error
            target.write_bytes(data)

    _fill(weight, path, store.url(name), copy)


def _copy_to_store(weight: ModelEntry, path: Path, uri: str) -> None:
    store = open_store(uri)
    if path.is_dir():
        parts = [
            (f"{path.name}/{file.relative_to(path).as_posix()}", file) for file in path.rglob("*") if file.is_file()
        ]
    else:
        parts = [(path.name, path)]
    # config.json comes last: a node that copies an incomplete folder refuses it without config.json.
    for key, file in sorted(parts, key=lambda part: (part[1].name == _CONFIG_FILE, part[0])):
        try:
            store.write(key, file.read_bytes())
        except OSError as error:
            raise WeightsError(f"{weight.name}: {store.url(key)} cannot be written: {error}") from error


def _download_file(url: str, path: Path) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except Exception as error:  # aiohttp and fsspec raise many kinds, all for a failed download
        raise WeightsError(f"{url} could not be downloaded: {type(error).__name__}: {first_line(error)}") from error


def _download_hub(hub: str, path: Path) -> None:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise WeightsError("huggingface_hub is not installed: pip install 'occpipe[hf]'") from error
    try:
        snapshot_download(hub, local_dir=path, allow_patterns=["*.json", "*.safetensors", "*.txt"])
    except Exception as error:  # as above
        raise WeightsError(f"hf:{hub} could not be downloaded: {type(error).__name__}: {first_line(error)}") from error
    shutil.rmtree(path / ".cache", ignore_errors=True)  # metadata of the download
