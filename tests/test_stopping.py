"""Signals to a command: one line, an exit code, and everything that is open is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

COMMAND = """
import os, signal, sys, time
from srood import commands
from srood.stopping import going_on

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), number)  # Python ignores what is raised here
        for _ in range(1000):
            pass

def work():
    try:
        if kind == "destructor":
            deaf = Deaf()
            del deaf
        else:
            os.kill(os.getpid(), number)
        time.sleep(20)
    finally:
        print("closed")

def app():
    if kind == "saves":
        with going_on("what is done is kept"):
            work()
    else:
        work()

kind, number = sys.argv[1], int(sys.argv[2])
commands.run(app, ends_process=True)
"""


@pytest.mark.parametrize(
    ("kind", "number", "code", "line"),
    [
        ("saves", signal.SIGINT, 130, "stopped by SIGINT; what is done is kept"),
        ("saves", signal.SIGTERM, 0, "stopped by SIGTERM; what is done is kept"),
        ("other", signal.SIGTERM, 143, "stopped by SIGTERM; nothing is left half done; run the same command again"),
        ("destructor", signal.SIGINT, 130, "stopped by SIGINT; nothing is left half done; run the same command again"),
    ],
)
def test_a_signal_ends_a_command_by_one_line(kind, number, code, line):
    words = [sys.executable, "-c", COMMAND, kind, str(int(number))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=os.getcwd())
    assert (done.returncode, done.stdout, done.stderr) == (code, "closed\n", line + "\n")


def test_standard_output_on_a_full_disk_is_one_line():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    code = "from srood import commands; commands.run(lambda: print('x' * 10), ends_process=True)"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    line = "error: standard output: No space left on device; free space, then run the same command again\n"
    assert (done.returncode, done.stderr) == (2, line)
