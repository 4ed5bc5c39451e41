"""Lists of images, as common tools write them, and the names in them.

- find, ls, rclone lsf, gsutil ls: a name a line; blank lines, comments (#) and folders are passed over.
- aws s3 ls, s5cmd ls, gsutil ls -l: date, size and name in columns.
- rclone ls: size and name in columns.
- PowerShell: UTF-16, and a table with a line of dashes under its head.
- Excel: CSV with a head, by comma, semicolon or tab, in UTF-8 or UTF-16.
- DuckDB, Spark, pandas: Parquet or CSV with a column of a name in COLUMNS.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from occpipe.core.errors import first_line

SUFFIXES = (".txt", ".lst", ".csv", ".tsv", ".parquet")
COLUMNS = ("uri", "url", "path", "file_name", "filename", "file", "image", "fullname", "key")
"""Names of a column with images, in any case; the first one of these that is there counts."""
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_IN_COLUMNS = (
    re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+ (?P<name>.+)"),  # aws s3 ls
    re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d +(?:[A-Z_]+ +)?\d+ +(?P<name>.+)"),  # s5cmd ls
    re.compile(r" *\d+ +\d{4}-\d\d-\d\dT[\d:]+Z +(?P<name>\w+://.+?)(?:#\d+ +metageneration=\d+)?"),  # gsutil ls -l
    re.compile(r"(?= *\d+ )[ \d]{9,} (?P<name>.+)"),  # rclone ls
)
_NO_IMAGE = re.compile(r" +PRE .+|\s*DIR +.+|.*[/\\]|\w+://.*:|\s*Total (Objects|Size): .*|TOTAL: \d+ objects, .*")
"""Folders and totals."""
_DASHES = re.compile(r"[-=]{3,}(\s+[-=]{3,})*\s*")


class ListFormatError(ValueError):
    """The bytes are no list that can be read; the message names the reason."""


def names_in(data: bytes, suffix: str, extensions: tuple[str, ...] = ()) -> list[str]:
    """The names in a list, in their order.

    Args:
        data: The file.
        suffix: One of `SUFFIXES`.
        extensions: Endings of images, so that the name `#1.jpg` is no comment.

    Raises:
        ListFormatError: It has no such form, no column with images, or a row without a name.
    """
    if suffix == ".parquet":
        return _of_parquet(data)
    text = _decode(data)
    return _of_table(text) if suffix in (".csv", ".tsv") else _of_lines(text, extensions)


def _decode(data: bytes) -> str:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    if data[:64].count(0) * 3 > len(data[:64]):  # UTF-16 without a mark: every other byte of a path is 0
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be", "replace")
    if b"\0" in data:  # find -print0
        data = data.replace(b"\0", b"\n")
    return data.decode("utf-8", "surrogateescape")


def _of_lines(text: str, extensions: tuple[str, ...]) -> list[str]:
    lines = [line.rstrip("\r") for line in text.split("\n")]
    rules = [place for place, line in enumerate(lines) if _DASHES.fullmatch(line)]
    if rules:  # a table of PowerShell, padded with spaces
        lines = [line.rstrip() for line in lines[rules[0] + 1 :]]
    return [name for line in lines if (name := _of_line(line, extensions))]


def _of_line(line: str, extensions: tuple[str, ...]) -> str | None:
    is_comment = line.startswith("#") and (line[1:2] in ("", " ", "\t", "#") or not line.lower().endswith(extensions))
    if not line.strip() or is_comment or _NO_IMAGE.fullmatch(line):
        return None
    for form in _IN_COLUMNS:
        if match := form.fullmatch(line):
            line = match["name"]
            return None if line.endswith("/") else line
    if len(line) > 2 and line[0] == line[-1] == '"':
        return line[1:-1]
    return line


def _of_table(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)
    if lines and lines[0].startswith("sep="):  # Excel's own hint
        lines = lines[1:]
    if not lines:
        return []
    delimiter = max(",;\t", key=lines[0].count)
    rows = csv.reader(io.StringIO("".join(lines)), delimiter=delimiter)
    try:
        head = next(rows)
        column = _column(head)
        names = [row[column] if len(row) > column else "" for row in rows if any(row)]
    except csv.Error as error:
        raise ListFormatError(f"no CSV: {error}") from None
    return _whole(names)


def _of_parquet(data: bytes) -> list[str]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        column = file.schema_arrow.names[_column(file.schema_arrow.names)]
        names = file.read([column]).column(column).cast(pa.string()).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ListFormatError(f"no Parquet file with a column `uri` ({first_line(error)})") from None
    return _whole(names)


def _column(head: list[str]) -> int:
    """The place of the column with images."""
    names = [name.strip().lower() for name in head]
    for name in COLUMNS:
        if name in names:
            return names.index(name)
    shown = ", ".join(head)
    raise ListFormatError(f"no column `uri`, `url`, `path` or `file_name`, only: {shown:.200}")


def _whole(names: Sequence[str | None]) -> list[str]:
    for row, name in enumerate(names):
        if not name:
            raise ListFormatError(f"row {row} has no uri")
    return [name for name in names if name]
