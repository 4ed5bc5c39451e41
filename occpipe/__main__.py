"""The `occpipe` command; also `python -m occpipe`. It imports little, so that Ctrl-C ends it in one line at any moment."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `occpipe` command."""
    try:
        from occpipe.cli.main import main as run

        run()
    except KeyboardInterrupt:
        from occpipe.core.errors import INTERRUPTED_EXIT_CODE

        sys.stderr.write("occpipe: stopped\n")
        raise SystemExit(INTERRUPTED_EXIT_CODE) from None


if __name__ == "__main__":
    main()
