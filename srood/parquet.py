"""Image rows of Parquet files in the Hugging Face Hub's layout: a column of images, a column of labels."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srood import hub_errors
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.hub import HubFile
from srood.labels import whole_label

Columns = tuple[str | None, str | None]  # image, label; None to find it
IMAGE_NAMES = ("image", "img", "png", "jpg", "webp", "picture")
LABEL_NAMES = ("label", "fine_label", "labels", "class", "cls")
BATCH_ROWS, BATCH_BYTES = 256, 64 << 20  # encoded images held at a time, at the most
DOWNLOAD = 16 << 20  # bytes up to which a file is downloaded rather than streamed: one request, and kept


@dataclass(frozen=True)
class ParquetPart:
    """One Parquet file, here (`path`) or on the Hub (`remote`)."""

    path: Path | None = None
    remote: HubFile | None = None

    def __str__(self) -> str:
        return str(self.path or self.remote)

    def local(self) -> Path:
        """The file's path on this machine, downloading it if need be."""
        if self.path is not None:
            return self.path
        assert self.remote is not None
        return self.remote.fetch()

    def open(self) -> pq.ParquetFile:
        """The file, without downloading it: of one on the Hub only the bytes that are asked for are requested."""
        path = self.path
        if path is None and self.remote is not None:
            path = self.remote.cached()
            if path is None:
                return open_parquet(self.remote.open(), str(self))
        assert path is not None
        return open_parquet(path, str(self))

    def open_rows(self, stream: bool) -> pq.ParquetFile:
        """The file to read rows from: by ranges if it is to be streamed and worth it, else on this machine."""
        if stream and self.remote is not None and self.remote.size > DOWNLOAD and self.remote.cached() is None:
            return open_parquet(self.remote.open(hub_errors.PATIENT), str(self))
        return open_parquet(self.local(), str(self))

    @cached_property
    def footer(self) -> tuple[pq.FileMetaData, pa.Schema]:
        """The file's footer and its schema, read once.

        Raises:
            InputError: the file cannot be read or is not Parquet.
        """
        with self.open() as file:
            return file.metadata, file.schema_arrow

    def num_rows(self) -> int:
        """Rows, from the file's footer."""
        return self.footer[0].num_rows

    def sha256(self) -> str:
        """SHA-256 (hex) of the file's bytes; of a file on the Hub as the Hub states it."""
        if self.remote is not None and self.remote.sha256:
            return self.remote.sha256
        return file_sha256(self.local())


def open_parquet(file: Path | io.RawIOBase, name: str) -> pq.ParquetFile:
    """Open a file and read its footer; `name` is what messages call it.

    Raises:
        InputError: it cannot be read or is not Parquet.
    """
    try:
        opened = pq.ParquetFile(file, pre_buffer=True)
        _ = opened.schema_arrow.names  # text, which may be damaged too
        return opened
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(name, error) from error


def rows(
    parts: Sequence[ParquetPart], columns: Columns, start: int = 0, names: Sequence[str] = (), stream: bool = False
) -> Iterator[tuple[int, tuple[bytes, int]]]:
    """Yield (row number over all parts, (encoded image, label)) from row `start` on; label -1 where there is none.

    Files and row groups that lie before `start` are not read, and files on the Hub not downloaded. With `stream` no
    large file on the Hub is: its row groups are requested one by one as they are reached.

    Raises:
        InputError: a file cannot be read or lacks an image column.
    """
    number = 0
    indices = {name: index for index, name in enumerate(names)}
    for part in parts:
        if number < start and number + part.num_rows() <= start:
            number += part.num_rows()
            continue
        with part.open_rows(stream) as file:
            image_column, label_column = find_columns(file.schema_arrow, columns, part)
            _check_alike(parts, part, file.schema_arrow, columns)
            groups: list[int] = []
            for group in range(file.num_row_groups):
                in_group = file.metadata.row_group(group).num_rows
                if not groups and number + in_group <= start:
                    number += in_group
                else:
                    groups.append(group)
            wanted = [image_column] + ([label_column] if label_column else [])
            for batch in _batches(file, groups, wanted, part, image_column):
                skip = min(max(0, start - number), batch.num_rows)
                number += skip
                batch = batch.slice(skip)
                data = _image_bytes(batch.column(image_column))
                labels = _values(batch.column(label_column), part) if label_column else [None] * batch.num_rows
                for item, label in zip(data, labels, strict=True):
                    index = indices.get(label, -1) if isinstance(label, str) else whole_label(label, str(part))
                    yield number, (item, index)
                    number += 1


def _batches(
    file: pq.ParquetFile, groups: list[int], columns: list[str], part: ParquetPart, image: str = ""
) -> Iterator[pa.RecordBatch]:
    try:
        for group in groups:  # one at a time: of several, those to come would be read ahead into memory
            size = _batch_rows(file.metadata.row_group(group), image, part)
            yield from file.iter_batches(size, row_groups=[group], columns=columns)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(str(part), error) from error


def _batch_rows(group: pq.RowGroupMetaData, image: str, part: ParquetPart) -> int:
    """Rows to take at a time: fewer than usual where images are large, or repeat a large one of a dictionary."""
    row = 1
    for number in range(group.num_columns if image else 0):
        chunk = group.column(number)
        if chunk.path_in_schema.partition(".")[0] == image:
            row = max(row, chunk.total_uncompressed_size // max(1, group.num_rows), _dictionary_bytes(chunk, part))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // row))


def _dictionary_bytes(chunk: pq.ColumnChunkMetaData, part: ParquetPart) -> int:
    """Size of a dictionary, which one of its values may have; 0 where it is not known.

    It stands in the page's header (parquet.thrift: PageHeader, compact protocol): a type, then the size, as zigzag
    varints that follow a byte 0x15 each. Of a file on the Hub it is not asked for.
    """
    path = part.path or (part.remote.cached() if part.remote is not None else None)
    if path is None or not chunk.has_dictionary_page or chunk.dictionary_page_offset is None:
        return 0
    with open(path, "rb") as file:
        file.seek(max(0, chunk.dictionary_page_offset))
        header = file.read(16)
    if header[:1] != b"\x15" or header[2:3] != b"\x15":
        return 0
    value = 0
    for shift, byte in enumerate(header[3:8]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            break
    return value >> 1


def _values(column: pa.Array, part: ParquetPart) -> list[Any]:
    try:
        return column.to_pylist()
    except ValueError as error:  # text that is no UTF-8
        raise _unreadable(str(part), error) from error


def _unreadable(name: str, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{name}: cannot be read as Parquet ({reason}); fetch it again")


def _image_bytes(column: pa.Array) -> list[bytes]:
    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    return [item if item is not None else b"" for item in column.to_pylist()]


def find_columns(schema: pa.Schema, columns: Columns, part: ParquetPart) -> tuple[str, str | None]:
    """Names of the image and label columns: those given where the file has them, else by name and type.

    Raises:
        InputError: no column holds images.
    """

    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{part}: has two columns of one name ({', '.join(schema.names)}); write it again")

    def holds_images(name: str) -> bool:
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        kind = _plain(kind)
        tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
        return any(test(kind) for test in tests)

    def holds_labels(name: str) -> bool:
        kind = schema.field(name).type
        return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or _is_text(kind)

    candidates = [name for name in (columns[0], *IMAGE_NAMES, *schema.names) if name in schema.names]
    image = next((name for name in candidates if name is not None and holds_images(name)), None)
    if image is None:
        has = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"{part}: has no column of images (binary, or a struct with 'bytes') among {has}")
    candidates = [name for name in (columns[1], *LABEL_NAMES) if name in schema.names]
    label = next((name for name in candidates if name is not None and holds_labels(name)), None)
    return image, label


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _check_alike(parts: Sequence[ParquetPart], part: ParquetPart, schema: pa.Schema, columns: Columns) -> None:
    """Labels of all files must be words, or numbers: the numbers of words come from all files together."""
    if part is parts[0]:
        return
    theirs, ours = _label_type(schema, columns, part), _label_type(parts[0].footer[1], columns, parts[0])
    if ours is not None and theirs is not None and _is_text(ours) != _is_text(theirs):
        raise InputError(f"{part}: its labels are {theirs}, those of {parts[0]} {ours}; write one kind")


def _label_type(schema: pa.Schema, columns: Columns, part: ParquetPart) -> pa.DataType | None:
    label = find_columns(schema, columns, part)[1]
    return None if label is None else schema.field(label).type


def class_names(parts: Sequence[ParquetPart], columns: Columns) -> tuple[str, ...]:
    """Class names: from the Hub's schema metadata, or, for a column of strings, its sorted distinct values.

    Only the first file's footer is read, and for strings the label column of all files.

    Raises:
        InputError: a file cannot be read, or the first lacks an image column.
    """
    if not parts:
        return ()
    _, schema = parts[0].footer
    _, label = find_columns(schema, columns, parts[0])
    if label is None:
        return ()
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata:
        try:
            features: dict[str, Any] = json.loads(metadata).get("info", {}).get("features", {})
            names = (features.get(label) or {}).get("names")
        except (ValueError, AttributeError, RecursionError) as error:
            raise _unreadable(str(parts[0]), error) from error
        if names:
            return tuple(str(name) for name in names)
    if not _is_text(schema.field(label).type):
        return ()
    values: set[str] = set()
    for part in parts:
        with part.open() as file:
            _check_alike(parts, part, file.schema_arrow, columns)
            for batch in _batches(file, list(range(file.num_row_groups)), [label], part):
                column = batch.column(0)
                if not pa.types.is_string_view(column.type):  # of which Arrow makes "" where there is none
                    column = column.unique()
                values.update(value for value in _values(column, part) if value is not None)
    return tuple(sorted(values))
