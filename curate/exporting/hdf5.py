"""One plain HDF5 file: every column a dataset at the top level, as in the shards, uncompressed, in chunks of rows."""

from __future__ import annotations

from pathlib import Path

import h5py

from curate.exporting.rows import Advance, blocks, column_types
from srood.files import replace_file
from srood.outliers import CHUNK_ROWS, OutlierSet


def write_hdf5(
    opened: OutlierSet, folder: Path, *, workers: int | None = None, advance: Advance | None = None
) -> list[Path]:
    """Write ``mini.hdf5`` of ``mini.h5``: the rows of all shards in one file.

    The suffix tells it from a manifest, which is an ``.h5``; ``h5py``, `datasets` and `srood.datasets` read both.

    Args:
        opened: the set.
        folder: an existing folder.
        workers: of no use here.
        advance: is told the number of rows of each block when it is written.

    Returns:
        the file.

    Raises:
        InputError: a column that cannot be exported, or a row whose pixels do not match their hash.
    """
    types, rows = column_types(opened), opened.num_rows
    path = folder / f"{opened.path.stem}.hdf5"

    def write(beside: Path) -> None:
        with h5py.File(beside, "w", libver=("v108", "v108")) as file:  # a fixed format: the same bytes everywhere
            chunk = min(CHUNK_ROWS, rows)
            shape = opened.image_shape
            images = file.create_dataset("image", (rows, *shape), "uint8", chunks=(chunk, *shape))
            others = {name: file.create_dataset(name, (rows,), kind, chunks=(chunk,)) for name, kind in types.items()}
            for shard in range(len(opened.manifest["shards"])):
                for block in blocks(opened, shard):
                    where = slice(block.first, block.first + len(block.images))
                    images[where] = block.images
                    for name, dataset in others.items():
                        dataset[where] = block.columns[name]
                    if advance:
                        advance(len(block.images))

    replace_file(path, write)
    return [path]
