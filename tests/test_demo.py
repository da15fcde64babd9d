"""`srood demo` as a process; its steps are tested where they live."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("skimage")


def test_a_demo_that_is_told_to_stop_says_so_in_one_line(tmp_path):
    out = tmp_path / "demo"
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "demo", "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = out / "pretrained" / "metrics.jsonl"  # written from the loop, which listens
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in said
    assert "stopped by SIGTERM after step" in said and "or all of it anew with the same `srood demo`" in said
