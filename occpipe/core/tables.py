"""Tables from users: CSV by column name, and text that may be gzipped, with errors that name the file."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A text file, decompressed if its name ends in `.gz`. Raises ValueError if it is damaged or not UTF-8."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: damaged, or not UTF-8 text: {error}") from error


MAX_BYTES = 64_000_000
"""Of a CSV: about a million lines, because the values are kept in memory."""


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """The stripped values of some columns of a CSV, with the number of the line.

    A missing `optional` column gives empty values. Raises ValueError if another column is missing, and above `MAX_BYTES`.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: over {MAX_BYTES} bytes")
    with path.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets write a byte order mark
        reader = csv.DictReader(stream)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            header = ", ".join(reader.fieldnames or ()) or "an empty file"
            raise ValueError(f"{path}: no column {missing[0]}, separated by commas; found {header}")
        try:
            for number, row in enumerate(reader, 2):
                yield number, [(row.get(name) or "").strip() for name in (*columns, *optional)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error
