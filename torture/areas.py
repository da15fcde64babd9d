"""The areas in which something is tried, in the order of docs/reliability.md."""

from __future__ import annotations

from torture import disks, kills, races, signals
from torture.trial import Area

AREAS: dict[str, Area] = {
    "killed": kills.killed,
    "told to stop": signals.told_to_stop,
    "disks and clocks": disks.disks_and_clocks,
    "two at once": races.races,
}
