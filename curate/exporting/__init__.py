"""Outlier sets in the formats of others: a module for each format, and `export`, which checks and dispatches."""
