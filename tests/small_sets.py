"""Small outlier sets that `curate build` makes, to make sets from; and their rows as h5py reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pictures import encode, pictures, write_parquet

from curate.build import build
from curate.config import BuildConfig
from curate.deriving.parents import COLUMNS
from srood import outliers

REPEATED, COPIED = 30, 10  # rows of the first corpus that the second has too, to the pixel and changed


def make(root: Path) -> Path:
    """An ID set, and in folders of their names the sets `a`, `b` of another corpus and `c` of the first, other seed.

    The second corpus repeats 30 pictures of the first and has changed copies of 10 more. `a` alone was checked against
    a further protected set.
    """
    ident, first = pictures(160, seed=1), pictures(180, seed=2)
    names = ["cat", "truck"]
    write_parquet(root / "id" / "train.parquet", ident[:120], [i % 2 for i in range(120)], names)
    write_parquet(root / "id" / "test.parquet", ident[120:], [i % 2 for i in range(40)], names)
    write_parquet(root / "ood.parquet", pictures(20, seed=4), [0] * 20)
    labels = [row % 4 for row in range(180)]
    write_parquet(
        root / "first.parquet", list(first), labels, ("house", "elm tree", "tabby cat", "n04285008 sports car")
    )
    changed = [encode(picture[:, ::-1], "JPEG", quality=85) for picture in first[REPEATED : REPEATED + COPIED]]
    second = [*first[:REPEATED], *changed, *pictures(90, seed=3)]
    write_parquet(root / "second.parquet", second, [row % 3 for row in range(130)], ("lamp", "elm tree", "tabby cat"))
    build(config(root, "a", "first.parquet", size=150, protect=(str(root / "ood.parquet"),)))
    build(config(root, "b", "second.parquet", size=120))
    build(config(root, "c", "first.parquet", size=100, seed=1))
    return root


def config(root: Path, name: str, source: str, **changes: Any) -> BuildConfig:
    small = {"shard_rows": 64, "workers": 1, "calibration_images": 40, "exclude_labels": "none", "clusters": 5}
    values = {"source": (str(root / source),), "id": str(root / "id"), "out": root / name / "mini.h5"}
    return BuildConfig(**{**values, **small, **changes})


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest, by h5py alone."""
    with h5py.File(path) as file:
        return json.loads(file["manifest"][()])


def rows_of(path: Path) -> dict[str, np.ndarray]:
    """Every column, by h5py alone; `name` is the label's, empty for none."""
    manifest, parts = manifest_of(path), []
    for entry in manifest["shards"]:
        with h5py.File(path.parent / entry["file"]) as file:
            parts.append({name: file[name][:] for name in file})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["name"] = np.array([manifest["label_names"][n] if n >= 0 else "" for n in columns["label"]])
    return columns


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rewrite(source: Path, out: Path, change: Callable[..., Any], shard_rows: int = 1000, **fields: Any) -> Path:
    """A set with the rows of another, changed: `change` takes and returns columns."""
    of = rows_of(source)
    columns = change({name: of[name] for name in COLUMNS if name in of})
    count = -(-len(columns["key"]) // shard_rows)
    parts = [slice(start, start + shard_rows) for start in range(0, len(columns["key"]), shard_rows)]
    manifest = manifest_of(source) | fields
    for name in ("shards", "rows", "evidence", "format", "schema_version"):
        manifest.pop(name)
    scratch = out.parent / "scratch"
    scratch.mkdir(parents=True)
    shards = ({name: values[part] for name, values in columns.items()} for part in parts)
    outliers.write_set(out, shards, count, manifest, scratch)
    return out
