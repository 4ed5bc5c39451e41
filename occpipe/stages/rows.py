"""A batch for work row by row: a row that fails is closed with its error, the others go on."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, TypeVar

import pyarrow as pa

from occpipe.core.rows import ErrorRow, Row
from occpipe.core.schemas import PIPELINE
from occpipe.core.types import Status
from occpipe.io.images import SKIPPED_REASONS, ImageError, ImageReason
from occpipe.io.storage import ArchivedError, SourceChangedError, TooLargeError

T = TypeVar("T")

MAX_MESSAGE = 300
"""Characters of an error's message in a row."""
logger = logging.getLogger(__name__)
_REASON_OF = (
    (SourceChangedError, ImageReason.SOURCE_CHANGED),
    (TooLargeError, ImageReason.TOO_MANY_BYTES),
    (FileNotFoundError, ImageReason.MISSING),
    (ArchivedError, ImageReason.ARCHIVED),
    (PermissionError, ImageReason.FORBIDDEN),
    (NotADirectoryError, ImageReason.UNSAFE_PATH),  # of the output: another name is in the way
    (IsADirectoryError, ImageReason.UNSAFE_PATH),
    (OSError, ImageReason.UNREACHABLE),
)


class Rows:
    """The rows of a batch, for one stage. A row is open while it has no status."""

    STATE: ClassVar = ("status", "reason", "error")

    def __init__(self, batch: pa.Table, stage: str) -> None:
        self.batch = batch
        self.stage = stage
        self._light = batch.drop_columns([name for name in ("pixels", "data") if name in batch.column_names])
        self._status, self._reason, self._error = map(self.column, self.STATE)

    def open(self) -> list[int]:
        """Indices of the rows that still wait for their status."""
        return [index for index, status in enumerate(self._status) if status is None]

    def row(self, index: int) -> Row:
        """One row as plain values, without `pixels` and `data`."""
        row: Row = self._light.slice(index, 1).to_pylist()[0]
        return row

    def column(self, name: str) -> list[object]:
        """A column as Python objects, nulls where the batch has none of this name."""
        return self.batch.column(name).to_pylist() if name in self.batch.column_names else self.nulls()

    def finish(self, index: int, status: Status) -> None:
        """Give a row its status."""
        self._status[index] = status

    def close(self, index: int, status: str, reason: str | None, error: ErrorRow | None) -> None:
        """Close a row as an earlier run did."""
        self._status[index], self._reason[index], self._error[index] = status, reason, error

    def fail(self, index: int, error: Exception) -> None:
        """Close a row with an error, or as skipped where the image is valid but not for us."""
        reason = error.reason if isinstance(error, ImageError) else _reason_of(error)
        self._status[index] = Status.SKIPPED if reason in SKIPPED_REASONS else Status.ERROR
        self._reason[index] = reason
        message, log_line = " ".join(str(error).split()), ""
        if reason is ImageReason.STAGE_FAILED:
            log_line = self._log(index, error, message)
        message = message[: MAX_MESSAGE - len(log_line)] + log_line
        self._error[index] = {"stage": self.stage, "type": type(error).__name__, "message": message}

    def _log(self, index: int, error: Exception, message: str) -> str:
        """Log an unexpected failure with its traceback. The id of the line is the same in each run, as rows are."""
        uri = self.row(index).get("uri", index)
        failure = f"{self.stage} {uri} {type(error).__name__} {message}"
        log_id = hashlib.sha256(failure.encode()).hexdigest()[:8]
        logger.error("[log %s] %s failed on %s", log_id, self.stage, uri, exc_info=error)
        return f" [log {log_id}]"

    @contextlib.contextmanager
    def attempt(self, *indices: int) -> Iterator[None]:
        """Work on rows; an error closes them and stays in this batch.

        Each kind of error: one image must never end the job of a million others.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            for index in indices:
                self.fail(index, error)

    def together_or_alone(self, rows: Iterable[int], work: Callable[[list[int]], Sequence[T]]) -> dict[int, T]:
        """The results of `work` for these rows, all at once; where that fails, in halves, down to each row alone.

        So a picture that a model cannot take closes its own row, and a batch that is too large for a GPU is halved.
        """
        indices = sorted(rows)
        if not indices:
            return {}
        if len(indices) == 1:
            with self.attempt(*indices):
                (result,) = work(indices)
                return {indices[0]: result}
            return {}
        try:
            return dict(zip(indices, work(indices), strict=True))
        except Exception as error:  # noqa: BLE001 - the row that is to blame raises it again
            logger.info("%s: %d rows are done again in halves: %s", self.stage, len(indices), error)
        middle = len(indices) // 2  # after the block above, which frees the memory of the failed attempt
        first = self.together_or_alone(indices[:middle], work)
        return first | self.together_or_alone(indices[middle:], work)

    def table(self, drop: Iterable[str] = (), /, **columns: Sequence[object]) -> pa.Table:
        """The batch with status, reason and error as they are now, and these columns added or replaced."""
        columns = {"status": self._status, "reason": self._reason, "error": self._error, **columns}
        table = self.batch.drop_columns([name for name in (*columns, *drop) if name in self.batch.column_names])
        for name, values in columns.items():
            table = table.append_column(pa.field(name, PIPELINE[name]), pa.array(values, PIPELINE[name]))
        return table

    def nulls(self) -> list[object]:
        """A column of nulls, to be filled."""
        return [None] * len(self.batch)


def _reason_of(error: Exception) -> ImageReason:
    return next((reason for kind, reason in _REASON_OF if isinstance(error, kind)), ImageReason.STAGE_FAILED)
