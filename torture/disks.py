"""Disks that are full, read-only or gone, inputs that vanish, and clocks that jump."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torture import processes
from torture.processes import Ended
from torture.trial import Effort, Trial
from torture.works import (
    Case,
    Result,
    Undisturbed,
    Work,
    build_inputs,
    build_words,
    dice_of,
    difference,
    files,
    said,
    scratch,
    several,
    strike_at,
    undisturbed,
    works,
)

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
JUMPING = """
import itertools, time
_real, _count = time.time, itertools.count()
time.time = lambda: _real() + (0, 1e8, -3e8, 9e8)[next(_count) % 4]
"""
ROOM = "64m"
OUTPUTS = ("curate build", "srood train", "curate pull", "curate merge", "curate export", "curate rebuild")
FILES = ("srood detect", "srood eval")  # written in one go: little can be met on the way
NOT_ALLOWED = "not tried: mounting is not allowed here"


def disks_and_clocks(effort: Effort) -> Iterator[Trial]:
    """All of this, for every command that writes much."""
    known = works(effort.folder)
    for name in OUTPUTS[:1] if effort.quick else OUTPUTS:
        work = known[name]
        whole = undisturbed(work, effort.folder / name.replace(" ", "-"))
        yield from several(effort, effort.times(12, 1), lambda i, w=work, u=whole: _full(effort, w, u, i))
        yield from several(effort, effort.times(8, 1), lambda i, w=work, u=whole: _limited(effort, w, u, i))
        if not effort.quick:
            yield from several(effort, 3, lambda i, w=work, u=whole: _read_only(effort, w, u, i))
            yield from several(effort, 5, lambda i, w=work, u=whole: _clock(effort, w, u, i))
            yield from several(effort, 4, lambda i, w=work, u=whole: _output_removed(effort, w, u, i))
    for name in () if effort.quick else FILES:
        work = known[name]
        whole = undisturbed(work, effort.folder / name.replace(" ", "-"))
        yield from several(effort, 5, lambda i, w=work, u=whole: _limited(effort, w, u, i))
    if not effort.quick:
        yield from several(effort, 12, lambda i: _input_gone(effort, i))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of a size at a new folder; whether it could be mounted."""
    folder.mkdir()
    mounted = os.name == "posix" and os.geteuid() == 0 and _mount(folder, size)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(folder: Path, size: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return not subprocess.run(command, capture_output=True).returncode


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def _size(whole: Undisturbed) -> int:
    return sum(map(len, whole.result.values()))


def _full(effort: Effort, work: Work, whole: Undisturbed, number: int) -> Trial:
    """A disk of some size below what the command needs, then one with room."""
    fault = f"disk full (tmpfs) under `{work.name}`"
    dice = dice_of(effort, "full", work.name, number)
    folder = scratch(effort)
    try:
        kib = max(4, int(_size(whole) * dice.uniform(0.02, 1.0)) >> 10)
        with small_disk(folder / "disk", f"{kib}k") as mounted:
            if not mounted:
                return Trial(fault, NOT_ALLOWED, True)
            with work.case(folder / "disk") as case:
                ended = processes.finish(case.start())
                before = _final(case)
                _remount(folder / "disk", f"size={ROOM}")
                return _judged(fault, case, whole, ended, before, number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _limited(effort: Effort, work: Work, whole: Undisturbed, number: int) -> Trial:
    """No file may grow beyond some size, then any may."""
    fault = f"files limited in size (RLIMIT_FSIZE) under `{work.name}`"
    dice = dice_of(effort, "limited", work.name, number)
    folder = scratch(effort)
    try:
        with work.case(folder) as case:
            largest = max(map(len, whole.result.values()))
            ended = processes.finish(case.start(before=LIMITED.format(int(largest * dice.uniform(0.01, 1.0)))))
            return _judged(fault, case, whole, ended, _final(case), number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_only(effort: Effort, work: Work, whole: Undisturbed, number: int) -> Trial:
    """A file system that is read-only from the start, or becomes so while the command runs."""
    fault = f"read-only file system under `{work.name}`"
    folder = scratch(effort)
    try:
        with small_disk(folder / "disk", ROOM) as mounted:
            if not mounted:
                return Trial(fault, NOT_ALLOWED, True)
            with work.case(folder / "disk") as case:
                _remount(folder / "disk", "ro")
                ended = processes.finish(case.start())
                before = _final(case)
                _remount(folder / "disk", "rw")
                return _judged(fault, case, whole, ended, before, number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _output_removed(effort: Effort, work: Work, whole: Undisturbed, number: int) -> Trial:
    """The folder that the command writes into is removed while it does."""
    dice = dice_of(effort, "removed", work.name, number)
    folder = scratch(effort)
    try:
        with work.case(folder) as case:
            process = case.start()
            strike_at(case, process, whole, dice)
            _remove(case.place, folder / "removed")
            ended = processes.finish(process)
            if not ended.code:
                _remove(case.place, folder / "removed too")
            return _judged(f"output folder of `{work.name}` removed", case, whole, ended, {}, number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove(place: Path, to: Path) -> None:
    """Take a folder away at one moment; it may be gone."""
    with suppress(FileNotFoundError):
        os.rename(place, to)


def _clock(effort: Effort, work: Work, whole: Undisturbed, number: int) -> Trial:
    """`time.time` jumps by years, back and forth, at every call."""
    folder = scratch(effort)
    try:
        with work.case(folder) as case:
            ended = processes.finish(case.start(before=JUMPING))
            wrong = said(ended) if ended.code else difference(case.result(), whole.result)
            return Trial(f"clock that jumps under `{work.name}`", "the same bytes", not wrong, f"{number}: {wrong}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _input_gone(effort: Effort, number: int) -> Trial:
    """A mount with the corpus goes away, or a file of it is removed or cut off, while `curate build` reads it."""
    kinds = ("the mount of the corpus vanishes", "files of the corpus are removed", "files of the corpus are cut off")
    fault = f"{kinds[number % 3]} under `curate build`"
    dice = dice_of(effort, "gone", number)
    folder = scratch(effort)
    try:
        with small_disk(folder / "disk", ROOM) as mounted:
            if not mounted and not number % 3:
                return Trial(fault, NOT_ALLOWED, True)
            root, out = folder / "disk" / "given", folder / "out"
            source = build_inputs(effort.folder / "inputs")
            shutil.copytree(source, root)
            words = build_words(root, out / "mini.h5")
            case = Case(words, out, lambda: words, lambda: files(out))
            whole = _whole(effort, source)
            process = case.start()
            strike_at(case, process, whole, dice)
            if number % 3 == 0:
                subprocess.run(["umount", "-l", str(folder / "disk")], check=True)
            for path in root.glob("corpus-*.parquet"):
                path.unlink() if number % 3 == 1 else os.truncate(path, 2000)
            ended = processes.finish(process)
            before = _final(case)
            if number % 3 == 0:
                _mount(folder / "disk", ROOM)
            shutil.copytree(source, root, dirs_exist_ok=True)
            return _judged(fault, case, whole, ended, before, number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _whole(effort: Effort, source: Path) -> Undisturbed:
    """What a build of these inputs gives elsewhere: paths do not show in it."""
    return undisturbed(works(source.parent.parent)["curate build"], scratch(effort))


def _final(case: Case) -> Result:
    """What a command that failed has left at final names."""
    return {name: data for name, data in case.result().items() if _is_final(name) and data}


def _is_final(name: str) -> bool:
    return Path(name).name in ("mini.h5", "x.h5", "manifest.json", "model.safetensors") and ".work" not in name


def _judged(fault: str, case: Case, whole: Undisturbed, ended: Ended, before: Result, number: int) -> Trial:
    """One line and nothing half there, or all there; and then on to the same bytes."""
    again = case.go_on()
    at_last = said(again) if again.code else difference(case.result(), whole.result)
    if not ended.code:
        return Trial(fault, "did not need it; the same bytes", not at_last, f"trial {number}: {at_last}")
    good = ended.code == 2 and len(ended.errors) == 1 and not ended.traceback and not before
    wrong = ("" if good else f"left {sorted(before)}; {said(ended)}") + at_last
    outcome = "one line, exit code 2, nothing half there; then on to the same bytes"
    return Trial(fault, outcome if not wrong else "otherwise", not wrong, f"trial {number}: {wrong}")
