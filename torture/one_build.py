"""Sets built each in a way of its own, for trials of determinism: `python -m torture.one_build JSON`.

JSON is a list. An entry has settings of `BuildConfig`, and: `engine`; `ranks` (0: none); `listing` (a seed: folders are
listed in an order of its own; 0: as they are); `stop_after` (ends the process, as a kill does, when so many parts are
stored; 0: never).
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

SCANDIR, LISTDIR = os.scandir, os.listdir
STOPPED = 9  # exit code where it was to stop


def main() -> None:
    """Build the sets that the first argument describes."""
    for values in json.loads(sys.argv[1]):
        build_one(**{name: values.pop(name) for name in ("engine", "ranks", "stop_after", "listing")}, values=values)


def build_one(engine: str, ranks: int, stop_after: int, listing: int, values: dict[str, Any]) -> None:
    """Build one set."""
    from curate.build import build
    from curate.config import BuildConfig
    from curate.engines.engine import open_engine
    from curate.ranks import build_part, join

    os.scandir, os.listdir = in_another_order(listing) if listing else (SCANDIR, LISTDIR)  # type: ignore[assignment]
    if stop_after:
        end_after(stop_after)
    config = BuildConfig(**{**values, "source": tuple(values["source"]), "out": Path(values["out"])})
    quiet = Console(quiet=True)
    if ranks:
        folders = [build_part(config, rank, ranks, quiet).folder for rank in range(ranks)]
        join(folders, config.out, console=quiet)
        return
    with open_engine(engine, None) as opened:
        build(config, quiet, engine=opened)


def end_after(parts: int) -> None:
    """End this process without any clean-up as soon as so many parts of a build are stored."""
    from curate.workspace import Workspace

    written = Workspace.write

    def write(self: Workspace, name: str, arrays: Any) -> None:
        written(self, name, arrays)
        if name == f"part-{parts - 1:06d}":
            os._exit(STOPPED)

    Workspace.write = write  # type: ignore[method-assign]


def in_another_order(seed: int) -> tuple[Any, Any]:
    """`os.scandir` and `os.listdir` that list every folder in another order, as another file system might."""

    class Shuffled:
        def __init__(self, *path: Any) -> None:
            with SCANDIR(*path) as found:
                self.entries = list(found)
            random.Random(seed).shuffle(self.entries)
            self.left = iter(self.entries)

        def __iter__(self) -> Shuffled:
            return self

        def __next__(self) -> Any:
            return next(self.left)

        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    def listed(*path: Any) -> list[Any]:
        names = LISTDIR(*path)
        random.Random(seed).shuffle(names)
        return names

    return Shuffled, listed


if __name__ == "__main__":
    main()
