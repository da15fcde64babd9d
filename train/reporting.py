"""What a person sees while a command runs: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from srood.progress import progress_bar

SECONDS_BETWEEN_LINES = 30.0


def say(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def training_progress(name: str, start: int, total: int, silent: bool = False) -> Iterator[Callable[[int, str], None]]:
    """Yields ``report(step, note)``, to be called after every step; `note` says how the loss stands."""
    if silent:
        yield lambda step, note: None
        return
    console = Console(stderr=True)
    if console.is_terminal:
        with progress_bar("steps", console) as progress:
            task = progress.add_task(name, total=total, completed=start, note="")
            yield lambda step, note: progress.update(task, completed=step, note=note)
        return

    started = last = time.monotonic()

    def report(step: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or step == total:
            last = now
            left = (now - started) / max(1, step - start) * (total - step)
            say(f"{name}: step {step:,} of {total:,}  {note}  {left / 60:.1f} min left")

    yield report
