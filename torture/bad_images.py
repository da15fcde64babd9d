"""Bad images: malformed files of every kind in every kind of source, through `curate build` under a time limit.

python -m torture.bad_images FOLDER    # what becomes of each file there; what the area starts
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torture import image_files, processes
from torture.bad_image_kinds import IMAGE, SIDE, Kind, kinds
from torture.trial import Effort, Trial

MEMORY = 3 << 30  # bytes that a build may take at most: twice 12 a pixel of the largest image, and the program
LIMIT = 900.0  # seconds; a minute where nothing else runs


def trials(effort: Effort) -> Iterator[Trial]:
    """What becomes of each file by itself, and then the counts of a build of a folder, a zip and a Parquet file."""
    files = list(kinds(effort.seed, effort.times(300, 10), effort.quick))
    folder = effort.folder / "images"
    folder.mkdir()
    _write(folder, files)
    found = yield from _each(effort, files, folder)
    if found is None:
        return
    _write_id_set(effort.folder / "id")
    rows = [file.data for file in files]
    with zipfile.ZipFile(effort.folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, file in enumerate(files):
            archive.writestr(_name(number, file), file.data)
    table = pa.table({"image": [{"bytes": data, "path": None} for data in rows], "label": [0] * len(rows)})
    pq.write_table(table, effort.folder / "images.parquet", row_group_size=200)
    expected = Counter(reason for reason in found if reason != IMAGE)
    if not effort.quick:
        yield from _build(effort, "images.zip", expected)
        yield from _build(effort, "images.parquet", expected)
    yield from _build(effort, "images", expected + _odd_files(folder, effort.folder), trap=True)


def _each(effort: Effort, files: Sequence[Kind], folder: Path) -> Iterator[Trial]:
    """Each file by itself, in a process; returns what became of each, None where the process broke."""
    words = [sys.executable, "-m", "torture.bad_images", str(folder)]
    ended = processes.finish(processes.start(words, effort.folder), LIMIT)
    if ended.code:
        how = "hung" if ended.hung else "crashed"
        yield Trial("the process that decodes them", how, False, ended.err[-2000:])
        return None
    found: list[str] = json.loads(ended.out)
    pixels = np.load(folder.with_suffix(".npy"))
    for number, file in enumerate(files):
        outcome, passed, detail = (
            found[number],
            found[number] in file.allowed,
            f"{_name(number, file)}: {found[number]}",
        )
        if passed and outcome == IMAGE and file.pixels is not None:
            off = int(np.abs(pixels[number].astype(int) - file.pixels).max())
            if off > file.off:
                outcome, passed, detail = "an image with other pixels", False, f"{detail}, off by {off}"
        yield Trial(file.fault, outcome if outcome == IMAGE or not passed else f"counted as {outcome}", passed, detail)
    return found


def _build(effort: Effort, source: str, expected: Counter[str], trap: bool = False) -> Iterator[Trial]:
    """A build of one source, decoding on one thread; with `trap`, a `gs` on the PATH says whether it was started."""
    env, started = {}, effort.folder / "ghostscript-started"
    if trap:
        gs = effort.folder / "bin" / "gs"
        gs.parent.mkdir()
        gs.write_text(f"#!/bin/sh\ntouch '{started}'\n")
        gs.chmod(0o755)
        env["PATH"] = f"{gs.parent}{os.pathsep}{os.environ['PATH']}"
    out = effort.folder / "sets" / f"{Path(source).name}.h5"
    words = ["curate", "build", "--source", source, "--id", "id", "--out", out, "--size", "1M", "--quality", "none"]
    process = processes.start(
        processes.command(*words, "--image-size", SIDE, "--workers", 1, "--json"), effort.folder, env
    )
    peak = Peak(process)
    ended = processes.finish(process, LIMIT)
    fault = f"a build of all of them from a {'folder' if source == 'images' else Path(source).suffix[1:]}"
    memory = f"at most {peak.bytes() / 1e9:.1f} GB"
    if ended.code or ended.traceback:
        yield Trial(fault, "hung" if ended.hung else "failed", False, ended.err[-2000:])
        return
    dropped = Counter(json.loads(ended.out)["manifest"]["stages"][0]["dropped"])
    detail = f"{memory}; more than expected {dropped - expected}, fewer {expected - dropped}"
    right = dropped == expected
    outcome = "each row counted by its reason" if right else "rows counted by another reason"
    yield Trial(fault, outcome, right and peak.bytes() < MEMORY, detail, memory)
    if trap:
        outcome = "started" if started.exists() else "never started"
        yield Trial("Ghostscript beside an EPS file", outcome, not started.exists(), "")


class Peak:
    """The most memory that a process held, in bytes; 0 where the system does not tell."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._most = 0
        self._thread = threading.Thread(target=self._watch, args=[process], daemon=True)
        self._thread.start()

    def bytes(self) -> int:
        """Once the process has ended."""
        self._thread.join()
        return self._most

    def _watch(self, process: subprocess.Popen) -> None:
        status = Path(f"/proc/{process.pid}/status")
        while process.returncode is None:
            try:
                lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            except OSError:
                return
            if lines:
                self._most = max(self._most, int(lines[0].split()[1]) << 10)
            threading.Event().wait(0.02)


# ---- files ----------------------------------------------------------------------------------------------------------


def _name(number: int, file: Kind) -> str:
    return f"{number:05d}-{file.name}"


def _write(folder: Path, files: Sequence[Kind]) -> None:
    for number, file in enumerate(files):
        (folder / _name(number, file)).write_bytes(file.data)


def _write_id_set(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for part, count in (("train", 40), ("test", 20)):
        for number in range(count):
            path = folder / part / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_files.encoded(image_files.blocks(rng), "PNG"))


def _odd_files(folder: Path, outside: Path) -> Counter[str]:
    """Put files there that only a folder can hold, as many as this system allows; return the reasons to be counted."""
    good = image_files.encoded(image_files.picture(SIDE, SIDE), "PNG")
    (outside / "secret.png").write_bytes(good)
    (folder / "link-inside.png").symlink_to(next(iter(sorted(folder.glob("*wrong*")))).name)
    for name, target in (
        ("file", outside / "secret.png"),
        ("system", Path("/etc/hostname")),
        ("up", Path("../secret.png")),
    ):
        (folder / f"link-{name}.png").symlink_to(target)
    (folder / "link-loop.png").symlink_to("link-loop.png")
    (folder / "link-gone.png").symlink_to("gone.png")
    (folder / "link-folder").symlink_to(outside)
    expected = Counter({"link out of the folder": 3, "unreadable file": 2})
    (folder / "folder.jpg").mkdir()  # which is no file: what lies in it is a row
    (folder / "folder.jpg" / "inner.png").write_bytes(good)
    for name in (b"new\nline.png", b"caf\xe9.png", b"\x1b[31mred.png"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(good)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(folder)  # the address of a socket is short
        try:
            bound.bind("socket.png")
        finally:
            os.chdir(here)
    expected["unreadable file"] += 2
    try:
        os.mknod(folder / "device.png", stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which has no end
        expected["unreadable file"] += 1
    except OSError:  # only root may
        pass
    with open(folder / "sparse.png", "wb") as file:
        file.truncate(65 << 20)
    expected["too many bytes"] += 1
    return expected


def _decode(folder: Path) -> None:
    """Print what becomes of each file, and put the pixels beside the folder."""
    from srood import images

    found, reasons = images.decode_batch(sorted(folder.iterdir()), SIDE)
    np.save(folder.with_suffix(".npy"), found)
    print(json.dumps([reason or IMAGE for reason in reasons]))


if __name__ == "__main__":
    _decode(Path(sys.argv[1]))
