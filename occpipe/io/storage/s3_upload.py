"""An upload to S3 of a size that is not known beforehand: in parts, of which one is in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from occpipe.io.storage.base import Writer, with_retries

PART = 16_000_000
"""Bytes of a part: S3 takes 5 MiB at least and 10,000 parts, so an object of up to 160 GB."""
_PATIENCE_S = 300.0


class _Upload:
    """Collects parts. An object that fits into one is a single PUT."""

    def __init__(self, client: Any, target: dict[str, str], guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._client, self._target, self._guard = client, target, guard
        self._data, self._tags, self.id = bytearray(), list[dict[str, Any]](), ""

    def write(self, data: bytes | memoryview, /) -> int:
        self._data += data
        while len(self._data) >= PART:
            self._send(bytes(self._data[:PART]))
            del self._data[:PART]
        return len(data)

    def finish(self) -> None:
        if not self.id:
            self._call("put_object", Body=bytes(self._data))
            return
        if self._data:
            self._send(bytes(self._data))
        self._call("complete_multipart_upload", UploadId=self.id, MultipartUpload={"Parts": self._tags})

    def abort(self) -> None:
        if self.id:
            self._client.abort_multipart_upload(**self._target, UploadId=self.id)

    def _send(self, part: bytes) -> None:
        if not self.id:
            self.id = self._call("create_multipart_upload")["UploadId"]
        number = len(self._tags) + 1
        answer = self._call("upload_part", UploadId=self.id, PartNumber=number, Body=part)
        self._tags.append({"PartNumber": number, "ETag": answer["ETag"]})

    def _call(self, operation: str, **parameters: Any) -> Any:
        def call() -> Any:
            with self._guard():
                return getattr(self._client, operation)(**self._target, **parameters)

        return with_retries(call, patience_s=_PATIENCE_S)


@contextmanager
def upload(client: Any, bucket: str, key: str, guard: Callable[[], AbstractContextManager[None]]) -> Iterator[Writer]:
    """A writer whose object is there once the `with` ends well; `guard` turns errors of boto3 into those of a store.

    What a killed process leaves are parts that nobody sees; a lifecycle rule of the bucket removes them.
    """
    writer = _Upload(client, {"Bucket": bucket, "Key": key}, guard)
    try:
        yield writer
        writer.finish()
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            writer.abort()
        raise
