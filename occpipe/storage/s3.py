"""S3 and what speaks its protocol, through boto3.

The endpoint, region and credentials come from the environment or the instance profile (AWS_ENDPOINT_URL, ...).
boto3's own retries (standard mode: exponential backoff with jitter) cover throttling, 5xx and connection resets.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from occpipe.errors import StorageError
from occpipe.storage.base import Entry, Store, TooLargeError, with_retries

_CLIENT_LOCK = threading.Lock()
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchBucket"}
_FORBIDDEN = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


class S3Store(Store):
    """A prefix in a bucket: `s3://bucket/prefix`. The root `s3://` takes keys that begin with the bucket."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The boto3 client, made on first use; boto3 clients are safe to share between threads."""
        with _CLIENT_LOCK:  # the threads of a stage ask at once, and making clients is not safe between them
            if self._client is None:
                self._client = self._connect()
        return self._client

    @staticmethod
    def _connect() -> Any:
        import boto3  # half a second of imports that local runs never need
        from botocore.config import Config
        from botocore.handlers import add_expect_header

        retries = Config(retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=64)
        client = boto3.Session().client("s3", config=retries)
        # Where a connection breaks in the middle of "100 Continue" botocore reads its end for ever; our bodies are small.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    def read(self, key: str, limit: int | None = None) -> bytes:
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            answer = self.client.get_object(Bucket=bucket, Key=name)
            with contextlib.closing(answer["Body"]) as body:
                if limit is not None and answer["ContentLength"] > limit:
                    raise TooLargeError(f"{answer['ContentLength']} bytes, the limit is {limit}")
                data: bytes = body.read()
        return data

    def open(self, key: str) -> BinaryIO:
        found = self.find(key)
        if found is None:
            raise FileNotFoundError(f"{self.url(key)}: not found")
        return cast("BinaryIO", _Parts(self, key, found))

    def read_part(self, key: str, etag: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop` of an object that still has this tag; OSError where it was replaced."""
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            answer = self.client.get_object(Bucket=bucket, Key=name, Range=f"bytes={start}-{stop - 1}", IfMatch=etag)
            with contextlib.closing(answer["Body"]) as body:
                data: bytes = body.read()
        return data

    def write(self, key: str, data: bytes) -> None:
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            self.client.put_object(Bucket=bucket, Key=name, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            if self.find(key):  # some servers accept the condition and ignore it
                return False
            try:
                self.client.put_object(Bucket=bucket, Key=name, Body=data, IfNoneMatch="*")
            except self.client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in _TAKEN:
                    return False
                raise
        return True

    def find(self, key: str) -> Entry | None:
        bucket, name = self._locate(key)
        try:
            with _as_os_error(self.url(key)):
                head = self.client.head_object(Bucket=bucket, Key=name)
        except FileNotFoundError:
            return None
        return Entry(key, head["ContentLength"], head["ETag"].strip('"'))

    def delete(self, key: str) -> None:
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            self.client.delete_object(Bucket=bucket, Key=name)

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        start = f"{self.prefix}{prefix}/" if prefix else self.prefix
        with _as_os_error(self.url(prefix)):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            for page in pages:
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):  # consoles mark an empty folder with such a key
                        key = item["Key"][len(self.prefix) :]
                        yield Entry(key, item["Size"], item["ETag"].strip('"'))

    def check_readable(self) -> None:
        try:
            with _as_os_error(self.uri):
                found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        except FileNotFoundError:
            raise StorageError(f"s3://{self.bucket}: no such bucket") from None
        except OSError as error:
            raise StorageError(str(error)) from error
        if not found.get("Contents"):
            raise StorageError(f"{self.uri}: there is nothing below it")

    def _locate(self, key: str) -> tuple[str, str]:
        if self.bucket:
            return self.bucket, f"{self.prefix}{key}"
        bucket, _, name = key.partition("/")
        return bucket, name


class _Parts(io.RawIOBase):
    """An object of S3 as a file; each read is a request of its own, so callers read in large parts."""

    def __init__(self, store: S3Store, key: str, entry: Entry) -> None:
        self._store, self._key, self._etag, self._size, self._at = store, key, entry.etag, entry.size or 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        start = self._at
        stop = self._size if size is None or size < 0 else min(start + size, self._size)
        if stop <= start:
            return b""
        data = with_retries(lambda: self._store.read_part(self._key, self._etag, start, stop))
        self._at += len(data)
        return data


@contextlib.contextmanager
def _as_os_error(url: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        message = f"{url}: {error.response['Error'].get('Message') or code}"
        if code in _MISSING:
            raise FileNotFoundError(message) from error
        if code in _FORBIDDEN:
            raise PermissionError(message) from error
        raise OSError(message) from error
    except BotoCoreError as error:  # no credentials, no connection, a reset while reading
        raise OSError(f"{url}: {error}") from error
