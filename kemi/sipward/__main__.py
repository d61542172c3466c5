"""`python -m sipward`: the command line."""

from sipward.cli import main

main()
