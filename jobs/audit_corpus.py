"""`occpipe audit` as a script, for `ray job submit -- python jobs/audit_corpus.py OUTPUT --json`."""

import sys

from occpipe.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "audit")
    main()
