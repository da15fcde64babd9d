"""Classifiers in, tuned classifiers and their evaluation out: the `srood` command."""
