"""One attempt at breaking something, and how hard to try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trial:
    """What happened when a fault or a bad input was tried once.

    Attributes:
        fault: what was tried; a row of the table in docs/reliability.md, the same for all its repetitions
        outcome: what happened, in a few words that are counted; without numbers that differ between repetitions
        passed: whether that is what is promised
        detail: how to try just this again, and what was seen; printed where a trial fails
        note: figures that were measured, for the table; for faults that are tried a few times only
    """

    fault: str
    outcome: str
    passed: bool
    detail: str = ""
    note: str = ""


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
        folder: an empty folder for everything that trials write
        data: the folder of real image sets (SROOD_DATA), if there is one
        seed: decides every random choice
        quick: the part that fits into `make test`
        minutes: how long trials go on that only time can fail
        share: of the repetitions of a full run, 0 to 1
    """

    folder: Path
    data: Path | None = None
    seed: int = 0
    quick: bool = False
    minutes: float = 60.0
    share: float = 1.0

    def times(self, full: int, quick: int) -> int:
        """Repetitions: of the full run, or of its quick part."""
        return quick if self.quick else max(min(full, quick), 1 if full else 0, round(full * self.share))


Area = Callable[[Effort], Iterator[Trial]]
