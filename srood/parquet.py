"""Image rows of Parquet files in the Hugging Face Hub's layout: a column of images, a column of labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srood.errors import InputError

Columns = tuple[str | None, str | None]  # image, label; None to find it
IMAGE_NAMES = ("image", "img", "png", "jpg", "webp", "picture")
LABEL_NAMES = ("label", "fine_label", "labels", "class", "cls")


@dataclass(frozen=True)
class ParquetPart:
    """One Parquet file, here (`path`) or on the Hub, where `fetch` downloads it into the cache and returns its path."""

    path: Path | None = None
    fetch: Callable[[], Path] | None = None
    known_sha256: str | None = None

    def local(self) -> Path:
        """The file's path on this machine, downloading it if need be."""
        if self.path is not None:
            return self.path
        assert self.fetch is not None
        return self.fetch()

    def num_rows(self) -> int:
        """Rows, from the file's footer."""
        return open_parquet(self.local()).metadata.num_rows

    def sha256(self) -> str:
        """SHA-256 (hex) of the file's bytes."""
        if self.known_sha256:
            return self.known_sha256
        with open(self.local(), "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file and read its footer.

    Raises:
        InputError: it cannot be read or is not Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}); fetch it again") from error


def rows(
    parts: Sequence[ParquetPart], columns: Columns, start: int = 0, names: Sequence[str] = ()
) -> Iterator[tuple[int, tuple[bytes, int]]]:
    """Yield (row number over all parts, (encoded image, label)) from row `start` on; label -1 where there is none.

    Raises:
        InputError: a file cannot be read or lacks an image column.
    """
    number = 0
    indices = {name: index for index, name in enumerate(names)}
    for part in parts:
        file = open_parquet(part.local())
        image_column, label_column = find_columns(file, columns, part)
        groups = []
        for group in range(file.num_row_groups):  # whole row groups before `start` are never read
            in_group = file.metadata.row_group(group).num_rows
            if not groups and number + in_group <= start:
                number += in_group
            else:
                groups.append(group)
        if not groups:
            continue
        wanted = [image_column] + ([label_column] if label_column else [])
        for batch in file.iter_batches(1024, row_groups=groups, columns=wanted):
            skip = min(max(0, start - number), batch.num_rows)
            number += skip
            batch = batch.slice(skip)
            data = _image_bytes(batch.column(0))
            labels = batch.column(1).to_pylist() if label_column else [None] * batch.num_rows
            for item, label in zip(data, labels, strict=True):
                index = indices.get(label, -1) if isinstance(label, str) else -1 if label is None else int(label)
                yield number, (item, index)
                number += 1


def _image_bytes(column: pa.Array) -> list[bytes]:
    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    return [item if item is not None else b"" for item in column.to_pylist()]


def find_columns(file: pq.ParquetFile, columns: Columns, part: ParquetPart) -> tuple[str, str | None]:
    """Names of the image and label columns: those given where the file has them, else by name and type."""
    schema = file.schema_arrow

    def holds_images(name: str) -> bool:
        kind = schema.field(name).type
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    candidates = [name for name in (columns[0], *IMAGE_NAMES, *schema.names) if name in schema.names]
    image = next((name for name in candidates if name is not None and holds_images(name)), None)
    if image is None:
        raise InputError(
            f"{part.local()}: has no column of images (binary, or a struct with 'bytes') among {', '.join(schema.names)}"
        )
    label = next((name for name in (columns[1], *LABEL_NAMES) if name in schema.names), None)
    return image, label


def class_names(parts: Sequence[ParquetPart], columns: Columns) -> tuple[str, ...]:
    """Class names: from the Hub's schema metadata, or, for a column of strings, its sorted distinct values."""
    if not parts:
        return ()
    file = open_parquet(parts[0].local())
    _, label = find_columns(file, columns, parts[0])
    if label is None:
        return ()
    metadata = (file.schema_arrow.metadata or {}).get(b"huggingface")
    if metadata:
        features: dict[str, Any] = json.loads(metadata).get("info", {}).get("features", {})
        names = (features.get(label) or {}).get("names")
        if names:
            return tuple(str(name) for name in names)
    kind = file.schema_arrow.field(label).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values: set[str] = set()
        for part in parts:
            column = open_parquet(part.local()).read(columns=[label]).column(0)
            values.update(value for value in column.unique().to_pylist() if value is not None)
        return tuple(sorted(values))
    return ()
