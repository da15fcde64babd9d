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
    try:
        text = sys.stdin.readline() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError):  # what was given is not repeated: it may be the token itself
        raise InputError(
            "--token: names no text file that can be read; it takes a file that holds the token, or - for standard "
            "input. Was it the token itself? It was to be seen in the list of processes: change it"
        ) from None
    token = text.strip()
    if not token or any(not "!" <= character <= "~" for character in token):
        raise InputError("--token: the file holds no token; it must be one line of plain characters")
    os.environ["HF_TOKEN"] = token
