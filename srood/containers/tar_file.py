"""Tar archives of images, read in place: labelled by folder, or WebDataset shards.

In a WebDataset (https://github.com/webdataset/webdataset) consecutive members that share a name up to the first dot of
its last part are one sample: ``0001.jpg`` the image, ``0001.cls``, ``0001.json`` or ``0001.txt`` its label. An archive
is read as one where an image has such a companion.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srood.containers.container import (
    Row,
    archive_labels,
    file_fingerprint,
    member_name,
    printable,
    unreadable,
    unsafe,
)
from srood.errors import InputError
from srood.images import MAX_BYTES, Unusable
from srood.labels import name_labels, number_labels

LABEL_EXTENSIONS = ("cls", "json", "txt")  # in order of preference
LABEL_KEYS = ("label_name", "label", "cls", "class", "class_name", "class_label")
MAX_LABEL = 64 << 10  # bytes of a label file
MAX_HEADER = 4 << 20  # bytes of a pax or GNU header: a long name; tarfile takes as many as it claims
MAX_TEXTS = 1000  # distinct texts, beyond which texts of half the rows or more are captions and no labels


@dataclass(frozen=True)
class Member:
    """One image: in which archive, its name, where its bytes lie, and why it cannot be used if it cannot."""

    archive: int
    name: str
    offset: int
    size: int
    problem: str | None


@dataclass(frozen=True)
class TarImages:
    """Images of one or more archives, in the order of the archives."""

    paths: tuple[Path, ...]
    members: tuple[Member, ...]
    labels: np.ndarray  # (N,) int64
    class_names: tuple[str, ...]

    def num_rows(self) -> int:
        """Images, usable or not."""
        return len(self.members)

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Encoded images; those before `start` are skipped by their place in the file."""
        archive, file = -1, None
        try:
            for number in range(start, len(self.members)):
                member = self.members[number]
                if member.archive != archive:
                    if file is not None:
                        file.close()
                    archive, file = member.archive, open(self.paths[member.archive], "rb")  # noqa: SIM115
                assert file is not None
                data: bytes | Unusable
                if member.problem:
                    data = Unusable(member.problem)
                elif member.size > max_bytes:
                    data = Unusable("too many bytes")
                else:
                    file.seek(member.offset)
                    data = file.read(member.size)
                shard = f"/{printable(self.paths[archive].name)}" if len(self.paths) > 1 else ""
                yield Row(f"{shard}/{member.name}", data, int(self.labels[number]))
        except OSError as error:
            raise unreadable(self.paths[archive], error, "tar") from error
        finally:
            if file is not None:
                file.close()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the archive, or over those of several."""
        digests = [file_fingerprint(path) for path in self.paths]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def open_tar(path: Path) -> TarImages:
    """Read the headers of one archive; raises as `open_tars`."""
    return open_tars([path])


def open_tars(paths: Sequence[Path]) -> TarImages:
    """Read the headers of archives, and the labels of WebDataset samples.

    Raises:
        InputError: an archive is damaged, cut short or no tar, or they hold no images.
    """
    samples: list[tuple[Member, dict[str, str]]] = []
    for number, path in enumerate(paths):
        samples += _samples(_entries(path), number)
    if not samples:
        raise InputError(f"{paths[0]}: the archive holds no images; pack image files, in a folder a class")
    if any(texts for _, texts in samples):
        labels, class_names = number_labels(_companion_labels([texts for _, texts in samples]))
    else:
        labels, class_names = name_labels(archive_labels([member.name for member, _ in samples]))
    return TarImages(tuple(paths), tuple(member for member, _ in samples), labels, class_names)


Entry = tuple[tarfile.TarInfo, bytes]  # a member, and the content of a small label file


def _entries(path: Path) -> Iterator[Entry]:
    """Members of an archive in order; raises InputError where it is damaged."""
    try:
        with _Bounded(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.size < 0:  # the next header would be one before it, for ever
                    raise tarfile.ReadError(f"negative size at byte {member.offset:,}")
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all, of archives of any size
                extension = member.name.rpartition(".")[2].lower()
                content = b""
                if extension in LABEL_EXTENSIONS and member.isreg() and member.size <= MAX_LABEL:
                    file = archive.extractfile(member)
                    content = file.read() if file else b""
                yield member, content
            with open(path, "rb") as raw:  # a damaged header ends tarfile's iteration without a word; zeros are the end
                raw.seek(archive.offset)
                if raw.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError(f"damaged at byte {archive.offset:,}")
    except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise unreadable(path, error, "tar") from error


class _Bounded(io.FileIO):
    """A file of which no more is read at once than a header may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of more than {MAX_HEADER:,} bytes before byte {self.tell():,}")
        return super().read(size)


def _samples(entries: Iterable[Entry], archive: int) -> Iterator[tuple[Member, dict[str, str]]]:
    """Each image with the texts of its companions by extension."""
    key: str | None = None
    images: list[Member] = []
    texts: dict[str, str] = {}

    def finished() -> Iterator[tuple[Member, dict[str, str]]]:
        if texts and len(images) > 1:  # a sample is one picture: 0001.jpg rather than 0001.mask.png
            plain = [image for image in images if image.name.rpartition("/")[2].count(".") == 1]
            images[:] = (plain or images)[:1]
        for image in images:
            yield image, dict(texts)

    for member, content in entries:
        if member.isdir():
            continue
        folder, _, last = member.name.rpartition("/")
        stem, _, extension = last.partition(".")
        if f"{folder}/{stem}" != key:
            yield from finished()
            key, images[:], texts = f"{folder}/{stem}", [], {}
        name = member_name(member.name)
        if name is not None:
            images.append(Member(archive, name, member.offset_data, member.size, _problem(member)))
        elif extension.lower() in LABEL_EXTENSIONS and content:
            texts[extension.lower()] = content.decode("utf-8", "replace")
    yield from finished()


def _problem(member: tarfile.TarInfo) -> str | None:
    if unsafe(member.name):
        return "unsafe member name"
    if not member.isreg() or member.issparse():
        return "link or device"
    return None


def _companion_labels(samples: Sequence[dict[str, str]]) -> list[str | None]:
    labels: list[str | None] = []
    for texts in samples:
        found = (_label_of(extension, texts[extension]) for extension in LABEL_EXTENSIONS if extension in texts)
        labels.append(next((label for label in found if label), None))
    distinct = len(set(labels))
    return [None] * len(labels) if distinct > max(MAX_TEXTS, len(labels) // 2) else labels


def _label_of(extension: str, text: str) -> str | None:
    if extension != "json":
        return text.strip().replace("\n", " ")[:200] or None
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[key] for key in LABEL_KEYS if key in value), None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)[:200] if isinstance(value, int | str) and not isinstance(value, bool) else None
