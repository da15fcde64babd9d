"""`curate export`: an outlier set in a format that others read, with every column and its manifest, lossless."""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from curate.exporting.hdf5 import write_hdf5
from curate.exporting.imagefolder import write_imagefolder
from curate.exporting.parquet import write_parquet
from curate.exporting.webdataset import write_webdataset
from srood.errors import InputError
from srood.files import check_folder, scratch_beside, sync_folder, writing
from srood.locks import locked
from srood.outlier_sources import local_manifest
from srood.outliers import OutlierSet
from srood.progress import progress_bar

FORMATS: dict[str, Callable[..., list[Path]]] = {
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "imagefolder": write_imagefolder,
    "hdf5": write_hdf5,
}
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Exported:
    """What was written: `files` and `bytes` count everything below `out`, the manifest too.

    `already` says that an export before had written it, whose bytes were found to be the same.
    """

    out: Path
    format: str
    rows: int
    files: int
    bytes: int
    already: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "out": str(self.out)}


def export(
    spec: str, format: str, out: Path, *, workers: int | None = None, console: Console | None = None
) -> Exported:
    """Export an outlier set into a new folder.

    Every row's pixels are compared with its SHA-256 on the way. The folder is filled beside its place and renamed when
    it is whole; what an interrupted export left there is removed by the next. One that was stopped as its folder came
    into place has done its work: where the folder holds just this export, byte for byte, it is left as it is.

    Args:
        spec: a manifest's path, or ``hf://owner/name[@revision][/mini.h5]``.
        format: a key of `FORMATS`.
        out: a folder that is not there yet, or is empty.
        workers: threads that encode; by default one per processor. The bytes do not depend on it.
        console: for the progress bar.

    Raises:
        InputError: an unknown format, a folder that holds something else or cannot be made or written, a set that is
            damaged, or another process that writes there.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}: no such format; one of {', '.join(FORMATS)}")
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be at least 1")
    place = _place(out)
    opened = OutlierSet.open(local_manifest(spec))
    text = json.dumps(opened.manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with ExitStack() as stack:
        stack.enter_context(locked(place, "--out "))
        already = _filled(place)
        if already and not _holds(place / MANIFEST, text):
            raise InputError(f"--out {out}: holds files already; name a new or an empty folder")
        stack.enter_context(writing(out, "--out "))
        beside = stack.enter_context(scratch_beside(place, "export"))
        progress = stack.enter_context(progress_bar("rows", console))
        (beside / MANIFEST).write_text(text, encoding="utf-8")
        task = progress.add_task(f"{format}", total=opened.num_rows, note="")
        written = FORMATS[format](opened, beside, workers=workers, advance=lambda rows: progress.advance(task, rows))
        size = sum(path.stat().st_size for path in (*written, beside / MANIFEST))
        if already and not _same_files(beside, place):
            raise InputError(f"--out {out}: holds another export of this set; name a new or an empty folder")
        if not already:
            _put_in_place(beside, place)
    return Exported(out, format, opened.num_rows, len(written) + 1, size, already)


def _place(out: Path) -> Path:
    """The folder to be made; raises InputError where it cannot be."""
    check_folder(out, "--out ")
    place = Path(os.path.realpath(out))
    if place == Path.cwd() or os.path.ismount(place):
        raise InputError(f"--out {out}: cannot be replaced as a whole; name a new folder in it")
    check_folder(place.parent, "--out ")
    return place


def _filled(place: Path) -> bool:
    return place.is_dir() and any(place.iterdir())


def _holds(path: Path, text: str) -> bool:
    expected = text.encode()
    try:
        return path.is_file() and path.stat().st_size == len(expected) and path.read_bytes() == expected
    except OSError:
        return False


def _same_files(first: Path, second: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (first, second)]
    if names[0] != names[1]:
        return False
    files = [name for name in names[0] if (first / name).is_file()]
    return all((second / name).is_file() and filecmp.cmp(first / name, second / name, shallow=False) for name in files)


def _put_in_place(beside: Path, place: Path) -> None:
    if hasattr(os, "sync"):
        os.sync()  # tens of thousands of pictures, one by one, would take minutes
    if place.is_dir():
        place.rmdir()  # it is empty, or this fails
    os.replace(beside, place)
    sync_folder(place.parent)
