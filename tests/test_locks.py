"""A lock that one process holds, and that ends with it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from srood import locks
from srood.errors import InputError
from srood.locks import locked

HOLDER = """
import sys, time
from pathlib import Path
from srood.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "x.h5")], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_by_the_name_of_the_first_until_that_is_dead(holder, tmp_path):
    words = rf"^--out .*x\.h5: is being written by process {holder.pid} on {socket.gethostname()}; wait"
    with pytest.raises(InputError, match=words), locked(tmp_path / "x.h5", "--out "):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert [path.name for path in tmp_path.iterdir()] == [".x.h5.lock"]  # what the dead one left holds nothing
    with locked(tmp_path / "x.h5"):
        assert (tmp_path / ".x.h5.lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_within_a_folder_and_one_beside_it_are_made_and_removed(tmp_path):
    with locked(tmp_path / "new" / "run"), pytest.raises(InputError), locked(tmp_path / "new" / "run"):
        pass
    with locked(tmp_path, within=True):
        assert (tmp_path / ".lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["new"] and not list((tmp_path / "new").iterdir())


def test_a_file_that_was_removed_as_it_was_locked_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    path = tmp_path / ".x.lock"
    lock, opened = locks._lock, []

    def removed_once(file: int) -> None:
        lock(file)
        opened.append(file)
        if len(opened) == 1:
            path.unlink()

    monkeypatch.setattr(locks, "_lock", removed_once)
    with locked(tmp_path / "x"):
        assert len(opened) == 2 and os.path.samestat(os.fstat(opened[1]), os.stat(path))


def test_a_file_system_without_locks_is_named_and_does_not_stop_the_work(tmp_path, monkeypatch, capsys):
    def unsupported(file: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", unsupported)
    with locked(tmp_path / "x.h5"):
        pass
    note = f"note: {tmp_path}: its file system has no locks (No locks available); see that nothing else writes x.h5\n"
    assert capsys.readouterr().err == note
