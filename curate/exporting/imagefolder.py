"""A folder of PNG files: ``train/LABEL/000000012.png``, and every other column in ``train/metadata.parquet``.

Of the tables that `datasets` reads beside images (https://huggingface.co/docs/datasets/image_dataset) Parquet alone
keeps types: in CSV a key of digits becomes a number and ``NA`` nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from curate.exporting import class_folders, png
from curate.exporting.parquet import features, open_writer, to_table
from curate.exporting.rows import Advance, blocks, class_names, row_name
from srood.outliers import OutlierSet

MAX_FILES = 10_000  # of a folder


def write_imagefolder(
    opened: OutlierSet, folder: Path, *, workers: int | None = None, advance: Advance | None = None
) -> list[Path]:
    """Write ``train/`` with the pictures, in a folder for each label, and ``metadata.parquet``.

    Rows without a label are in ``unlabelled``. A label of more than 10,000 rows has folders ``00000``, ``00001``, ...
    of 10,000 each. `curate.exporting.class_folders` says what becomes of labels that are no file names.

    Args:
        opened: the set.
        folder: an existing folder.
        workers: threads that encode and write; by default one per processor.
        advance: is told the number of rows of each block when it is written.

    Returns:
        the table and the pictures, in the order of the rows.

    Raises:
        InputError: a column that cannot be exported, or a row whose pixels do not match their hash.
    """
    root = folder / "train"
    root.mkdir()
    described = {"file_name": {"dtype": "string", "_type": "Value"}, **features(opened, images=False)}
    names = file_names(opened.read("label"), class_names(opened).get("label"))
    for parent in sorted({name.rpartition("/")[0] for name in names}):
        (root / parent).mkdir(parents=True)
    table = root / class_folders.TABLE
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool, open_writer(table, described) as writer:
        for shard in range(len(opened.manifest["shards"])):
            for block in blocks(opened, shard):
                here = names[block.first : block.first + len(block.images)]
                list(pool.map(_write_some, *_parts([root / name for name in here], block.images)))
                writer.write_table(to_table({"file_name": here, **block.columns}, described))
                if advance:
                    advance(len(here))
    return [table, *(root / name for name in names)]


def file_names(labels: np.ndarray, names: list[str] | None) -> list[str]:
    """The path of each row's picture below ``train/``, with slashes; without `names` labels are called by number."""
    folders = dict(enumerate(class_folders.folder_names(names))) if names else {}
    total = Counter(labels.tolist())
    done: Counter[int] = Counter()
    found = []
    for row, label in enumerate(labels.tolist()):
        parent = class_folders.UNLABELLED if label < 0 else folders.get(label, str(label))
        if total[label] > MAX_FILES:
            parent += f"/{done[label] // MAX_FILES:05d}"
            done[label] += 1
        found.append(f"{parent}/{row_name(row)}.png")
    return found


def _parts(paths: list[Path], images: np.ndarray) -> tuple[list[list[Path]], list[np.ndarray]]:
    starts = range(0, len(paths), 32)
    return [paths[start : start + 32] for start in starts], [images[start : start + 32] for start in starts]


def _write_some(paths: list[Path], images: np.ndarray) -> None:
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(png.encode(image))
