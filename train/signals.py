"""Being told to stop while training: SIGTERM and Ctrl-C are noted, and acted on at the end of a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srood.stopping import REPEATED, Told, exit_code, handled_by


def how_to_go_on(run: Path) -> str:
    """What to do about a run that is not finished."""
    return f"continue with: srood train --resume {run}"


class Stopped(Exception):
    """A run was told to stop, and has saved its state.

    Attributes:
        step, number: of the run and of the signal
        exit_code: of a command that ends for this: 0 after SIGTERM, 130 after Ctrl-C
    """

    def __init__(self, run: Path, step: int, number: int) -> None:
        super().__init__(
            f"{run}: stopped by {signal.Signals(number).name} after step {step:,}, which is saved; {how_to_go_on(run)}"
        )
        self.step, self.number = step, number
        self.exit_code = exit_code(number)


class Asked:
    """Which signal asked to stop, or 0."""

    number = 0


@contextmanager
def noted() -> Iterator[Asked]:
    """Note SIGTERM and SIGINT instead of ending; another one later ends at once. In threads nothing is changed."""
    asked, first = Asked(), 0.0

    def note(number: int, frame: object) -> None:
        nonlocal first
        if not asked.number:
            asked.number, first = number, time.monotonic()
        elif time.monotonic() - first > REPEATED:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            signal.raise_signal(number)

    with handled_by(note):
        yield asked


@contextmanager
def passed_on() -> Iterator[Asked]:
    """Note SIGTERM and SIGINT, and pass them on to the processes that this one has started.

    A signal that comes before there are any raises `Told`.
    """
    asked = Asked()

    def pass_on(number: int, frame: object) -> None:
        asked.number = asked.number or number
        children = multiprocessing.active_children()
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, number)
        if not children:
            raise Told(number)

    with handled_by(pass_on):
        yield asked
