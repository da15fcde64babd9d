"""Zip archives made to harm."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from torture.hostile import Case, png

Members = Sequence[tuple[str | zipfile.ZipInfo, bytes]]


def cases(good: Sequence[np.ndarray], quick: bool) -> list[Case]:
    """The cases; each archive holds two good images besides, unless it is to be refused."""
    plain = [(f"cat/{number}.png", png(image)) for number, image in enumerate(good[:2])]
    extra = png(good[2])
    bomb = b"\0" * (96 << 20)

    def with_members(fault: str, *members: tuple[str | zipfile.ZipInfo, bytes], rows: int = 2) -> Case:
        return Case(fault, partial(_write, members=[*plain, *members]), rows)

    def edited(fault: str, edit: object, rows: int | None = 2) -> Case:
        return Case(fault, partial(_edited, members=[*plain, ("cat/2.png", extra)], edit=edit), rows)

    names = ("../../outside/new.png", "/tmp/absolute.png", "C:/windows.png", "..\\..\\outside\\new.png")
    links = ("../outside/secret.png", "/etc/passwd", "link.png")
    found = [
        with_members("zip: a member name with ..", (names[0], extra)),
        with_members("zip: .. with backslashes", (names[3], extra)),
    ]
    found += [
        with_members("zip: an absolute member name", (names[1], extra)),
        with_members("zip: a drive letter", (names[2], extra)),
    ]
    found += [with_members("zip: a symbolic link to a file outside", (_link(), text.encode())) for text in links[:2]]
    found += [
        with_members("zip: a symbolic link to itself", (_link(), links[2].encode())),
        with_members("zip: the same member name twice", ("cat/0.png", extra), rows=3),
        with_members("zip: a member name of 64 KiB", (f"cat/{'a' * 65_000}.png", extra)),
        with_members("zip: an archive within the archive, named .png", ("cat/z.png", _nested())),
        with_members("zip: a member that expands to 96 MiB", ("cat/bomb.png", bomb)),
        with_members("zip: a member name that is not UTF-8", ("cat/\udce9\udcff.png", extra), rows=3)
        if False
        else edited("zip: a member name that is not UTF-8", _bad_utf8, None),
        edited("zip: a size that lies", _lying_size),
        edited("zip: a wrong CRC", _wrong_crc),
        edited("zip: an encrypted member", _encrypted),
        edited("zip: an unknown compression", _unknown_method),
        edited("zip: a directory that names other members than the file headers", _renamed),
        edited("zip: a member of which the directory says 2^32 - 1 bytes", _huge),
        edited("zip: zip64 sizes that lie", _zip64, None),
        edited("zip: a directory that starts outside the file", _no_directory, 0),
        edited("zip: a central directory cut in the middle", lambda data: data[:-60], None),
        Case(
            "zip: members that all lie on one compressed block of 96 MiB", partial(_overlapping, count=60, bomb=bomb), 0
        ),
        Case("zip: hundreds of thousands of empty members", partial(_many, count=2_000 if quick else 400_000), 0),
    ]
    return found


def _write(folder: Path, members: Members) -> Path:
    path = folder / "corpus.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def _edited(folder: Path, members: Members, edit: object) -> Path:
    path = _write(folder, members)
    path.write_bytes(edit(path.read_bytes()))  # type: ignore[operator]
    return path


def _link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("cat/link.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def _nested() -> bytes:
    inner = b"\0" * (8 << 20)
    for _ in range(4):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(4):
                archive.writestr(f"{number}.zip", inner)
        inner = buffer.getvalue()
    return inner


def _entry(data: bytes) -> int:
    """Where the last entry of the central directory lies."""
    return data.rindex(b"PK\x01\x02")


def _patched(data: bytes, offset: int, value: bytes, local: int | None = None) -> bytes:
    """Bytes of the last directory entry, and at `local` of its file header, replaced."""
    changed = bytearray(data)
    at = _entry(data)
    header = struct.unpack("<I", data[at + 42 : at + 46])[0]
    changed[at + offset : at + offset + len(value)] = value
    if local is not None:
        changed[header + local : header + local + len(value)] = value
    return bytes(changed)


def _lying_size(data: bytes) -> bytes:
    return _patched(data, 24, struct.pack("<I", 7), 22)


def _wrong_crc(data: bytes) -> bytes:
    return _patched(data, 16, b"\1\2\3\4", 14)


def _encrypted(data: bytes) -> bytes:
    return _patched(data, 8, b"\1\0", 6)


def _unknown_method(data: bytes) -> bytes:
    return _patched(data, 10, struct.pack("<H", 93), 8)


def _renamed(data: bytes) -> bytes:
    return _patched(data, 46, b"dog/9.png")


def _bad_utf8(data: bytes) -> bytes:
    return _patched(_patched(data, 8, b"\x00\x08", 6), 46, b"c\xff\xfe/9.png")


def _huge(data: bytes) -> bytes:
    return _patched(data, 24, b"\xfe\xff\xff\xff", 22)


def _zip64(data: bytes) -> bytes:
    """An end record of the zip64 kind which says that there are 2^62 entries of 2^62 bytes."""
    end = data.rindex(b"PK\x05\x06")
    most = 1 << 62
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, most, most, most, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + last


def _no_directory(data: bytes) -> bytes:
    end = data.rindex(b"PK\x05\x06")
    return data[: end + 16] + struct.pack("<I", 0xFFFFFF00) + data[end + 20 :]


def _overlapping(folder: Path, count: int, bomb: bytes) -> Path:
    """Many entries of one header: as in zbsm.zip, a small file claims gigabytes."""
    path = _write(folder, [("cat/a.png", bomb)])
    data = path.read_bytes()
    at, end = _entry(data), data.rindex(b"PK\x05\x06")
    size = struct.pack("<I", 60 << 20)  # below the limit of one member
    entry = data[at : at + 24] + size + data[at + 28 : end]
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, at, 0)
    path.write_bytes(data[:at] + entry * count + last)
    return path


def _many(folder: Path, count: int) -> Path:
    path = folder / "corpus.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number}.png"), b"")
    return path
