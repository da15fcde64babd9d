"""Being told to stop: SIGTERM and Ctrl-C are noted, and acted on at the end of a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEATED = 1.0  # seconds; Ctrl-C reaches the processes of a run twice, from the terminal and passed on


class Stopped(Exception):
    """A run was told to stop, and has saved its state.

    Attributes:
        step, number: of the run and of the signal
        exit_code: of a command that ends for this: 0 after SIGTERM, 130 after Ctrl-C
    """

    def __init__(self, run: Path, step: int, number: int) -> None:
        super().__init__(
            f"{run}: stopped by {signal.Signals(number).name} after step {step:,}, which is saved; "
            f"continue with: srood train --resume {run}"
        )
        self.step, self.number = step, number
        self.exit_code = 0 if number == signal.SIGTERM else 128 + number


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

    with _handled_by(note):
        yield asked


@contextmanager
def passed_on() -> Iterator[Asked]:
    """Note SIGTERM and SIGINT, and pass them on to the processes that this one has started.

    A signal that comes before there are any raises KeyboardInterrupt.
    """
    asked = Asked()

    def pass_on(number: int, frame: object) -> None:
        asked.number = asked.number or number
        children = multiprocessing.active_children()
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, number)
        if not children:
            raise KeyboardInterrupt

    with _handled_by(pass_on):
        yield asked


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
