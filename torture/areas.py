"""The areas in which something is tried, in the order of docs/reliability.md."""

from __future__ import annotations

from torture import (
    archives,
    bad_images,
    checkpoints,
    determinism,
    disks,
    fuzz_images,
    fuzz_sets,
    hostile_hdf5,
    kills,
    load,
    races,
    secrets,
    signals,
)
from torture.trial import Area

AREAS: dict[str, Area] = {
    "killed": kills.killed,
    "told to stop": signals.told_to_stop,
    "disks and clocks": disks.disks_and_clocks,
    "two at once": races.races,
    "bad images": bad_images.trials,
    "mutated images": fuzz_images.trials,
    "hostile archives": archives.hostile_archives,
    "hostile HDF5": hostile_hdf5.hostile_hdf5,
    "checkpoints and YAML": checkpoints.checkpoints,
    "mutated outlier sets": fuzz_sets.mutated_sets,
    "load": load.trials,
    "secrets": secrets.trials,
    "determinism": determinism.trials,
}
