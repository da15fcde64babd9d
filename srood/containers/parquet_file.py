"""Parquet files as containers: here or on the Hub, whose files may be read by row group as they are reached."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from srood import parquet
from srood.containers.container import Row
from srood.images import MAX_BYTES
from srood.parquet import ParquetPart


@dataclass(frozen=True)
class ParquetImages:
    """Parquet files read one after the other; `stream` reads those on the Hub by ranges, not downloading them."""

    parts: tuple[ParquetPart, ...]
    columns: parquet.Columns
    class_names: tuple[str, ...]
    stream: bool = False

    def num_rows(self) -> int:
        """Rows of all files; of files on the Hub only the footers are read, and once."""
        return sum(part.num_rows() for part in self.parts)

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Encoded images; files and row groups before `start` are not read."""
        for number, (data, label) in parquet.rows(self.parts, self.columns, start, self.class_names, self.stream):
            yield Row(f"#{number}", data, label)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the SHA-256 of each file, which the Hub states for its own."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part.sha256().encode())
        return digest.hexdigest()


def open_parts(
    parts: Sequence[ParquetPart],
    columns: parquet.Columns = (None, None),
    class_names: Sequence[str] = (),
    stream: bool = False,
) -> ParquetImages:
    """Open Parquet files as one container; `class_names` replaces the files' own.

    Raises:
        InputError: a file cannot be read, or the first holds no images.
    """
    found = parquet.class_names(parts, columns)
    return ParquetImages(tuple(parts), columns, tuple(class_names) or found, stream)


def open_parquet_file(path: Path) -> ParquetImages:
    """Open one file here; raises as `open_parts`."""
    return open_parquet_files([path])


def open_parquet_files(paths: Sequence[Path]) -> ParquetImages:
    """Open files here; raises as `open_parts`."""
    return open_parts([ParquetPart(path=path) for path in paths])
