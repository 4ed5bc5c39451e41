"""Images within larger files: WebDataset tars and Parquet files with an image column.

An image in a container is addressed by a URI such as `00012.tar#000120034.jpg` or `part-1.parquet#17`, and found by the
`Place` that its tag carries. Start with `place`; `tar` and `parquet` read and write. It imports `core`, `io.images` and
`io.storage` only.
"""

from occpipe.io.containers.index import ENDINGS, index
from occpipe.io.containers.place import Member, Place, place_of, split_uri
from occpipe.io.containers.read import read_member

__all__ = ["ENDINGS", "Member", "Place", "index", "place_of", "read_member", "split_uri"]
