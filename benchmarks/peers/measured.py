"""Run a command in a session of its own, with a time limit; write its seconds and memory. Standard library only.

    python measured.py figures.json LIMIT command ...

A process of its own, because Linux counts the memory of the process that starts a command as the command's own peak.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time


def main() -> None:
    """Write seconds, the peak of the command's largest process in bytes, and its exit code; null beyond the limit."""
    started = time.perf_counter()
    process = subprocess.Popen(sys.argv[3:], start_new_session=True)
    code = None
    try:
        code = process.wait(float(sys.argv[2]))
    except subprocess.TimeoutExpired:
        pass
    finally:
        seconds = time.perf_counter() - started
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with open(sys.argv[1], "w") as file:
        json.dump({"seconds": seconds, "peak_bytes": memory, "code": code}, file)


if __name__ == "__main__":
    main()
