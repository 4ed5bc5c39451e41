"""`occpipe train-embeddings` as a script, for `ray job submit`: see `--help`."""

from __future__ import annotations

import sys

from occpipe.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "train-embeddings")
    main()
