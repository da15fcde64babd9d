"""Parquet as the Hugging Face Hub stores image sets: a struct of PNG bytes and a name, and every other column.

The schema's metadata hold the features (https://huggingface.co/docs/datasets/about_dataset_features), so that
`datasets.load_dataset` gives `Image` and `ClassLabel` and the Hub's viewer shows pictures. A row group is what a reader
must fetch to show one row: at most 1,000 rows and 32 MiB of pixels, far below the 300 MB that the viewer reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.exporting import png
from curate.exporting.rows import Advance, Block, blocks, class_names, column_types, row_name, to_python
from srood.files import replace_file
from srood.outliers import OutlierSet

Features = dict[str, dict[str, Any]]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def features(opened: OutlierSet, images: bool = True) -> Features:
    """Name to feature of each column, in the JSON form of `datasets.Features.to_dict`.

    ``label`` and ``id_class`` are a ``ClassLabel`` where the manifest has names for all their numbers.

    Raises:
        InputError: a column that cannot be exported.
    """
    names = class_names(opened)
    found: Features = {"image": {"_type": "Image"}} if images else {}
    for column, kind in column_types(opened).items():
        if column in names:
            found[column] = {"names": names[column], "_type": "ClassLabel"}
        else:
            found[column] = {"dtype": "string" if kind.kind == "S" else kind.name, "_type": "Value"}
    return found


def write_parquet(
    opened: OutlierSet,
    folder: Path,
    *,
    split: str = "train",
    images: bool = True,
    workers: int | None = None,
    advance: Advance | None = None,
) -> list[Path]:
    """Write ``SPLIT-00000-of-00002.parquet``, one file for each shard of the set, each whole or not there.

    The name in the image's struct is that of the row, ``000000012.png``: readers that write pictures to files need one,
    and it is the same in every export.

    Args:
        opened: the set; every row's pixels are compared with its SHA-256, exported or not.
        folder: an existing folder.
        split: what the names begin with; `datasets` takes it for the split.
        images: False leaves the column ``image`` out.
        workers: threads that encode; by default one per processor. The bytes do not depend on it.
        advance: is told the number of rows of each block when it is written.

    Returns:
        the files, in the order of the shards.

    Raises:
        InputError: a column that cannot be exported, or a row whose pixels do not match their hash.
    """
    described = features(opened, images)
    count = len(opened.manifest["shards"])
    paths = [folder / f"{split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for number, path in enumerate(paths):

            def write(beside: Path, number: int = number) -> None:
                with open_writer(beside, described) as writer:
                    for block in blocks(opened, number):
                        pictures = {"image": _images(block, pool)} if images else {}
                        writer.write_table(to_table({**pictures, **block.columns}, described))
                        if advance:
                            advance(len(block.images))

            replace_file(path, write)
    return paths


def open_writer(path: Path, described: Features) -> pq.ParquetWriter:
    """A writer for tables of these features; with an index of pages, so that a reader finds a row without its group."""
    different = [name for name, feature in described.items() if feature.get("dtype") == "string"]
    return pq.ParquetWriter(
        path,
        _schema(described),
        compression={"image.bytes" if name == "image" else name: _compression(name) for name in described},
        use_dictionary=[name for name in described if name != "image" and name not in different],
        write_page_index=True,
    )


def to_table(columns: Mapping[str, Any], described: Features) -> pa.Table:
    """Columns, arrays of NumPy or Arrow or lists, as an Arrow table of their features."""
    schema = _schema(described)
    arrays = {}
    for name in described:
        values = columns[name]
        if isinstance(values, np.ndarray) and values.dtype.kind == "S":
            values = to_python(values)
        arrays[name] = values if isinstance(values, pa.Array) else pa.array(values, schema.field(name).type)
    return pa.table(arrays, schema)


def _images(block: Block, pool: Executor) -> pa.StructArray:
    names = [f"{row_name(block.first + offset)}.png" for offset in range(len(block.images))]
    data = pa.array(png.encode_all(block.images, pool), pa.binary())
    return pa.StructArray.from_arrays([data, pa.array(names)], fields=list(IMAGE))


def _schema(described: Features) -> pa.Schema:
    fields = [pa.field(name, _arrow_type(feature)) for name, feature in described.items()]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": described}})})


def _arrow_type(feature: Mapping[str, Any]) -> pa.DataType:
    if feature["_type"] == "Image":
        return IMAGE
    return pa.int64() if feature["_type"] == "ClassLabel" else pa.type_for_alias(feature["dtype"])


def _compression(name: str) -> str:
    return "none" if name == "image" else "snappy"  # PNG is compressed already
