"""Where corpora and outputs live: one interface over local folders, S3 and every fsspec file system.

S3 goes through boto3 (conditional PUT, streamed listing, its own retries); the rest through fsspec. A store is opened
where it is used, in the worker: only its URI travels, and credentials come from the environment there.
"""

from occpipe.core.access import Access, Address
from occpipe.io.storage.base import (
    ArchivedError,
    Entry,
    HungError,
    SourceChangedError,
    Span,
    Store,
    StoreAwayError,
    TooLargeError,
    Writer,
    is_safe_key,
    walk_span,
    with_retries,
)
from occpipe.io.storage.location import locate, scheme_of, split_name
from occpipe.io.storage.open import open_store, split_pattern, store_of
from occpipe.io.storage.time_limit import within

__all__ = [
    "Access",
    "Address",
    "ArchivedError",
    "Entry",
    "HungError",
    "SourceChangedError",
    "Span",
    "Store",
    "StoreAwayError",
    "TooLargeError",
    "Writer",
    "is_safe_key",
    "locate",
    "open_store",
    "scheme_of",
    "split_name",
    "split_pattern",
    "store_of",
    "walk_span",
    "with_retries",
    "within",
]
