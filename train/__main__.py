"""`python -m train`, the same as the `srood` command."""

from train.cli import main

main()
