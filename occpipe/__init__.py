"""occpipe finds what does not belong in the photos of a corpus, by context, and removes it."""

__version__ = "0.1.0"
