"""`python -m occpipe` is the `occpipe` command."""

from occpipe.cli import main

main()
