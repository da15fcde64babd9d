"""Corpora in, outlier sets out: the `curate` command and its stages."""
