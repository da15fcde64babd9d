"""Being told to stop: SIGTERM and Ctrl-C are noted, and acted on at the end of a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A run was told to stop, and has saved its state.

    Attributes:
        exit_code: of a command that ends for this: 0 after SIGTERM, 130 after Ctrl-C
    """

    def __init__(self, run: Path, step: int, number: int) -> None:
        super().__init__(
            f"{run}: stopped by {signal.Signals(number).name} after step {step:,}, which is saved; "
            f"continue with: srood train --resume {run}"
        )
        self.exit_code = 0 if number == signal.SIGTERM else 128 + number


class Asked:
    """Which signal asked to stop, or 0."""

    number = 0


@contextmanager
def noted() -> Iterator[Asked]:
    """Note SIGTERM and SIGINT instead of ending; a second one ends at once. In threads nothing is changed."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: object) -> None:
        if asked.number:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        asked.number = number

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def passed_on() -> Iterator[None]:
    """Pass SIGTERM on to the processes that this one has started, and wait for them; Ctrl-C reaches them itself."""

    def pass_on(number: int, frame: object) -> None:
        for child in multiprocessing.active_children():
            if number == signal.SIGTERM and child.pid is not None:
                os.kill(child.pid, number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
