"""The areas in which something is tried, in the order of docs/reliability.md."""

from __future__ import annotations

from torture.archives import hostile_archives
from torture.trial import Area

AREAS: dict[str, Area] = {
    "hostile archives": hostile_archives,
}
