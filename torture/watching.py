"""Memory, open files, threads and child processes of a running process over time, and whether they stay flat."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

PAGE = os.sysconf("SC_PAGE_SIZE")
START = (0.2, 0.4)  # parts of the time that are compared: what comes before warms up
END = (0.8, 1.0)
MEMORY_SHARE, MEMORY_BYTES = 0.05, 32 << 20  # growth that is allowed: the larger of the two
SPARE_FILES = 2  # a shard is open for moments


@dataclass(frozen=True)
class Sample:
    """A process and its children at one time: resident bytes, open files, threads, number of children."""

    time: float  # in any unit
    memory: int
    files: int
    threads: int
    children: int


def sample(pid: int, time: float = 0.0) -> Sample | None:
    """What a process and all that it started have now; None where it has ended."""
    own = _of(pid)
    if own is None:
        return None
    below = [found for child in descendants(pid) if (found := _of(child)) is not None]
    memory, files, threads = (sum(values) for values in zip(own, *below, strict=True))
    return Sample(time, memory, files, threads, len(below))


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:  # it has ended
        return found
    return found


def _of(pid: int) -> tuple[int, int, int] | None:
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return pages * PAGE, len(os.listdir(folder / "fd")), len(os.listdir(folder / "task"))
    except OSError:
        return None


@dataclass(frozen=True)
class Course:
    """The start and the end of what was watched: median of memory, the most of all else.

    Attributes:
        problems: what grew; empty where all is flat
    """

    start: Sample
    end: Sample
    problems: tuple[str, ...]

    def words(self) -> str:
        """The figures, for the table."""
        a, b = self.start, self.end
        return (
            f"{a.memory / 1e6:,.0f} MB at the start, {b.memory / 1e6:,.0f} MB at the end; {a.files} and {b.files} open "
            f"files, {a.threads} and {b.threads} threads"
        )


def course(samples: list[Sample]) -> Course:
    """Compare the second fifth of the time with the last; memory may grow by 5 % or 32 MB, nothing else may."""
    total = samples[-1].time
    start, end = (
        [each for each in samples if first * total <= each.time <= last * total] for first, last in (START, END)
    )
    a, b = _typical(start or samples[:1]), _typical(end)
    problems = []
    if b.memory - a.memory > max(MEMORY_BYTES, MEMORY_SHARE * a.memory):
        problems.append(f"memory grew from {a.memory / 1e6:.0f} MB to {b.memory / 1e6:.0f} MB")
    for name, spare in (("files", SPARE_FILES), ("threads", 0), ("children", 0)):
        before, after = getattr(a, name), getattr(b, name)
        if after > before + spare:
            problems.append(f"{name} grew from {before} to {after}")
    return Course(a, b, tuple(problems))


def _typical(samples: list[Sample]) -> Sample:
    most = {name: max(getattr(each, name) for each in samples) for name in ("files", "threads", "children")}
    return Sample(samples[0].time, int(median(each.memory for each in samples)), **most)
