"""The areas in which something is tried, in the order of docs/reliability.md."""

from __future__ import annotations

from torture import determinism, load, secrets
from torture.trial import Area

AREAS: dict[str, Area] = {
    "load": load.trials,
    "secrets": secrets.trials,
    "determinism": determinism.trials,
from torture.archives import hostile_archives
from torture.trial import Area

AREAS: dict[str, Area] = {
    "hostile archives": hostile_archives,
}
