"""Tar archives made to harm."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from torture.hostile import Case, png


def cases(good: Sequence[np.ndarray], quick: bool) -> list[Case]:
    """The cases; each archive holds two good images besides, unless it is to be refused."""
    plain = [(_file(f"cat/{number}.png"), png(image)) for number, image in enumerate(good[:2])]
    extra = png(good[2])

    def named(fault: str, name: str, rows: int = 2) -> Case:
        return Case(fault, partial(_write, members=[*plain, (_file(name), extra)]), rows)

    def special(fault: str, kind: bytes, target: str = "") -> Case:
        info = _file("cat/2.png")
        info.type, info.linkname = kind, target
        return Case(fault, partial(_write, members=[*plain, (info, b"")]), 2)

    pax = _file("cat/2.png")
    pax.pax_headers = {"comment": "x" * ((1 if quick else 64) << 20)}
    return [
        named("tar: a member name with ..", "../../outside/new.png"),
        named("tar: an absolute member name", "/tmp/absolute.png"),
        named("tar: a drive letter", "C:/windows.png"),
        named("tar: the same member name twice", "cat/0.png", 3),
        named("tar: a member name of 64 KiB", f"cat/{'a' * 65_000}.png"),
        named("tar: a member name that is not UTF-8", "cat/\udce9\udcff.png", 3),
        special("tar: a symbolic link to a file outside", tarfile.SYMTYPE, "../../outside/secret.png"),
        special("tar: a symbolic link to a file outside", tarfile.SYMTYPE, "/etc/passwd"),
        special("tar: a hard link to a file outside", tarfile.LNKTYPE, "../../outside/secret.png"),
        special("tar: a symbolic link to itself", tarfile.SYMTYPE, "2.png"),
        special("tar: a device or a pipe", tarfile.CHRTYPE),
        special("tar: a device or a pipe", tarfile.BLKTYPE),
        special("tar: a device or a pipe", tarfile.FIFOTYPE),
        special("tar: a member of an unknown type", b"Z"),
        Case("tar: a pax header of MiB", partial(_write, members=[*plain, (pax, extra)]), 3 if quick else None),
        Case("tar: a pax header that claims 8 GiB of a sparse file", _claimed_header),
        Case("tar: a member that claims 2^60 bytes", partial(_claimed, members=plain, size=1 << 60)),
        Case("tar: a member of negative size", partial(_claimed, members=plain, size=-512)),
        Case("tar: a sparse member of 2^50 bytes", partial(_sparse, members=plain), 2),
        Case("tar: a wrong checksum of a header", partial(_damaged, members=plain)),
        Case("tar: cut in the middle of a member", partial(_cut, members=plain)),
        Case("tar.gz: a bomb of GiB", partial(_gzip_bomb, size=(64 if quick else 4096) << 20, name="corpus.tar.gz")),
        Case("tar.gz: a bomb of GiB", partial(_gzip_bomb, size=(64 if quick else 4096) << 20, name="corpus.tgz")),
        Case("tar.gz: a bomb of GiB, named .tar", partial(_gzip_bomb, size=64 << 20, name="corpus.tar")),
        Case("tar: hundreds of thousands of empty members", partial(_many, count=2_000 if quick else 400_000), 0),
    ]


def _file(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def _write(folder: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path = folder / "corpus.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _block(info: tarfile.TarInfo, change: Callable[[bytearray], None] | None = None) -> bytes:
    """One header, changed, with a checksum that fits."""
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if change:
        change(block)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _append(folder: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], data: bytes) -> Path:
    path = _write(folder, members)
    with tarfile.open(path) as archive:
        archive.getmembers()
        end = archive.offset
    path.write_bytes(path.read_bytes()[:end] + data + b"\0" * 1024)
    return path


def _claimed(folder: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], size: int) -> Path:
    def lie(block: bytearray) -> None:
        block[124:136] = bytes([0x80 if size >= 0 else 0xFF]) + (size & ((1 << 88) - 1)).to_bytes(11, "big")

    return _append(folder, members, _block(_file("cat/2.png"), lie) + b"\0" * 512)


def _claimed_header(folder: Path) -> Path:
    info = _file("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    path = folder / "corpus.tar"
    with open(path, "wb") as file:
        file.write(_block(info))
        file.truncate(9 << 30)  # a hole: nothing on the disk
    return path


def _sparse(folder: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    info = _file("cat/2.png")
    info.type = tarfile.GNUTYPE_SPARSE

    def lie(block: bytearray) -> None:
        block[386:410] = b"00000000000\0" * 2  # one piece, empty
        block[483:495] = b"\x80" + (1 << 50).to_bytes(11, "big")  # of the real size

    return _append(folder, members, _block(info, lie))


def _damaged(folder: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path = _write(folder, members)
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        data[archive.getmembers()[1].offset + 3] ^= 0x55
    path.write_bytes(data)
    return path


def _cut(folder: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path = _write(folder, members)
    with tarfile.open(path) as archive:
        last = archive.getmembers()[1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 700])
    return path


def _gzip_bomb(folder: Path, size: int, name: str) -> Path:
    path = folder / name
    block = b"\0" * (1 << 20)
    with gzip.open(path, "wb", compresslevel=1) as file:
        info = _file("cat/0.png")
        info.size = size
        file.write(_block(info))
        for _ in range(size >> 20):
            file.write(block)
    return path


def _many(folder: Path, count: int) -> Path:
    path = folder / "corpus.tar"
    with open(path, "wb") as file:
        for number in range(count):
            file.write(_block(_file(f"{number}.png")))
        file.write(b"\0" * 1024)
    return path
