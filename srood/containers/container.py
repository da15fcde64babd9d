"""What all containers of images share: their verbs, their rows, names of members, fingerprints of files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from srood.errors import InputError
from srood.hashes import file_sha256
from srood.images import MAX_BYTES, Encoded

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)
WHOLE = 8 << 30  # bytes up to which a file is hashed whole: about ten seconds
REMEMBERED = 64 << 20  # bytes from which on a hash is kept while the file keeps its time; it is asked for repeatedly
MAX_NAME = 4096  # characters; the keys of a batch are stored at the width of the longest
SAMPLES, SAMPLE = 4096, 1 << 16  # of a larger one: blocks, bytes a block


@dataclass(frozen=True)
class Row:
    """One image of a set, not yet decoded: `key` says where it came from, `label` is -1 where there is none."""

    key: str
    data: Encoded
    label: int


class Container(Protocol):
    """An opened file or folder of images: what is in it is known, no image is read yet."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels; empty where labels are bare numbers or there are none."""
        ...

    def num_rows(self) -> int:
        """Rows, usable or not."""
        ...

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Rows from number `start` on; those before are skipped without being decoded.

        A key is what follows the set's name: ``/dir/img.png`` for a member, ``#12`` for a numbered row. Of an archive's
        members no more than `max_bytes` are decompressed; what is read as it lies, decoding counts.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 (hex) that changes when the rows do."""
        ...


def archive_labels(names: Sequence[str]) -> list[str | None]:
    """The label of each member of an archive: its first folder, below folders that all members share.

    ``images/cat/1.png`` and ``images/dog/2.png`` are of cat and dog; ``cat/1.png`` alone is of cat. A member whose name
    is unsafe has none.
    """
    parts = [None if unsafe(name) else name.split("/")[:-1] for name in names]
    safe = [p for p in parts if p is not None]
    depth = 0
    while safe and all(len(p) > depth + 1 for p in safe) and len({p[depth] for p in safe}) == 1:
        depth += 1
    return [p[depth] if p is not None and len(p) > depth else None for p in parts]


def member_name(name: str) -> str | None:
    """Name of an archive's member as it goes into keys, or None where it is no image to be read.

    Hidden files and the resource forks that macOS adds (``__MACOSX``) are none.
    """
    name = printable(name).removeprefix("./")
    if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
        return None
    hidden = any(part.startswith(".") and part != ".." for part in name.split("/"))
    return None if hidden or name.startswith("__MACOSX/") else name


def unsafe(name: str) -> bool:
    """Whether a member's name leads out of its archive. Nothing is extracted; such an archive is still not to trust."""
    path = name.replace("\\", "/")
    outside = path.startswith("/") or ".." in path.split("/") or re.match(r"[A-Za-z]:/", path) is not None
    return outside or len(path) > MAX_NAME


def printable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are no UTF-8 become backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def file_fingerprint(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; over 8 GiB of its size and 4,096 blocks of 64 KiB spread evenly over it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        found = path.stat()
        if found.st_size < REMEMBERED:
            return _hash(path, found.st_size)
        return _remembered_hash(path.resolve(), found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise unreadable(path, error) from error


@lru_cache(maxsize=64)
def _remembered_hash(path: Path, size: int, mtime_ns: int) -> str:
    return _hash(path, size)


def _hash(path: Path, size: int) -> str:
    if size <= WHOLE:
        return file_sha256(path)
    digest = hashlib.sha256(f"sampled {size}\n".encode())
    with open(path, "rb") as file:
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def unreadable(path: Path, error: Exception, kind: str = "") -> InputError:
    """The error for a file that cannot be read, or not as what its suffix says."""
    reason = (str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path}: cannot be read{' as ' if kind else ''}{kind} ({reason}); fetch it again")
