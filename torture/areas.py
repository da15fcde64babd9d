"""The areas in which something is tried, in the order of docs/reliability.md."""

from __future__ import annotations

from torture import bad_images, determinism, fuzz_images, load, secrets
from torture.trial import Area

AREAS: dict[str, Area] = {
    "bad images": bad_images.trials,
    "mutated images": fuzz_images.trials,
    "load": load.trials,
    "secrets": secrets.trials,
    "determinism": determinism.trials,
}
