"""A batch opened for work row by row: a row that fails is closed with its error, the others go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import pyarrow as pa

from occpipe.core.schemas import PIPELINE
from occpipe.core.types import Status
from occpipe.io.images import SKIPPED_REASONS, ImageError, ImageReason
from occpipe.io.storage import ArchivedError, SourceChangedError, TooLargeError

T = TypeVar("T")

MESSAGE_CHARS = 300
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
        self._status, self._reason, self._error = map(self.column, self.STATE)

    def open(self) -> list[int]:
        """Indices of the rows that still wait for their status."""
        return [index for index, status in enumerate(self._status) if status is None]

    def value(self, name: str, index: int) -> Any:
        """One value of a column, as a Python object."""
        return self.batch.column(name)[index].as_py()

    def column(self, name: str) -> list[Any]:
        """A column as Python objects, nulls where the batch has none of this name."""
        return self.batch.column(name).to_pylist() if name in self.batch.column_names else self.nulls()

    def finish(self, index: int, status: Status) -> None:
        """Give a row its status."""
        self._status[index] = status

    def close(self, index: int, status: str, reason: str | None, error: dict[str, str] | None) -> None:
        """Close a row as an earlier run did."""
        self._status[index], self._reason[index], self._error[index] = status, reason, error

    def fail(self, index: int, error: Exception) -> None:
        """Close a row with an error, or as skipped where the image is valid but not for us."""
        reason = error.reason if isinstance(error, ImageError) else _reason_of(error)
        self._status[index] = Status.SKIPPED if reason in SKIPPED_REASONS else Status.ERROR
        self._reason[index] = reason
        message = " ".join(str(error).split())[:MESSAGE_CHARS]
        self._error[index] = {"stage": self.stage, "type": type(error).__name__, "message": message}

    @contextlib.contextmanager
    def attempt(self, *indices: int) -> Iterator[None]:
        """Work on rows; whatever it raises closes them and stays in this batch.

        A broad except is the point here: one image must never end the job of a million others.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            for index in indices:
                self.fail(index, error)

    def together_or_alone(self, rows: Iterable[int], work: Callable[[list[int]], list[T]]) -> dict[int, T]:
        """What `work` gives for these rows, done at once; where that fails, in halves, down to each alone.

        So one picture that a model cannot take closes its own row, and a batch that is too large for a GPU is halved.
        """
        indices = sorted(rows)
        if not indices:
            return {}
        if len(indices) == 1:
            with self.attempt(*indices):
                (result,) = work(indices)
                return {indices[0]: result}
            return {}
        with contextlib.suppress(Exception):  # whichever row it was will raise it again
            return dict(zip(indices, work(indices), strict=True))
        middle = len(indices) // 2  # after the block above, which lets go of what the failed attempt held
        first = self.together_or_alone(indices[:middle], work)
        return first | self.together_or_alone(indices[middle:], work)

    def table(self, drop: Iterable[str] = (), **columns: list[Any]) -> pa.Table:
        """The batch with status, reason and error as they are now, and these columns added or replaced."""
        columns = {"status": self._status, "reason": self._reason, "error": self._error, **columns}
        table = self.batch.drop_columns([name for name in (*columns, *drop) if name in self.batch.column_names])
        for name, values in columns.items():
            table = table.append_column(pa.field(name, PIPELINE[name]), pa.array(values, PIPELINE[name]))
        return table

    def nulls(self) -> list[Any]:
        """A column of nulls, to be filled."""
        return [None] * len(self.batch)


def _reason_of(error: Exception) -> ImageReason:
    return next((reason for kind, reason in _REASON_OF if isinstance(error, kind)), ImageReason.STAGE_FAILED)
