"""Log records of the workers, which reach the log of the driver by way of the journal."""

from __future__ import annotations

import logging
from logging.handlers import QueueHandler
from threading import Lock

from occpipe.pipeline.ray.journal import Journal, JournalHandle

_lock = Lock()


class JournalHandler(QueueHandler):
    """Gives warnings and errors to the journal; a traceback becomes part of the message."""

    def __init__(self, journal: JournalHandle) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # the journal stands in the place of a queue
        self.journal = journal
        self.setLevel(logging.WARNING)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Wait until the journal has it: rows of the same block reach the driver later."""
        self.journal.call(Journal.log, record)


def send_records(journal: JournalHandle) -> None:
    """Send the records of this worker to a journal from now on, and to none of an earlier run."""
    logger = logging.getLogger("occpipe")
    with _lock:
        for handler in [handler for handler in logger.handlers if isinstance(handler, JournalHandler)]:
            logger.removeHandler(handler)
        logger.addHandler(JournalHandler(journal))


def emit_records(records: list[logging.LogRecord]) -> None:
    """Log the records of workers in this process."""
    for record in records:
        logging.getLogger(record.name).handle(record)
