"""What both commands do alike: reading option values, and ending with one clear line and the right exit code."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from srood.errors import InputError

CHECK_FAILED, BAD_INPUT = 1, 2

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def parse_count(text: str) -> int:
    """``20000``, ``20_000``, ``20k``, ``1.5M`` to a whole number.

    Raises:
        InputError: the text is none of these.
    """
    match = re.fullmatch(r"(\d[\d_,]*(?:\.\d+)?)\s*([kKmM]?)", text.strip())
    value = float(re.sub("[_,]", "", match[1])) * _UNITS[match[2].lower()] if match else 0.0
    if not match or value != int(value) or value < 1:
        raise InputError(f"'{text}' is not a count; write 20000, 20k, 300k or 1M")
    return int(value)


def without_password(text: str) -> str:
    """A text without the names and passwords of its addresses: ``https://jane:secret@host`` to ``https://...@host``."""
    return re.sub(r"//[^/@\s]*:[^/@\s]*@", "//...@", text)


def parse_bytes(text: str, option: str) -> int:
    """``8GB``, ``500MB``, ``4GiB`` or ``4096B`` to bytes.

    Raises:
        InputError: it is not written like that, or is less than a byte; the message begins with the option.
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(?:([KMGT])(i?))?B", text, flags=re.IGNORECASE)
    count = 0
    if match is not None:
        power = " KMGT".index((match[2] or " ").upper())
        count = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if count < 1:
        raise InputError(f"{option} {text}: write a number above zero with its unit, like 8GB, 500MB or 4GiB")
    return count


def run(app: Callable[[], Any]) -> None:
    """Run a command-line application; print an `InputError` as one line and exit with code 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {without_password(str(error))}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
