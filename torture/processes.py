"""The two commands in processes of their own, watched: exit code, output, seconds, memory, and nothing left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"curate": "curate.__main__", "srood": "train.__main__"}


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: exit code; negative for the number of the signal that ended it
        out, err: what it printed
        seconds: how long it ran
        hung: whether it had to be killed at its time limit
    """

    code: int
    out: str
    err: str
    seconds: float
    hung: bool = False

    @property
    def errors(self) -> list[str]:
        """The lines that say what is wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    @property
    def traceback(self) -> bool:
        """Whether a user would have seen a traceback."""
        return "Traceback (most recent call last)" in self.err


def command(*words: object, before: str = "") -> list[str]:
    """`curate ...` or `srood ...` of this checkout, as words to start a process with; `before` is Python run first."""
    name, *rest = map(str, words)
    script = f"{before}\nimport sys; sys.argv[0] = {name!r}; from {MODULES[name]} import main; main()"
    return [sys.executable, "-c", script, *rest]


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the commands: that of this process, one thread a library, nothing of the Hub."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **own, **(changes or {})}


def start(words: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start a process in a group of its own, its output kept."""
    return subprocess.Popen(
        list(words),
        cwd=cwd,
        env=environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def finish(process: subprocess.Popen, limit: float = 900.0) -> Ended:
    """Wait for a process; at the limit, in seconds, it and all that it started are killed."""
    started, hung = time.monotonic(), False
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        hung = True
        kill(process)
        out, err = process.communicate()
    return Ended(process.returncode, out, err, time.monotonic() - started, hung)


def kill(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def run(*words: object, cwd: Path, env: Mapping[str, str] | None = None, limit: float = 900.0) -> Ended:
    """Run `curate ...` or `srood ...` to its end."""
    return finish(start(command(*words), cwd, env), limit)
