"""WebDataset tars: for each row ``000000012.png`` and ``000000012.json`` (https://github.com/webdataset/webdataset).

Members that share a name up to its first dot are one sample, so that a row's key cannot be its name; it is in the JSON.
"""

from __future__ import annotations

import io
import json
import math
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curate.exporting import png
from curate.exporting.rows import Advance, Block, blocks, class_names, column_types, names_of, row_name, to_python
from srood.files import replace_file
from srood.outliers import OutlierSet

SPLIT = "train"  # `datasets` finds the tars of a folder by it


def write_webdataset(
    opened: OutlierSet, folder: Path, *, workers: int | None = None, advance: Advance | None = None
) -> list[Path]:
    """Write ``train-00000-of-00002.tar``, one tar for each shard of the set.

    The JSON has every other column, and where the manifest has names ``label_name`` and ``id_class_name``, empty for a
    row without a label. A number that JSON cannot hold (NaN, infinities) is null.

    Args:
        opened: the set.
        folder: an existing folder.
        workers: threads that encode; by default one per processor. The bytes do not depend on it.
        advance: is told the number of rows of each block when it is written.

    Returns:
        the tars, in the order of the shards.

    Raises:
        InputError: a column that cannot be exported, or a row whose pixels do not match their hash.
    """
    names, order = class_names(opened), list(column_types(opened))
    count = len(opened.manifest["shards"])
    paths = [folder / f"{SPLIT}-{number:05d}-of-{count:05d}.tar" for number in range(count)]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for number, path in enumerate(paths):

            def write(beside: Path, number: int = number) -> None:
                with tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as archive:
                    for block in blocks(opened, number):
                        texts = _texts(block, order, names)
                        for offset, data in enumerate(png.encode_all(block.images, pool)):
                            _add(archive, f"{row_name(block.first + offset)}.png", data)
                            _add(archive, f"{row_name(block.first + offset)}.json", next(texts).encode())
                        if advance:
                            advance(len(block.images))

            replace_file(path, write)
    return paths


def _texts(block: Block, order: list[str], names: dict[str, list[str]]) -> Iterator[str]:
    columns: dict[str, list] = {}
    for name in order:
        columns[name] = [None if _is_no_json(value) else value for value in to_python(block.columns[name])]
        if name in names:
            columns[f"{name}_name"] = names_of(block.columns[name], names[name])
    for values in zip(*columns.values(), strict=True):
        yield json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False, allow_nan=False)


def _is_no_json(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner: the same bytes everywhere
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
