"""The `curate` command, also `python -m curate`: Ctrl-C is heard before anything is imported that takes time."""

from __future__ import annotations

from srood import commands


def main() -> None:
    """Run the command, as all that this process does."""
    commands.run(_app, ends_process=True)


def _app() -> None:
    from curate.cli import app

    app()


if __name__ == "__main__":
    main()
