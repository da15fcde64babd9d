"""Several rounds as one cell of a table."""

from __future__ import annotations

from statistics import median


def spread(values: list[float], form: str) -> str:
    """Median, least and most."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
