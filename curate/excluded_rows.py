"""Lists of row numbers to leave out of a corpus, such as the published one of CIFAR in 80 Million Tiny Images."""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srood.containers.tiny_images import TinyImages
from srood.datasets import ImageSource
from srood.errors import InputError

OPTION = "--exclude-indices"
REASON = "listed in --exclude-indices"


@dataclass(frozen=True)
class ExcludedRows:
    """Rows of set number `source` to be left out before they are decoded: int64, ascending, counted from 0."""

    source: int
    rows: np.ndarray
    file: str
    base: int
    sha256: str

    def describe(self) -> dict[str, Any]:
        """For the manifest: the list's name and hash, its base, and how many rows it leaves out."""
        return {"file": self.file, "sha256": self.sha256, "counted_from": self.base, "rows": len(self.rows)}

    def note(self) -> str:
        """For people: how the numbers were read."""
        return f"{OPTION} {self.file}: {len(self.rows):,} rows are left out, counted from {self.base}"

    def among(self, start: int, count: int) -> list[int]:
        """Which of `count` rows from `start` on are left out, as offsets from `start`."""
        first, last = np.searchsorted(self.rows, [start, start + count])
        return (self.rows[first:last] - start).tolist()


def read_excluded_rows(path: Path, base: int | None, sources: list[ImageSource]) -> ExcludedRows:
    """Read a text file of integers, one a line, and find the set that they number.

    That is the only set of the corpus, or the only tiny_images.bin in it. Without `base` numbers count from 1 in a
    tiny_images.bin, as the published list does (Hendrycks et al., outlier-exposure, 80mn_cifar_idxs.txt), else from 0.

    Raises:
        InputError: the file cannot be read, holds something else, or a number beyond the rows; or no set is meant.
    """
    tiny = [number for number, source in enumerate(sources) if isinstance(source.container, TinyImages)]
    meant = list(range(len(sources))) if len(sources) == 1 else tiny
    if len(meant) != 1:
        names = ", ".join(source.name for source in sources)
        raise InputError(f"{OPTION} {path}: numbers the rows of one set, the corpus has {names}; give one --source")
    source = sources[meant[0]]
    if base is None:
        base = 1 if tiny else 0
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{OPTION} {path}: cannot be read ({error.strerror}); name a text file of integers") from error
    words = content.removeprefix(codecs.BOM_UTF8).split()
    digits = np.array([word.isdigit() and len(word) < 16 for word in words], bool)
    if not words or not digits.all():
        wrong = repr(words[int(np.argmin(digits))][:20].decode("ascii", "replace")) if words else "nothing"
        raise InputError(f"{OPTION} {path}: holds {wrong}; write one row number a line")
    rows = np.unique(np.array(words).astype(np.int64)) - base
    count = source.num_rows()
    if rows[0] < 0 or rows[-1] >= count:
        wrong = str((rows[0] if rows[0] < 0 else rows[-1]) + base)
        raise InputError(
            f"{OPTION} {path}: row {wrong} is not in {source.name}, which has {base} to {count - 1 + base:,}; "
            f"check the file, or --exclude-indices-base (here {base})"
        )
    return ExcludedRows(meant[0], rows, path.name, base, hashlib.sha256(content).hexdigest())
