"""How commands end whose training was told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def said_when_stopped(besides: str = "") -> Iterator[None]:
    """Say how to go on with a run that was told to stop, in one line, and end with the exit code of the signal.

    Args:
        besides: another way to go on, added to that line
    """
    from train.reporting import say
    from train.signals import Stopped

    try:
        yield
    except Stopped as stopped:
        say(f"{stopped}; {besides}" if besides else str(stopped))
        raise typer.Exit(stopped.exit_code) from None
