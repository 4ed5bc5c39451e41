"""`occpipe clean` as a script, for `ray job submit -- python jobs/clean_corpus.py INPUT OUTPUT --config gpu`."""

import sys

from occpipe.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "clean")
    main()
