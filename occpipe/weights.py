"""The registry of weights: where each comes from, its checksum, licence and contract; and how a node gets it.

Weights lie in `weights.dir`: the user's cache by default, a folder or any URI. From a URI each node copies a weight once
to its own cache. A file that does not match its checksum is refused; one under a licence that forbids commercial use
must be accepted by name in the config.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from occpipe import config as cfg
from occpipe.errors import WeightsError
from occpipe.storage import open_store
from occpipe.storage.open import scheme_of

_MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Weight:
    """One entry of the registry; exactly one of `shipped`, `file` and `hub` says where it comes from."""

    name: str
    kind: str
    contract: str
    licence: str
    shipped: str | None = None
    file: str | None = None
    hub: str | None = None
    md5: str | None = None
    sha256_prefix: str | None = None
    classes: str | None = None
    paper: str | None = None

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return self.file or (f"hf:{self.hub}" if self.hub else "shipped with occpipe")

    @property
    def needs_consent(self) -> bool:
        """Whether its licence forbids commercial use."""
        return "-NC" in self.licence


@cache
def registry() -> dict[str, Weight]:
    """All known weights by name."""
    text = files("occpipe").joinpath("data/weights.yaml").read_text()
    return {name: Weight(name=name, **entry) for name, entry in yaml.safe_load(text).items()}


def find(name: str, kind: str) -> Weight:
    """The entry of a model of a kind (`segmenter`, `inpainter`); raises WeightsError naming those there are."""
    entry = registry().get(name)
    if entry is None or entry.kind != kind:
        known = ", ".join(sorted(w.name for w in registry().values() if w.kind == kind))
        raise WeightsError(f"no {kind} {name!r}; known: {known}")
    return entry


def locate(weight: Weight, settings: cfg.Weights) -> Path:
    """The verified local file or folder of a weight.

    Raises WeightsError where it is missing (with the command that fetches it), damaged, or not accepted.
    """
    if weight.needs_consent and weight.licence not in settings.accept_licence:
        raise WeightsError(
            f"{weight.name} is under {weight.licence}, which forbids commercial use; to accept it: "
            f"--set weights.accept_licence=[{weight.licence}]"
        )
    if weight.shipped:
        return Path(str(files("occpipe").joinpath("assets", weight.shipped)))
    path = cache_folder(settings) / _name_on_disk(weight)
    if not path.exists() and settings.dir and scheme_of(settings.dir):
        _copy_from_store(weight, settings.dir, path)
    if not path.exists():
        raise WeightsError(f"{weight.name} is not at {path}; get it with: occpipe models fetch {weight.name}")
    verify(weight, path)
    return path


def verify(weight: Weight, path: Path) -> None:
    """Raise WeightsError unless what lies at `path` has the checksum that its publisher gives."""
    if weight.file is None:
        return
    for algorithm, expected in (("md5", weight.md5), ("sha256", weight.sha256_prefix)):
        if expected and not (found := _digest(path, algorithm)).startswith(expected):
            raise WeightsError(f"{path} is not {weight.name}: its {algorithm} is {found}, expected {expected}")


def fetch(weight: Weight, settings: cfg.Weights) -> Path:
    """Download a weight from its source into the cache, verified; its path. One that is there is only verified."""
    path = cache_folder(settings) / _name_on_disk(weight)
    if weight.shipped or path.exists():
        return locate(weight, settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    if weight.hub:
        _download_hub(weight.hub, path)
    else:
        assert weight.file  # noqa: S101 - the registry holds one of the three
        _download_file(weight.file, path)
    return locate(weight, settings)


def identity(weight: Weight, path: Path) -> dict[str, str | None]:
    """What is written with the results: name, sha256, licence and source."""
    file = path / _MODEL_FILE if path.is_dir() else path
    digest = _digest(file, "sha256") if file.exists() else None
    return {"name": weight.name, "sha256": digest, "licence": weight.licence, "source": weight.source}


def cache_folder(settings: cfg.Weights) -> Path:
    """Where weights lie on this node: `weights.dir` if it is a folder, else the user's cache."""
    if settings.dir and not scheme_of(settings.dir):
        return Path(settings.dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "occpipe" / "weights"


def _name_on_disk(weight: Weight) -> str:
    return weight.file.rsplit("/", 1)[1] if weight.file else weight.name


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _copy_from_store(weight: Weight, uri: str, path: Path) -> None:
    store = open_store(uri)
    store.check_readable()
    name = _name_on_disk(weight)
    keys = [name] if weight.file else [entry.key for entry in store.walk(name)]
    for key in keys:
        target = path.parent / key
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            data = store.read(key)
        except OSError as error:
            raise WeightsError(f"{weight.name}: {store.url(key)} cannot be read: {error}") from error
        _write_whole(target, data)


def _download_file(url: str, path: Path) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source:
            _write_whole(path, source.read())
    except Exception as error:  # aiohttp and fsspec raise many kinds, and all of them mean that it did not arrive
        raise WeightsError(f"{url} could not be downloaded: {type(error).__name__}: {error}") from error


def _download_hub(hub: str, path: Path) -> None:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise WeightsError("huggingface_hub is not installed: pip install 'occpipe[hf]'") from error
    try:
        snapshot_download(hub, local_dir=path, allow_patterns=["*.json", "*.safetensors", "*.txt"])
    except Exception as error:  # as above
        raise WeightsError(f"hf:{hub} could not be downloaded: {type(error).__name__}: {error}") from error


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)
