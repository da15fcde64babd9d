"""What both commands do alike: reading option values, and ending with one clear line and the right exit code."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from srood import stopping
from srood.errors import InputError
from srood.files import explained

CHECK_FAILED, BAD_INPUT = 1, 2

_MOST = 1e15  # up to here a float tells whole numbers apart, and no corpus or disk is larger
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def parse_count(text: str) -> int:
    """``20000``, ``20_000``, ``20k``, ``1.5M`` to a whole number.

    Raises:
        InputError: the text is none of these.
    """
    match = re.fullmatch(r"(\d[\d_,]*(?:\.\d+)?)\s*([kKmM]?)", text.strip())
    value = float(re.sub("[_,]", "", match[1])) * _UNITS[match[2].lower()] if match else 0.0
    if not match or not 1 <= value < _MOST or value != int(value):
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
    count = 0.0
    if match is not None:
        power = " KMGT".index((match[2] or " ").upper())
        count = float(match[1]) * (1024 if match[3] else 1000) ** power
    if not 1 <= count < _MOST:
        raise InputError(f"{option} {text}: write a number above zero with its unit, like 8GB, 500MB or 4GiB")
    return int(count)


def run(app: Callable[[], Any], ends_process: bool = False) -> None:
    """Run a command-line application to its exit code; what a person is to know is one line on standard error.

    Bad input, and a disk or file that fails, exit with code 2. Ctrl-C exits with 130, SIGTERM with 143, or with 0 where
    what was done is kept.

    Args:
        app: raises SystemExit or ends; an `InputError`, an OSError or a signal becomes the line
        ends_process: nothing comes after it: a signal then ends the process without a word
    """
    try:
        with stopping.raised():
            try:
                app()
            finally:
                sys.stdout.flush()  # where it goes to a disk that is full, this is when it is known
    except InputError as error:
        _end(f"error: {without_password(str(error))}", BAD_INPUT)
    except OSError as error:
        if error.errno is None:
            raise  # of a library, about something else
        _end(f"error: {without_password(explained(error, 'standard output'))}", BAD_INPUT)
    except stopping.Told as told:
        _end(str(told), told.exit_code)
    finally:
        if ends_process:
            for number in stopping.SIGNALS:
                signal.signal(number, signal.SIG_DFL)


def _end(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    raise SystemExit(code) from None
