"""The Hub's token from a file or from standard input, for where neither HF_TOKEN nor `hf auth login` will do.

A token is never an argument of a command: every user of a machine sees arguments, and the shell's history keeps them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from srood.errors import InputError


def use_token(source: str | None) -> None:
    """Let the Hub's client of this process use the token in a file, or in the first line of standard input (``-``).

    Raises:
        InputError: no such file, or no token in it; the message never holds what was read.
    """
    if source is None:
        return
    if source.startswith("hf_") and not Path(source).exists():
        raise InputError(
            "--token: takes a file that holds the token, or - for standard input, not the token itself, which would "
            "be seen in the list of processes; change that token"
        )
    try:
        text = sys.stdin.readline() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise InputError(f"--token {source}: cannot be read ({reason}); name a file that holds the token") from None
    token = text.strip()
    if not token or any(not "!" <= character <= "~" for character in token):
        raise InputError(f"--token {source}: holds no token; it must be one line of plain characters")
    os.environ["HF_TOKEN"] = token
