"""Listing of a corpus by prefixes in parallel against one thread, with the manifest that comes of it.

Bound by the store's 50 ms a page of 1,000 keys: 64 prefixes of 16 pages take one thread 51 s and its CPU. The store is a
stand-in for S3 on loopback, in a process of its own, so its CPU counts here as well.
Run: python benchmarks/listing.py [--prefixes 64] [--pages 16] [--flat] [--executor ray|processes] [--local 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psutil

from occpipe.core.config import Corpus as Settings
from occpipe.dataset.corpus import open_corpus
from occpipe.dataset.listing import list_corpus
from occpipe.io.storage import Store, open_store

PAGE = 1_000
PAUSE_S = 0.05
SHARD_IMAGES = 8_192
_TAIL = (
    "</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;8b1a9953c4611296a827abf8c47804d7&quot;</ETag>"
    "<Size>123456</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


class Keys(Sequence[str]):
    """The keys of a bucket in order, generated page by page."""

    def __init__(self, prefixes: int, pages: int, *, flat: bool) -> None:
        self._each, self._count, self._flat = pages * PAGE, prefixes * pages * PAGE, flat

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self._key(number) for number in range(*at.indices(self._count))]
        return self._key(range(self._count)[at])

    def _key(self, number: int) -> str:
        return f"photos/{number:09d}.jpg" if self._flat else f"photos/{number // self._each:03d}/{number:09d}.jpg"


def page(keys: Keys, query: dict[str, list[str]]) -> bytes:
    """The answer to a listing."""
    most = int(query.get("max-keys", [str(PAGE)])[0])
    prefix = query.get("prefix", [""])[0]
    start = max(bisect.bisect_right(keys, query.get("start-after", [""])[0]), bisect.bisect_left(keys, prefix))
    if "continuation-token" in query:
        start = int(query["continuation-token"][0])
    end = bisect.bisect_right(keys, prefix + "\U0010ffff")
    stop = min(start + most, end)
    items = "".join(f"<Contents><Key>{key}{_TAIL}" for key in keys[start:stop])
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{stop}</NextContinuationToken>"
    head = more if stop < end else "<IsTruncated>false</IsTruncated>"
    body = f"<ListBucketResult><EncodingType>url</EncodingType>{head}{items}</ListBucketResult>".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def serve(keys: Keys, port: Connection) -> None:
    """Answer listings of the bucket, each after a pause."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                query = parse_qs(urlsplit(request.split(b" ", 2)[1].decode()).query)
                await asyncio.sleep(PAUSE_S)
                writer.write(page(keys, query))
                await writer.drain()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextlib.contextmanager
def executor_of(kind: str) -> Iterator[Executor]:
    """What runs the tasks of a listing, started and warm."""
    if kind == "processes":
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            list(pool.map(quote, [""] * 4))
            yield pool
        return
    from occpipe.core.config import RayRuntime
    from occpipe.pipeline.ray.connection import ray_session
    from occpipe.pipeline.ray.executor import RayExecutor

    with ray_session(RayRuntime()):
        executor = RayExecutor()
        for task in [executor.submit(quote, "") for _ in range(4)]:
            task.result()
        yield executor


def cpu() -> float:
    """CPU seconds of this process and of those that it started."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def one_thread(store: Store) -> float:
    """Seconds of a listing by one thread, which keeps nothing."""
    start = time.perf_counter()
    count = sum(1 for _ in store.walk())
    seconds = time.perf_counter() - start
    print(f"one thread        {seconds:6.1f} s  {count / seconds:9,.0f} keys/s")
    return seconds


def side_by_side(uri: str, output: Store, executor: Executor, name: str) -> float:
    """Seconds of `list_corpus`."""
    start, used, first = time.perf_counter(), cpu(), None
    seen, shards = 0, 0
    listing = list_corpus(
        open_corpus(uri, Settings()),
        output,
        shard_images=SHARD_IMAGES,
        limit=None,
        executor=lambda: executor,
        mark_changed=lambda _: None,
    )
    for one in listing:
        seen, shards = one.seen, shards + len(one.added)
        if one.added and first is None:
            first = time.perf_counter() - start
    seconds = time.perf_counter() - start
    after = "" if first is None else f", the first after {first:.1f} s"
    print(f"{name:17} {seconds:6.1f} s  {seen / seconds:9,.0f} keys/s  {1e6 * (cpu() - used) / seen:5.1f} us CPU a key")
    print(f"                  {shards} new shards{after}")
    return seconds


def of_bucket(prefixes: int, pages: int, kind: str, *, flat: bool) -> None:
    """List the stand-in by one thread and side by side, and once more with a manifest that knows all of it."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(Keys(prefixes, pages, flat=flat), theirs), daemon=True
    )
    server.start()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{ours.recv()}"
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        os.environ[f"AWS_{name}"] = "us-east-1"
    with tempfile.TemporaryDirectory() as folder, executor_of(kind) as executor:
        uri, output = "s3://bucket/photos", open_store(folder)
        first = side_by_side(uri, output, executor, "side by side")
        again = side_by_side(uri, output, executor, "  with a manifest")
        single = one_thread(open_store(uri))
    print(f"{single / first:.1f} times as fast; with a manifest {single / again:.1f} times (target: at least 8)")
    server.terminate()


def of_folder(files: int, kind: str) -> None:
    """The same for one local folder with so many files."""
    with tempfile.TemporaryDirectory() as folder, executor_of(kind) as executor:
        Path(folder, "in").mkdir()
        for number in range(files):
            Path(folder, "in", f"{number:09d}.jpg").touch()
        uri, output = f"{folder}/in", open_store(f"{folder}/out")
        side_by_side(uri, output, executor, "side by side")
        side_by_side(uri, output, executor, "  with a manifest")
        one_thread(open_store(uri))


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefixes", type=int, default=64)
    parser.add_argument("--pages", type=int, default=16)
    parser.add_argument("--flat", action="store_true", help="all keys in one level")
    parser.add_argument("--executor", choices=("ray", "processes"), default="ray")
    parser.add_argument("--local", type=int, help="files of a local folder, in place of the bucket")
    args = parser.parse_args()
    if args.local:
        of_folder(args.local, args.executor)
    else:
        of_bucket(args.prefixes, args.pages, args.executor, flat=args.flat)
    print(f"driver: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at most")


if __name__ == "__main__":
    main()
