"""Stores of corpora and outputs: one interface over local folders, S3 and every fsspec file system.

S3 uses boto3 (conditional PUT, streamed listing, its own retries); the rest uses fsspec. A worker opens a store itself:
only the URI is sent to it, and credentials come from its environment.
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
from occpipe.io.storage.open import BRACES, open_store, split_pattern, store_of
from occpipe.io.storage.time_limit import within

__all__ = [
    "BRACES",
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
