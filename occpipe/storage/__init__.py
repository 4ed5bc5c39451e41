"""Where corpora and outputs live: one interface over local folders, S3 and every fsspec file system.

S3 goes through boto3 (conditional PUT, streamed listing, its own retries); the rest through fsspec. A store is opened
where it is used, in the worker: only its URI travels, and credentials come from the environment there.
"""

from occpipe.storage.base import (
    Entry,
    SourceChangedError,
    Span,
    Store,
    StoreAwayError,
    TooLargeError,
    is_safe_key,
    walk_span,
    with_retries,
)
from occpipe.storage.location import locate, scheme_of, split_name
from occpipe.storage.open import open_store, split_pattern

__all__ = [
    "Entry",
    "SourceChangedError",
    "Span",
    "Store",
    "StoreAwayError",
    "TooLargeError",
    "is_safe_key",
    "locate",
    "open_store",
    "scheme_of",
    "split_name",
    "split_pattern",
    "walk_span",
    "with_retries",
]
