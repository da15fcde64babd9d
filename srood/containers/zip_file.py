"""Zip archives of images, labelled by folder; members are read in place, never extracted."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srood.containers.container import (
    Row,
    archive_labels,
    file_fingerprint,
    member_name,
    unreadable,
    unsafe,
)
from srood.errors import InputError
from srood.images import MAX_BYTES, Unusable
from srood.labels import name_labels

READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of these zipfile bounds the output of one read; not of others
DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, NotImplementedError, EOFError, struct.error)


@dataclass(frozen=True)
class ZipImages:
    """Image members in the order of the archive's directory."""

    path: Path
    members: tuple[zipfile.ZipInfo, ...]
    names: tuple[str, ...]  # as they go into keys
    labels: np.ndarray  # (N,) int64
    class_names: tuple[str, ...]

    def num_rows(self) -> int:
        """Image members, usable or not."""
        return len(self.members)

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Encoded images; a member that is damaged or not safe to read is a row that cannot be used."""
        try:
            archive = zipfile.ZipFile(self.path)
        except DAMAGE as error:
            raise unreadable(self.path, error, "zip") from error
        with archive:
            rows = zip(self.members[start:], self.names[start:], self.labels[start:].tolist(), strict=True)
            for member, name, label in rows:
                yield Row(f"/{name}", _read(archive, member, max_bytes), label)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the archive."""
        return file_fingerprint(self.path)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, max_bytes: int) -> bytes | Unusable:
    mode = member.external_attr >> 16
    if unsafe(member.filename):
        return Unusable("unsafe member name")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Unusable("link or device")
    if member.flag_bits & 1:
        return Unusable("encrypted")
    if member.compress_type not in READABLE:
        return Unusable("unsupported compression")
    if member.file_size > max_bytes:
        return Unusable("too many bytes")
    try:
        with archive.open(member) as file:
            data = file.read(max_bytes + 1)
            file.read(1)  # at the end the checksum is compared
    except (*DAMAGE, zlib.error):
        return Unusable("truncated or corrupt")
    return data if len(data) <= max_bytes else Unusable("too many bytes")


def open_zip(path: Path) -> ZipImages:
    """Read a zip archive's directory.

    Raises:
        InputError: it is damaged or no zip, or holds no images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = [member for member in archive.infolist() if not member.is_dir()]
    except DAMAGE as error:
        raise unreadable(path, error, "zip") from error
    # some programs for Windows write them so; a name that holds a slash means its backslashes
    backward = not any("/" in member.filename for member in files)
    stored = ((member.filename.replace("\\", "/") if backward else member.filename, member) for member in files)
    named = [(found, member) for name, member in stored if (found := member_name(name))]
    if not named:
        raise InputError(f"{path}: the archive holds no images; pack image files, in a folder a class")
    names = tuple(name for name, _ in named)
    labels, class_names = name_labels(archive_labels(names))
    return ZipImages(path, tuple(member for _, member in named), names, labels, class_names)
