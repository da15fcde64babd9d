"""The areas in which something is tried, in the order of docs/reliability.md."""

from __future__ import annotations

from torture import kills
from torture.trial import Area

AREAS: dict[str, Area] = {
    "killed": kills.killed,
}
