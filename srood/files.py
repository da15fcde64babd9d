"""Files that are whole or not there: written beside their place, brought to the disk, and renamed."""

from __future__ import annotations

import errno
import os
import re
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
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a write that fails names no file
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def writing(place: Path, option: str = "", advice: str = "free space, or name another") -> Iterator[None]:
    """Let what a disk or a file raises in here be an error of the output that is made, or of the file that it names.

    Raises:
        InputError: the disk is full, a file cannot be read or written any more; `option` is what the message begins
            with where the output is at fault, and `advice` how it ends.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        if not reason:
            raise
        named = getattr(error, "filename", None)
        folder = place if place.is_dir() else place.parent
        if isinstance(named, (str, bytes)) and not _is_below(os.fsdecode(named), folder):
            raise InputError(explained(error)) from error
        raise InputError(f"{option}{place}: cannot be written ({reason}); {advice}") from error


def explained(error: Exception, place: str = "a file") -> str:
    """One line on a file that cannot be read or written; `place` stands where the error names none."""
    named = getattr(error, "filename", None)
    what = os.fsdecode(named) if isinstance(named, (str, bytes)) else place
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free space" if full else "see that it is there and may be read and written"
    return f"{what}: {_reason(error) or type(error).__name__}; {advice}, then run the same command again"


def _reason(error: Exception) -> str | None:
    # HDF5 has the reason in a text of its own, and raises a RuntimeError where the file cannot be closed
    of_hdf5 = re.search(r"error message = '([^']*)'", str(error))
    return of_hdf5[1] if of_hdf5 else getattr(error, "strerror", None)


def _is_below(path: str, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


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
        if nearest == folder.absolute():
            raise InputError(f"{option}{folder}: cannot be written to; name another folder")
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
