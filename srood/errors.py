"""The one exception that the commands show to a person instead of a traceback."""

from __future__ import annotations


class InputError(Exception):
    """What the user gave cannot be used.

    The message is one line: the file, row or option at fault, what is wrong with it, and what to do. Both commands
    print it as ``error: ...`` and exit with code 2.
    """
