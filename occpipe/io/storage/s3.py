"""S3 and what speaks its protocol, through boto3.

Credentials come from the environment, a profile or the instance. Endpoint, region and profile come from the store's access,
and where that has none from the environment (AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, BinaryIO, TypeGuard, cast

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
from occpipe.io.storage.s3_client import client_of
from occpipe.io.storage.s3_upload import upload

_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchBucket"}
_FORBIDDEN = {
    *("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "AccountProblem"),
}
_ARCHIVED = "InvalidObjectState"
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_NO_COPY = {"NotImplemented", "501", "MethodNotAllowed", "405", "InvalidRequest", "EntityTooLarge"}


class S3Store(Store):
    """A prefix in a bucket: `s3://bucket/prefix`. The root `s3://` takes keys that begin with the bucket."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""

    @property
    def client(self) -> Any:
        """The boto3 client, which other stores of the process share."""
        return client_of(self.access)

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
            more = {"IfMatch": etag} if etag else {}
            answer = self.client.get_object(Bucket=bucket, Key=name, Range=f"bytes={start}-{stop - 1}", **more)
            with contextlib.closing(answer["Body"]) as body:
                data: bytes = body.read()
        return data

    def read_range(self, key: str, etag: str, start: int, stop: int) -> bytes:
        try:
            return self.read_part(key, etag, start, stop)
        except OSError as error:
            if _code_of(error) in _TAKEN:
                raise SourceChangedError(f"{self.url(key)}: it has another tag than {etag} now") from error
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

    def list_keys(self, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        entries: list[Entry] = []
        while len(entries) < limit:
            found, last, whole = self._page(span, min(s3_keys.PAGE, limit - len(entries)))
            entries += found
            if whole:
                return entries, []
            span = Span(span.folder, last, span.until)
        return entries, [span]

    def divide(self, span: Span) -> list[Span]:
        objects, last, whole = self._page(span, s3_keys.PAGE)
        if whole:
            return [span] if objects else []

        def first_after(after: str) -> str | None:
            """The first key of the span behind a bound."""
            found = self._objects(with_retries(lambda: self._request(Span(span.folder, max(after, span.after)), 1)))
            return found[0].key if found and (span.until is None or found[0].key <= span.until) else None

        return s3_keys.divide(span, objects[0].key if objects else last, first_after)

    def copy(self, source: Store, source_key: str, key: str, etag: str) -> None:
        if not (self._is_beside(source) and self._copy_object(source, source_key, key, etag)):
            super().copy(source, source_key, key, etag)

    def _is_beside(self, source: Store) -> TypeGuard[S3Store]:
        """Whether the store that holds `source` is this one, under the same credentials."""
        ours, theirs = self.access, source.access
        return isinstance(source, S3Store) and (ours.endpoint, ours.profile) == (theirs.endpoint, theirs.profile)

    def _copy_object(self, source: S3Store, source_key: str, key: str, etag: str) -> bool:
        """Let the store copy an object; False where it will not."""
        bucket, name = self._locate(key)
        origin = dict(zip(("Bucket", "Key"), source._locate(source_key), strict=True))
        more = {"CopySourceIfMatch": etag} if etag else {}
        if source.access.requester_pays:
            more["RequestPayer"] = "requester"
        if source.access.bucket_owner:
            more["ExpectedSourceBucketOwner"] = source.access.bucket_owner
        try:
            with _as_os_error(source.url(source_key)):
                answer = self.client.copy_object(
                    Bucket=bucket, Key=name, CopySource=origin, TaggingDirective="REPLACE", **more
                )
        except PermissionError:  # it may be allowed to read, or will be refused again
            return False
        except OSError as error:
            code = _code_of(error)
            if code in ("PreconditionFailed", "412"):
                raise SourceChangedError(f"{source.url(source_key)}: it has another tag than {etag} now") from error
            if code in _NO_COPY:
                return False
            raise
        if (
            etag and answer["CopyObjectResult"]["ETag"].strip('"') != etag
        ):  # uploaded in parts, or the condition ignored
            found = source.find(source_key)
            if found is None or found.etag != etag:
                self.delete(key)
                raise SourceChangedError(f"{source.url(source_key)}: it has another tag than {etag} now")
        return True

    def _page(self, span: Span, limit: int) -> tuple[list[Entry], str, bool]:
        """Some objects of a span, the last key that was looked at, and whether the span ends there."""
        answer = with_retries(lambda: self._request(span, limit))
        while not (objects := self._objects(answer)) and answer["IsTruncated"]:  # a page of keys that were deleted
            token = answer["NextContinuationToken"]
            answer = with_retries(partial(self._request, span, limit, ContinuationToken=token))
        if objects and objects[0].key <= span.after:
            raise StorageError(f"{self.url(span.folder)}: the store ignores StartAfter")
        last = objects[-1].key if objects else span.after
        whole = not answer["IsTruncated"]
        if span.until is not None and last >= span.until:
            objects, whole = [found for found in objects if found.key <= span.until], True
        # Consoles mark an empty folder with a key that ends with a slash.
        return [found for found in objects if not found.key.endswith("/")], last, whole

    def _objects(self, answer: dict[str, Any]) -> list[Entry]:
        return s3_keys.entries_of(answer, len(self.prefix))

    def _request(self, span: Span, limit: int, **more: str) -> dict[str, Any]:
        prefix = f"{self.prefix}{span.folder}/" if span.folder else self.prefix
        if span.after:
            more["StartAfter"] = f"{self.prefix}{span.after}"
        with _as_os_error(self.url(span.folder)):
            answer: dict[str, Any] = self.client.list_objects_v2(
                Bucket=self.bucket, Prefix=prefix, MaxKeys=limit, **more
            )
        return answer

    def check_readable(self) -> None:
        try:
            found = self._objects(self._request(Span(), 1))
        except FileNotFoundError:
            raise StorageError(f"s3://{self.bucket}: no such bucket") from None
        except OSError as error:
            raise StorageError(str(error)) from error
        if not found:
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


def _code_of(error: OSError) -> str:
    """What the store says of an error."""
    return str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _as_os_error(url: str) -> Iterator[None]:
    from botocore import exceptions

    away = (
        *(exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyConnectionError),
        *(exceptions.ConnectionClosedError, exceptions.ReadTimeoutError),
    )
    try:
        yield
    except exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        said = error.response["Error"].get("Message")
        message = f"{url}: {said} ({code})" if said else f"{url}: {code}"
        if code == _ARCHIVED:
            kind = error.response["Error"].get("StorageClass") or "GLACIER"
            raise ArchivedError(f"{url}: archived ({kind}): restore it, and the next run reads it") from error
        if code in _MISSING:
            raise FileNotFoundError(message) from error
        if code in _FORBIDDEN:
            raise PermissionError(message) from error
        raise OSError(message) from error
    except away as error:
        raise StoreAwayError(f"{url}: {error}") from error
    except (RecursionError, exceptions.BotoCoreError) as error:
        if RecursionError in (type(error), type(error.__context__)):  # botocore tries another region again and again
            raise PermissionError(f"{url}: the endpoint only redirects; is it https:// in place of http://?") from error
        # no credentials, a reset while reading
        raise OSError(f"{url}: {' '.join(str(error).split())}") from error
