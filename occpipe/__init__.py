"""occpipe finds what does not belong in the photos of a corpus, by context, and removes it.

>>> import occpipe
>>> rel = occpipe.load_relations()
>>> 0 <= rel.relation("surfboard", ["sea", "sand", "person"]) <= 1
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from occpipe.api import Cleaner, clean_image, load_inpainter, load_relations, load_segmenter

__version__ = "0.1.0"
__all__ = ["Cleaner", "clean_image", "load_inpainter", "load_relations", "load_segmenter"]


def __getattr__(name: str) -> Any:
    """Load the API on first use (PEP 562): the command line must not wait for torch to print its help."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from occpipe import api

    return getattr(api, name)
