"""Progress on a terminal: one bar with count, rate and remaining time; silent where the output is not a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class RateColumn(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, or over the whole task once it is finished."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s", style="cyan")


@contextmanager
def progress_bar(unit: str = "images", console: Console | None = None) -> Iterator[Progress]:
    """A rich progress display on standard error."""
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),  # names of files may have square brackets
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        RateColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    with (
        progress if console.is_terminal else nullcontext()
    ):  # older versions of rich end a disabled bar with a line too
        yield progress
