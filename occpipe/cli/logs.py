"""Where the records of the package's loggers go: standard error for people, and lines of JSON for programs.

docs/watching.md lists the fields of a line. The fields of a run's events are the `extra` of their records.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from occpipe.core.errors import StorageError
from occpipe.core.streams import discard, messages

VERSION = 1
PACKAGE = "occpipe"
_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


Level = Literal["debug", "info", "warning", "error"]
LogLevelOption = Annotated[Level, typer.Option("--log-level", help="The least level of a record on standard error.")]
LogFileOption = Annotated[
    str | None,
    typer.Option("--log-json", metavar="FILE", help="Append events and records as JSON lines; - prints them."),
]


class JsonFormatter(logging.Formatter):
    """A record as a line of JSON: an event with its fields, or `log` with a message."""

    def format(self, record: logging.LogRecord) -> str:
        # Ray adds a field with an underscore to each record.
        extra = {key: value for key, value in vars(record).items() if not key.startswith("_")}
        fields = {key: value for key, value in extra.items() if key not in _STANDARD_FIELDS}
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {"version": VERSION, "event": fields.pop("event", "log"), "time": time}
        head |= {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        trace = {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps(head | fields | trace, default=str)


class _StandardError(logging.Handler):
    """Records for people. Events are left out: the progress display shows the same."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "event"):
            return
        try:
            messages().print(self.format(record), highlight=False, markup=False, soft_wrap=True)
        except Exception:  # noqa: BLE001 - such as a message whose arguments do not fit: logging prints it
            self.handleError(record)


def set_up(level: Level, json_file: str | None = None) -> None:
    """Send records to standard error and, where it is named, to a file of JSON lines; earlier handlers go."""
    logger, handler = logging.getLogger(PACKAGE), _StandardError()
    for earlier in [*logger.handlers]:
        logger.removeHandler(earlier)
        earlier.close()
    handler.setLevel(level.upper())
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    add_log_file(json_file)


def add_log_file(path: str | None) -> None:
    """Write records from `info` on as lines of JSON to a file, or print them where it is `-`; None adds nothing.

    A log that can no longer be written (a full disk) is given up with one message. Raises StorageError where the file
    cannot be opened.
    """
    if path is None:
        return
    try:
        stream = sys.stdout if path == "-" else Path(path).expanduser().open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None
    logger, handler = logging.getLogger(PACKAGE), logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.handleError = partial(_give_up, handler, path)  # type: ignore[method-assign]  # in place of a class
    logger.addHandler(handler)
    logger.setLevel(min(logger.level or logging.INFO, logging.INFO))


def _give_up(handler: logging.StreamHandler[TextIO], path: str, record: logging.LogRecord) -> None:
    error = sys.exception()
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
        return
    logging.getLogger(PACKAGE).removeHandler(handler)
    if handler.stream is sys.stdout:
        discard(sys.stdout)  # else the interpreter fails at its end on what is still held
    messages().print(f"{path}: {error}; no more of this log", highlight=False, markup=False, soft_wrap=True)
