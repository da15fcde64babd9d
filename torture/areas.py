"""The areas in which something is tried, in the order of docs/reliability.md."""

from __future__ import annotations

from torture import determinism, load, secrets
from torture.archives import hostile_archives
from torture.checkpoints import checkpoints
from torture.fuzz_sets import mutated_sets
from torture.hostile_hdf5 import hostile_hdf5
from torture.trial import Area

AREAS: dict[str, Area] = {
    "hostile archives": hostile_archives,
    "hostile HDF5": hostile_hdf5,
    "checkpoints and YAML": checkpoints,
    "mutated outlier sets": mutated_sets,
    "load": load.trials,
    "secrets": secrets.trials,
    "determinism": determinism.trials,
}
