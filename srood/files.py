"""Files that are whole or not there: written beside their place, brought to the disk, and renamed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from srood.errors import InputError


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, and put it in place; what was there before stays if it fails."""
    beside = path.with_name(path.name + ".partial")
    try:
        write(beside)
        with open(beside, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def scratch_beside(place: Path, purpose: str) -> Iterator[Path]:
    """A new folder beside `place`, on the same file system, removed at the end; and those of processes that died."""
    prefix = f".{place.name}.{purpose}-{socket.gethostname()}-"
    for path in place.parent.iterdir() if place.parent.is_dir() else ():
        owner = path.name.removeprefix(prefix).partition("-")[0]
        if path.name.startswith(prefix) and owner.isdecimal() and not _runs(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=place.parent))
    folder.chmod(0o777 & ~_umask())  # as any other folder: it may be renamed into place
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes, zeros, for which the disk has space: mapped to memory it cannot run out of it.

    Raises:
        OSError: there is no space for it.
    """
    with open(path, "wb") as file:
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # of file systems that cannot promise space
                    raise
        file.truncate(size)


def check_place(path: Path, option: str = "") -> None:
    """Check, before work that takes long, that a file can be put at `path`.

    Raises:
        InputError: there is no such folder, it cannot be written to, or something that is no file is in the place;
            `option` is what the message begins with.
    """
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{option}{path}: there is no such folder, or it cannot be written to; name another")
    if path.exists() and not path.is_file():
        raise InputError(f"{option}{path}: is not a file and is not replaced; name another")


def check_folder(folder: Path, option: str = "") -> None:
    """Check, before work that takes long, that files can be put into `folder`, which need not be there yet.

    Raises:
        InputError: it is a file, or the nearest of its parents that is there is one or cannot be written to; `option`
            is what the message begins with.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{option}{folder}: is a file; name a folder")
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "cannot be written to" if nearest.is_dir() else "is a file"
        raise InputError(f"{option}{folder}: cannot be made, for {nearest} {reason}; name another folder")


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a whole text file in UTF-8; `errors` says what becomes of characters that it cannot hold."""
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8", errors=errors))


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
