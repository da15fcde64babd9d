"""`curate` run by `srood` in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from srood.errors import InputError
from train.curate_command import option_words, run_curate

ROOT = Path(__file__).parent.parent
STOPPED = """
import sys
from srood import commands
from train.curate_command import run_curate
commands.run(lambda: run_curate(*sys.argv[1:]))
"""


def test_options_become_words():
    options = {"id_recall": 0.5, "protect": ("a", "b"), "strict_size": True, "seed": None, "out": Path("c/d")}
    expected = "--id-recall 0.5 --protect a --protect b --strict-size --out c/d"
    assert " ".join(option_words(options)) == expected
    assert option_words({"overwrite": False, "protect": []}) == []


def test_what_it_prints_is_returned(capfd):
    document = json.loads(run_curate("exclusions", "cifar10", "--json"))
    assert document["id"] == "cifar10" and len(document["classes"]) == 10
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == "$ curate exclusions cifar10 --json\n"
    assert run_curate("--version", shown=True) == "" and capfd.readouterr().out.startswith("curate ")


def test_an_error_is_shown_and_raised(capfd):
    with pytest.raises(InputError, match=r"`curate build` ended with exit code 2; its message is above"):
        run_curate("build", "--sample", "none")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[1].startswith("error: --sample none")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_is_passed_on(number, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as hub:  # takes a request, and never answers
        hub.settimeout(60)
        changes = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}
        words = ["pull", "owner/mini", "--out", str(tmp_path / "mini.h5")]
        process = subprocess.Popen(
            [sys.executable, "-c", STOPPED, *words],
            env={**os.environ, **changes, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = hub.accept()
        with connection:
            assert connection.recv(1000)
            process.send_signal(number)
            _, error = process.communicate(timeout=30)  # ends when both processes do, which share standard error
            assert process.returncode == 128 + number and "Traceback" not in error
            assert error.count(f"stopped by {number.name}") == 2
            while connection.recv(1000):  # its end: no process holds it any more
                pass
