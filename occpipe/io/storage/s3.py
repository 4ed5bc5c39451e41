"""S3 and servers with its protocol, through boto3.

Credentials come from the environment, a profile or the instance. Endpoint, region and profile come from the access of the
store, else from the environment (AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO, TypeGuard, cast

from occpipe.core.errors import StorageError
from occpipe.io.storage import s3_keys
from occpipe.io.storage.base import (
    ArchivedError,
    Entry,
    SourceChangedError,
    Span,
    Store,
    StoreAwayError,
    TooLargeError,
    Writer,
    with_retries,
)
from occpipe.io.storage.s3_client import S3Client, client_of
from occpipe.io.storage.s3_upload import upload

logger = logging.getLogger(__name__)
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchBucket"}
_FORBIDDEN = {
    *("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "AccountProblem"),
}
_ARCHIVED = "InvalidObjectState"
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_NO_COPY = {"NotImplemented", "501", "MethodNotAllowed", "405", "InvalidRequest", "EntityTooLarge"}


MAX_COPY = 5_000_000_000
"""Bytes of an object that S3 copies by one request."""


class S3Store(Store):
    """A prefix in a bucket: `s3://bucket/prefix`. With the root `s3://` keys begin with the bucket."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""

    @property
    def client(self) -> S3Client:
        """The boto3 client, shared with other stores of the process."""
        return client_of(self.access)

    def read(self, key: str, limit: int | None = None) -> bytes:
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            response = self.client.get_object(Bucket=bucket, Key=name)
            with contextlib.closing(response["Body"]) as body:
                if limit is not None and response["ContentLength"] > limit:
                    raise TooLargeError(f"{response['ContentLength']} bytes, the limit is {limit}")
                data: bytes = body.read()
        return data

    def open(self, key: str) -> BinaryIO:
        entry = self.find(key)
        if entry is None:
            raise FileNotFoundError(f"{self.url(key)}: not found")
        return cast("BinaryIO", _S3File(self, key, entry))

    def read_part(self, key: str, etag: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of an object that still has this tag; OSError if it was replaced."""
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            condition = {"IfMatch": etag} if etag else {}
            byte_range = f"bytes={start}-{stop - 1}"
            response = self.client.get_object(Bucket=bucket, Key=name, Range=byte_range, **condition)
            with contextlib.closing(response["Body"]) as body:
                data: bytes = body.read()
        return data

    def read_range(self, key: str, etag: str, start: int, stop: int) -> bytes:
        try:
            return self.read_part(key, etag, start, stop)
        except OSError as error:
            if _code_of(error) in _TAKEN:
                raise SourceChangedError(f"{self.url(key)}: its tag is no longer {etag}") from error
            raise

    def writer(self, key: str) -> AbstractContextManager[Writer]:
        bucket, name = self._locate(key)
        return upload(self.client, bucket, name, lambda: _as_os_error(self.url(key)))

    def write(self, key: str, data: bytes) -> None:
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            self.client.put_object(Bucket=bucket, Key=name, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        bucket, name = self._locate(key)
        with _as_os_error(self.url(key)):
            if self.find(key):  # some servers accept the condition below and ignore it
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

    def list_keys(self, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        entries: list[Entry] = []
        while len(entries) < limit:
            page, last, is_end = self._page(span, min(s3_keys.PAGE_KEYS, limit - len(entries)))
            entries += page
            if is_end:
                return entries, []
            span = Span(span.folder, last, span.until)
        return entries, [span]

    def divide(self, span: Span) -> list[Span]:
        objects, last, is_end = self._page(span, s3_keys.PAGE_KEYS)
        if is_end:
            return [span] if objects else []

        def first_after(after: str) -> str | None:
            """The first key of the span behind a bound."""
            page = self._objects(with_retries(lambda: self._request(Span(span.folder, max(after, span.after)), 1)))
            return page[0].key if page and (span.until is None or page[0].key <= span.until) else None

        return s3_keys.divide(span, objects[0].key if objects else last, first_after)

    def copy(self, source: Store, source_key: str, key: str, etag: str, size: int = 0) -> None:
        by_server = size <= MAX_COPY and self._shares_credentials(source)
        if not (by_server and self._copy_object(cast("S3Store", source), source_key, key, etag)):
            super().copy(source, source_key, key, etag, size)

    def _shares_credentials(self, source: Store) -> TypeGuard[S3Store]:
        """Whether the source is on the same server with the same credentials."""
        own, other = self.access, source.access
        return isinstance(source, S3Store) and (own.endpoint, own.profile) == (other.endpoint, other.profile)

    def _copy_object(self, source: S3Store, source_key: str, key: str, etag: str) -> bool:
        """Let the server copy an object; False if it refuses."""
        bucket, name = self._locate(key)
        origin = dict(zip(("Bucket", "Key"), source._locate(source_key), strict=True))
        options = {"CopySourceIfMatch": etag} if etag else {}
        if source.access.requester_pays:
            options["RequestPayer"] = "requester"
        if source.access.bucket_owner:
            options["ExpectedSourceBucketOwner"] = source.access.bucket_owner
        try:
            with _as_os_error(source.url(source_key)):
                response = self.client.copy_object(
                    Bucket=bucket, Key=name, CopySource=origin, TaggingDirective="REPLACE", **options
                )
        except PermissionError as error:  # reading may be allowed, or fails in the same way
            logger.info("copying by reading, because the store refused to copy: %s", error)
            return False
        except OSError as error:
            code = _code_of(error)
            if code in ("PreconditionFailed", "412"):
                raise SourceChangedError(f"{source.url(source_key)}: its tag is no longer {etag}") from error
            if code in _NO_COPY:
                return False
            raise
        if (
            etag and response["CopyObjectResult"]["ETag"].strip('"') != etag
        ):  # uploaded in parts, or the server ignored the condition
            entry = source.find(source_key)
            if entry is None or entry.etag != etag:
                self.delete(key)
                raise SourceChangedError(f"{source.url(source_key)}: its tag is no longer {etag}")
        return True

    def _page(self, span: Span, limit: int) -> tuple[list[Entry], str, bool]:
        """Some objects of a span, the last key of the page, and whether the span ends there."""
        response = with_retries(lambda: self._request(span, limit))
        while not (objects := self._objects(response)) and response["IsTruncated"]:  # a page of deleted keys
            token = response["NextContinuationToken"]
            response = with_retries(partial(self._request, span, limit, ContinuationToken=token))
        if objects and objects[0].key <= span.after:
            raise StorageError(f"{self.url(span.folder)}: the store ignores StartAfter")
        last = objects[-1].key if objects else span.after
        is_end = not response["IsTruncated"]
        if span.until is not None and last >= span.until:
            objects, is_end = [entry for entry in objects if entry.key <= span.until], True
        # Consoles mark an empty folder with a key that ends with a slash.
        return [entry for entry in objects if not entry.key.endswith("/")], last, is_end

    def _objects(self, response: s3_keys.Page) -> list[Entry]:
        return s3_keys.entries_of(response, len(self.prefix))

    def _request(self, span: Span, limit: int, **options: str) -> s3_keys.Page:
        prefix = f"{self.prefix}{span.folder}/" if span.folder else self.prefix
        if span.after:
            options["StartAfter"] = f"{self.prefix}{span.after}"
        with _as_os_error(self.url(span.folder)):
            response: s3_keys.Page = self.client.list_objects_v2(
                Bucket=self.bucket, Prefix=prefix, MaxKeys=limit, **options
            )
        return response

    def check_readable(self) -> None:
        try:
            page = self._objects(self._request(Span(), 1))
        except FileNotFoundError:
            raise StorageError(f"s3://{self.bucket}: no such bucket") from None
        except OSError as error:
            raise StorageError(str(error)) from error
        if not page:
            raise StorageError(f"{self.uri}: there is nothing below it")

    def _locate(self, key: str) -> tuple[str, str]:
        if self.bucket:
            return self.bucket, f"{self.prefix}{key}"
        bucket, _, name = key.partition("/")
        return bucket, name


class _S3File(io.RawIOBase):
    """An object of S3 as a file; each read is one request, so callers read large parts."""

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


def _code_of(error: OSError) -> str:
    """The error code of the store."""
    return str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _as_os_error(url: str) -> Iterator[None]:
    from botocore import exceptions

    unreachable = (
        *(exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyConnectionError),
        *(exceptions.ConnectionClosedError, exceptions.ReadTimeoutError),
    )
    try:
        yield
    except exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        text = error.response["Error"].get("Message")
        message = f"{url}: {text} ({code})" if text else f"{url}: {code}"
        if code == _ARCHIVED:
            kind = error.response["Error"].get("StorageClass") or "GLACIER"
            raise ArchivedError(f"{url}: archived ({kind}): restore it, and the next run reads it") from error
        if code in _MISSING:
            raise FileNotFoundError(message) from error
        if code in _FORBIDDEN:
            raise PermissionError(message) from error
        raise OSError(message) from error
    except unreachable as error:
        raise StoreAwayError(f"{url}: {error}") from error
    except (RecursionError, exceptions.BotoCoreError) as error:
        if RecursionError in (type(error), type(error.__context__)):  # botocore tries another region again and again
            raise PermissionError(f"{url}: the endpoint only redirects; is it https:// in place of http://?") from error
        # no credentials, or a connection reset while reading
        raise OSError(f"{url}: {' '.join(str(error).split())}") from error
