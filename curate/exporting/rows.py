"""The rows of an outlier set as they are exported: in order, by blocks that fit in memory, the pixels checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from srood.errors import InputError
from srood.hashes import pixel_sha256
from srood.hdf5 import open_plain
from srood.outlier_checks import REQUIRED
from srood.outliers import OutlierSet

BLOCK_ROWS = 1000
BLOCK_BYTES = 32 << 20  # of pixels

Advance = Callable[[int], object]  # is told how many more rows are done


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one shard: `first` is the number of the first in the set.

    `images` is (n, H, W, 3) uint8, `columns` has the other columns by name, (n,) each.
    """

    first: int
    images: np.ndarray
    columns: dict[str, np.ndarray]


def row_name(row: int) -> str:
    """What a row's picture is called in every format, without a suffix: its number, and no dot."""
    return f"{row:09d}"


def block_rows(opened: OutlierSet) -> int:
    """Rows of a block: 1,000, or as many as have 32 MiB of pixels."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // int(np.prod(opened.image_shape))))


def column_types(opened: OutlierSet) -> dict[str, np.dtype]:
    """NumPy type of every column but ``image``, in the order of export; of text the widest of all shards.

    Raises:
        InputError: the set holds no rows, a column is neither text nor one number a row, or shards differ in columns.
    """
    found: dict[str, np.dtype] = {}
    for number, entry in enumerate(opened.manifest["shards"]):
        path = opened.path.parent / entry["file"]
        with open_plain(path) as file:
            others = sorted(name for name in file if name not in REQUIRED)
            types = {name: file[name].dtype for name in (*REQUIRED[1:], *others) if name in file}
            for name, kind in types.items():
                if kind.kind not in "biufS" or file[name].shape != file["image"].shape[:1]:
                    raise InputError(f"{path}: column '{name}' is neither text nor one number a row; leave it out")
        if number and types.keys() != found.keys():
            differing = sorted(types.keys() ^ found.keys())
            raise InputError(f"{path}: has other columns than the first shard ({', '.join(differing)}); build it again")
        found = {name: np.result_type(found.get(name, kind), kind) for name, kind in types.items()}
    if not opened.num_rows or not found:
        raise InputError(f"{opened.path}: holds no rows; build it again with a larger corpus or weaker filters")
    return found


def class_names(opened: OutlierSet) -> dict[str, list[str]]:
    """Names of the classes that ``label`` and ``id_class`` number, where the set has them.

    Names that repeat, or are fewer than the numbers that occur, are left out: readers refuse such classes.
    """
    manifest = opened.manifest
    given = {
        "label": manifest.get("label_names") or (),
        "id_class": (manifest.get("id_filter") or {}).get("id_class_names") or (),
    }
    return {
        column: [str(name) for name in names]
        for column, names in given.items()
        if names and len(set(names)) == len(names) and opened.read(column).max() < len(names)
    }


def names_of(values: np.ndarray, names: Sequence[str]) -> list[str]:
    """The class of each row, or empty text where it has none: readers that guess types take no null for text."""
    return [names[value] if value >= 0 else "" for value in values.tolist()]


def blocks(opened: OutlierSet, shard: int) -> Iterator[Block]:
    """The rows of one shard.

    Raises:
        InputError: a row's pixels are not those that its SHA-256 was made of, or the shard cannot be read.
    """
    entry = opened.manifest["shards"][shard]
    before = sum(other["rows"] for other in opened.manifest["shards"][:shard])
    path, step = opened.path.parent / entry["file"], block_rows(opened)
    with open_plain(path) as file:
        for start in range(0, entry["rows"], step):
            columns = {name: file[name][start : start + step] for name in file}
            images = columns.pop("image")
            for offset, (image, stored) in enumerate(zip(images, columns["sha256"].tolist(), strict=True)):
                if pixel_sha256(image).encode() != stored:
                    row = start + offset
                    raise InputError(f"{path}: row {row}: the pixels do not match their SHA-256; build the set again")
            yield Block(before + start, images, columns)


def to_python(values: np.ndarray) -> list:
    """A column as Python's numbers, or text.

    Raises:
        InputError: text that is no UTF-8.
    """
    if values.dtype.kind != "S":
        return values.tolist()
    try:
        return [value.decode() for value in values.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"a text of the set, {error.object!r}, is no UTF-8; build the set again") from error
