"""Being told to stop: Ctrl-C (SIGINT) and SIGTERM end a command with one line, whatever it is doing."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEATED = 1.0  # seconds; Ctrl-C may reach a process twice, from the terminal and passed on
AGAIN = 0.05  # seconds until an exception that Python ignored is raised again


class Told(BaseException):
    """A command was told to stop. No `Exception`, and no KeyboardInterrupt, of which typer makes an end of its own.

    Attributes:
        number: of the signal
        advice: what to do to go on
        saved: whether what was done so far is kept
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.advice = "nothing is left half done; run the same command again"
        self.saved = False

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; {self.advice}"

    @property
    def exit_code(self) -> int:
        """Of the command: 130 after Ctrl-C; after SIGTERM 0 if what was done is kept, else 143."""
        return exit_code(self.number) if self.saved else 128 + self.number


def exit_code(number: int) -> int:
    """Of a command that saved its state when it got a signal: 0 after SIGTERM, 130 after Ctrl-C."""
    return 0 if number == signal.SIGTERM else 128 + number


@contextmanager
def raised() -> Iterator[None]:
    """Raise `Told` in the main thread where a signal comes."""
    first = 0.0

    def stop(number: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if not first or now - first > REPEATED:
            first = now
            raise Told(number)

    def not_raised(unraisable: Any) -> None:
        nonlocal first
        if not isinstance(unraisable.exc_value, Told):
            hook(unraisable)
            return
        first = 0.0  # it came while Python could not raise, as in a destructor
        again = threading.Timer(AGAIN, _to_main_thread, (unraisable.exc_value.number,))
        again.daemon = True
        again.start()

    hook = sys.unraisablehook
    with handled_by(stop):
        sys.unraisablehook = not_raised
        try:
            yield
        finally:
            sys.unraisablehook = hook


def _to_main_thread(number: int) -> None:
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:  # it may wait in a system call, which only a signal of its own ends
        signal.pthread_kill(threading.main_thread().ident or 0, number)


@contextmanager
def going_on(advice: str) -> Iterator[None]:
    """Within this, what was done is kept when a signal comes, and `advice` says how to go on."""
    try:
        yield
    except Told as told:
        if not told.saved:
            told.advice, told.saved = advice, True
        raise


@contextmanager
def handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Let both signals be handled by a function. In threads nothing is changed."""
    with unchanged():
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, handler)
        yield


@contextmanager
def unchanged() -> Iterator[None]:
    """Undo what is done in here to the handlers of both signals, by a library that wants them for itself."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
