"""Long runs, loaders in other processes, and processes that are killed."""

from __future__ import annotations

from collections.abc import Iterator

from torture import soak
from torture.trial import Effort, Trial


def trials(effort: Effort) -> Iterator[Trial]:
    """Builds in a loop; in full also training and what needs PyTorch, which alone takes seconds to import."""
    yield from soak.trials(effort)
    if not effort.quick:
        from torture import training, workers

        yield from training.trials(effort)
        yield from workers.loaders(effort)
        yield from workers.crashes(effort)
