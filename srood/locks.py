"""One process at a time: a lock on what a command writes, which ends with the process that holds it.

The lock is the operating system's, on a small file; the file's text only tells who holds it, and a file that a dead
process left behind locks nothing. On Linux it holds between machines too where they share a folder over NFS.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srood.errors import InputError

LOCK = ".lock"  # within a folder
HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}  # else the file system has no locks
_OFFSET = 1 << 30  # of the byte that is locked on Windows, where locked bytes cannot be read


@contextmanager
def locked(place: Path, option: str = "", within: bool = False) -> Iterator[None]:
    """Hold the lock of an output, with a file beside it or, of a folder that is there, `within` it.

    Its folder is made where it is missing, and the file is removed afterwards. Where a file system has no locks, a
    line on standard error says so.

    Raises:
        InputError: another process holds it, or no file can be made there; `option` is what the message begins with.
    """
    path = place / LOCK if within else place.with_name(f".{place.name}{LOCK}")
    file = _opened(path, place, option)
    try:
        with suppress(OSError):  # a full disk: the lock holds, and only its text is missing
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        with suppress(OSError):  # it may be gone with its folder, or with the disk
            if os.name != "posix" or _is_at(file, path):
                if os.name != "posix":
                    os.close(file)
                os.unlink(path)
        if os.name == "posix":
            os.close(file)


def _opened(path: Path, place: Path, option: str) -> int:
    """The lock's file, locked."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(
                f"{option}{place}: cannot be written ({error.strerror}); free space, or name another"
            ) from error
        try:
            _lock(file)
        except OSError as error:
            if error.errno in HELD:
                holder = _holder(file)
                os.close(file)
                raise InputError(
                    f"{option}{place}: is being written by {holder}; wait until it ends, or name another"
                ) from error
            print(
                f"note: {path.parent}: its file system has no locks ({error.strerror}); "
                f"see that nothing else writes {place.name}",
                file=sys.stderr,
            )
        if os.name != "posix" or _is_at(file, path):
            return file
        os.close(file)  # removed by its holder, who ended between our two steps


def _lock(file: int) -> None:
    """Lock a file without waiting; raises OSError where another process has done so."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, _OFFSET, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(file: int) -> str:
    """Who holds a lock, as its file says: it may be about to be written."""
    for _ in range(10):
        with suppress(OSError):
            os.lseek(file, 0, os.SEEK_SET)
            if text := os.read(file, 300).decode("utf-8", "replace").strip():
                return text
        time.sleep(0.02)
    return "another process"
