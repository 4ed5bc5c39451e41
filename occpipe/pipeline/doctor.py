"""Whether a run would begin: separate checks of input, output, credentials, Ray, GPU, weights and this machine.

No Ray starts and no image is read. An object that is written to a bucket as a trial is deleted again.
"""

from __future__ import annotations

import os
import resource
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from occpipe.core.config import Config
from occpipe.core.errors import ConfigError, OccpipeError, OutputBusyError, StorageError, first_line
from occpipe.core.resources import cores
from occpipe.dataset.corpus import Corpus, check_apart, open_corpus
from occpipe.dataset.layout import STATE
from occpipe.dataset.lock import WHOLE, read_holder
from occpipe.io.storage import Store, locate, open_store
from occpipe.io.storage.local import LocalStore
from occpipe.io.storage.s3 import S3Store
from occpipe.pipeline.steps import POOLS

MIN_FREE = 1 << 30
"""Bytes that are free on a disk at least."""
MIN_OPEN_FILES = 4_096
_RAY_FULL = 0.05
"""Share of a disk below which Ray writes no more objects there."""
_GB = 1 << 30

_ADVICE = {
    "input": "give a folder, glob, image, list or URI that can be read from here",
    "output": "give a folder or URI that can be written from here, and is not within INPUT",
}


class Check(NamedTuple):
    """A check with its result; `error` where a run would fail on it, `advice` where a change would help."""

    name: str
    result: str
    advice: str = ""
    error: OccpipeError | None = None


def examine(config: Config, input_uri: str, output_uri: str) -> Iterator[Check]:
    """The checks of a run of `clean`, in the order in which it would fail; they do not depend on each other."""
    corpus: Corpus | None = None

    def find_corpus() -> Iterator[Check]:
        nonlocal corpus
        corpus = open_corpus(input_uri, config.corpus, config.storage.input.access)
        kind = "a glob" if corpus.pattern else "a folder or prefix"
        if corpus.entries is not None:
            kind = f"a list of {len(corpus.entries):,}" if corpus.is_list else "one file"
        within = f", images within {corpus.extensions[0]}" if corpus.members else ""
        yield Check("input", f"{kind} below {corpus.root}{within}")
        yield from _credentials("input", open_store(corpus.root))

    def find_output() -> Iterator[Check]:
        store = open_store(locate(output_uri, "OUTPUT"), config.storage.output.access)
        if corpus is not None:
            check_apart(corpus, store.uri)
        yield _writable(store)
        yield from _credentials("output", store)

    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("weights", lambda: _weights(config)),
        ("input", find_corpus),
        ("output", find_output),
        ("Ray", lambda: _ray(config)),
        ("GPU", lambda: _gpu(config)),
        ("machine", _machine),
    ]
    for name, part in parts:
        try:
            yield from part()
        except OccpipeError as error:
            yield _failed(name, error)
        except OSError as error:
            yield _failed(name, StorageError(first_line(error)))


def _failed(name: str, error: OccpipeError) -> Check:
    if name in _ADVICE:
        return Check(name, str(error), _ADVICE[name], error)
    result, _, advice = str(error).partition("; ")
    return Check(name, result, advice, error)


def _weights(config: Config) -> Iterator[Check]:
    from occpipe.models.loading import identities

    names = ", ".join(str(model["name"]) for model in identities(config))
    yield Check("weights", f"{names}: here")


def _writable(store: Store) -> Check:
    """Whether an output can be written: a folder by its rights and its disk, a bucket by trying."""
    holder = read_holder(store, WHOLE.key)
    if holder and holder.is_alive:
        raise OutputBusyError(f"{store.uri} is being written by another run")
    if isinstance(store, LocalStore):
        there = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise StorageError(f"{store.uri}: {there} cannot be written; choose another OUTPUT, or change its rights")
        return _disk("output", there)
    key = f"{STATE}/doctor-{secrets.token_hex(8)}"
    try:
        if not store.create(key, b"occpipe doctor") or store.create(key, b"again"):
            raise StorageError(
                f"{store.uri}: a conditional write replaces an object that is there, so locks do not hold"
            )
        if store.read(key) != b"occpipe doctor":
            raise StorageError(f"{store.uri}: an object is read with other bytes than were written")
    finally:
        store.delete(key)
    return Check("output", f"{store.uri} can be written, read and deleted")


def _credentials(side: str, store: Store) -> Iterator[Check]:
    if not isinstance(store, S3Store):
        return
    import boto3
    from botocore.exceptions import BotoCoreError

    name, access = f"credentials, {side}", store.access
    if access.anonymous:
        yield Check(name, "none: anonymous")
        return
    try:
        credentials = boto3.Session(profile_name=access.profile).get_credentials()
    except BotoCoreError as error:
        raise StorageError(first_line(error)) from error
    where = f"profile {access.profile}" if access.profile else credentials.method if credentials else None
    if where is None:
        yield Check(
            name,
            "there are none",
            f"set AWS_PROFILE or storage.{side}.profile; storage.{side}.anonymous for public buckets",
        )
        return
    yield Check(name, f"from {where}, for {store.client.meta.endpoint_url}")


def _ray(config: Config) -> Iterator[Check]:
    import ray

    from occpipe.pipeline.ray.checks import SHM, check_cluster, check_machine, ray_folder
    from occpipe.pipeline.ray.connection import address_of
    from occpipe.pipeline.ray.local_ray import quiet_core

    address = address_of(config.ray)
    if address != "local":
        with quiet_core():
            check_cluster(address)
        yield Check("Ray", f"a cluster of Ray answers at {address}; this is Ray {ray.__version__}")
        return
    check_machine()
    yield Check("Ray", f"Ray {ray.__version__} of its own, {cores()} cores")
    _, there = ray_folder()
    yield _disk("disk of Ray", there, "free some, or set RAY_TMPDIR to a folder on another disk", _RAY_FULL)
    free, size = shutil.disk_usage(SHM).free, config.ray.object_store_mb << 20
    slow = (
        f"it has less than ray.object_store_mb: docker run --shm-size={size * 2 >> 30}g, or Ray keeps objects on disk"
    )
    yield Check(str(SHM), f"{free / _GB:.1f} GB free", slow if free < size else "")


def _gpu(config: Config) -> Iterator[Check]:
    from occpipe.pipeline.ray.connection import address_of

    pools = [getattr(config.placement, name) for name in POOLS]
    needs_gpu = any(pool.num_gpus for pool in pools) or "cuda" in f"{config.segmenter.device} {config.inpainter.device}"
    if needs_gpu and address_of(config.ray) != "local":
        yield Check("GPU", "the cluster is checked when a run begins")
        return
    import torch

    if not torch.cuda.is_available():
        if needs_gpu:
            raise ConfigError("the config needs a GPU, and torch finds none; install its driver, or use --config local")
        yield Check("GPU", "none, and the config needs none")
        return
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    yield Check("GPU", names, "" if needs_gpu else "it is not used: try --config gpu")


def _machine() -> Iterator[Check]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES
    yield Check("open files", f"up to {soft:,}", f"ulimit -n {1 << 16}, because Ray opens many" if few else "")


def _disk(name: str, folder: Path, advice: str = "choose another OUTPUT, or free some", share: float = 0) -> Check:
    usage = shutil.disk_usage(folder)
    full = usage.free < max(MIN_FREE, share * usage.total)
    return Check(name, f"{folder}: {usage.free / _GB:,.1f} GB free", advice if full else "")
