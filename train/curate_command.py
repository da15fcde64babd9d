"""Running `curate` as a user would: the two commands meet in files, not in code."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from srood.errors import InputError
from srood.stopping import Told
from train.reporting import say


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Options of either command as words, ``id_recall=0.5`` as ``--id-recall 0.5``.

    True gives a flag, a list or tuple the option once for each value; None and False give nothing.
    """
    words: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [option, f"{one}"]
    return words


def run_curate(*words: str, shown: bool = False) -> str:
    """Run `curate` in a process of its own, which shows its progress and its errors where this one does.

    SIGTERM and Ctrl-C are passed on to it, and its end awaited.

    Args:
        shown: what it prints to standard output is printed, and not returned

    Returns:
        what it printed to standard output.

    Raises:
        InputError: it ended with another exit code than 0.
        Told: a signal came.
    """
    say(f"$ {shlex.join(['curate', *words])}")
    command = [sys.executable, "-m", "curate", *words]
    output = None if shown else subprocess.PIPE
    with subprocess.Popen(command, stdout=output, stdin=subprocess.DEVNULL, encoding="utf-8") as process:
        try:
            printed, _ = process.communicate()
        except Told as told:
            process.send_signal(told.number)
            process.communicate()
            raise
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise InputError(f"`curate {words[0]}` ended with exit code {process.returncode}; its message is above")
    return printed or ""
