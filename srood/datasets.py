"""Image sets by name: a spec is resolved to files, and the files are read as rows.

A spec is ``NAME[:SPLIT]`` of a named set (manifests/datasets), ``hf://owner/repo[@revision][:split]``, a folder (class
subfolders are labels), or a Parquet file. A named set is looked up in ``$SROOD_DATA/NAME/SPLIT*.parquet`` and then on
the Hugging Face Hub. A spec is resolved before any work starts, and what resolves nowhere says where it was looked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from srood import hub, images, manifests, parquet
from srood.errors import InputError

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
}


@dataclass(frozen=True)
class DatasetInfo:
    """What manifests/datasets says of a named set."""

    name: str
    title: str
    splits: dict[str, str]
    hub_repo: str | None = None
    hub_revision: str = "main"
    image_column: str | None = None
    label_column: str | None = None
    id_splits: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    license: str = "unknown"
    citation: str = ""


@dataclass(frozen=True)
class Row:
    """One image of a set, not yet decoded: `key` says where it came from, `label` is -1 where there is none."""

    key: str
    data: images.Encoded
    label: int


@dataclass(frozen=True)
class ImageSource:
    """A resolved spec: files that exist here, or on the Hub at a fixed commit, in a fixed order."""

    spec: str
    kind: str  # "parquet" or "folder"
    files: tuple[parquet.ParquetPart, ...] | tuple[Path, ...]
    origin: str  # for people: where the rows are read from
    class_names: tuple[str, ...] = ()
    columns: tuple[str | None, str | None] = (None, None)
    license: str = "unknown"
    citation: str = ""
    revision: str = ""

    @property
    def name(self) -> str:
        """What row keys begin with: the named set and split, ``owner/repo:split``, or a path's last component.

        It is the same wherever a named set is read from and however a path was written.
        """
        if self.spec.startswith("hf://"):
            address, _, split = self.spec.removeprefix("hf://").partition(":")
            return address.partition("@")[0] + (f":{split}" if split else "")
        return Path(os.path.abspath(self.spec)).name

    def num_rows(self) -> int:
        """Rows in the set; of files on the Hub only the footers are read, and once."""
        if self.kind == "folder":
            return len(self.files)
        return sum(part.num_rows() for part in self.files if isinstance(part, parquet.ParquetPart))

    def rows(self, start: int = 0) -> Iterator[Row]:
        """All rows from row number `start`, in the order of the files.

        Raises:
            InputError: a file is not the Parquet it claims to be, or lacks a column of images.
        """
        if self.kind == "folder":
            root = Path(self.spec)
            for path in self.files[start:]:
                assert isinstance(path, Path)
                relative = path.relative_to(root)
                label = self.class_names.index(relative.parts[0]) if len(relative.parts) > 1 else -1
                yield Row(f"{self.name}/{relative.as_posix()}", path, label)
            return
        for number, (data, label) in parquet.rows(self.files, self.columns, start, self.class_names):  # type: ignore[arg-type]
            yield Row(f"{self.name}#{number}", data, label)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the content of the files (Parquet) or their names and sizes (folder)."""
        digest = hashlib.sha256()
        for entry in self.files:
            if isinstance(entry, Path):
                digest.update(f"{entry.relative_to(self.spec).as_posix()}\0{entry.stat().st_size}\n".encode())
            else:
                digest.update(entry.sha256().encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Images:
    """A whole set, decoded: `images` (N, H, W, 3) uint8, `labels` (N,) int64 with -1 for none."""

    spec: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    skipped: dict[str, int] = field(default_factory=dict)


@cache
def dataset_info(name: str) -> DatasetInfo | None:
    """What is known of a named set, or None where there is no such name."""
    path = manifests.find("datasets", name)
    if path is None:
        return None
    entry: dict[str, Any] = manifests.read_yaml(path)
    on_hub = entry.get("hub") or {}
    columns = entry.get("columns") or {}

    def triple(key: str) -> tuple[float, float, float] | None:
        value = entry.get(key)
        return (float(value[0]), float(value[1]), float(value[2])) if value else None

    return DatasetInfo(
        name=name,
        title=entry.get("title", name),
        splits=dict(entry.get("splits") or {}),
        hub_repo=on_hub.get("repo"),
        hub_revision=on_hub.get("revision") or "main",
        image_column=columns.get("image"),
        label_column=columns.get("label"),
        id_splits=tuple(entry.get("id_splits") or ()),
        class_names=tuple(str(c) for c in entry.get("classes") or ()),
        mean=triple("mean"),
        std=triple("std"),
        license=str(entry.get("license") or "unknown"),
        citation=str(entry.get("citation") or ""),
    )


def id_specs(name: str) -> tuple[str, str | None]:
    """Specs of the train and test images of an ID set: a named set, or a folder (its train/ and test/ if it has them).

    Raises:
        InputError: neither a named ID set nor a folder.
    """
    info = dataset_info(name)
    if info is not None:
        if len(info.id_splits) != 2:
            known = [n for n in manifests.names("datasets") if (i := dataset_info(n)) and i.id_splits]
            raise InputError(f"--id {name}: has no train and test split to be an ID set; one of {', '.join(known)}")
        return f"{name}:{info.id_splits[0]}", f"{name}:{info.id_splits[1]}"
    root = Path(name)
    if not root.is_dir():
        raise InputError(f"--id {name}: neither a named set ({', '.join(manifests.names('datasets'))}) nor a folder")
    for train, test in (("train", "test"), ("train", "val"), ("train", "valid")):
        if (root / train).is_dir() and (root / test).is_dir():
            return str(root / train), str(root / test)
    for suffix in ("test", "val", "valid"):
        if (root / "train.parquet").is_file() and (root / f"{suffix}.parquet").is_file():
            return str(root / "train.parquet"), str(root / f"{suffix}.parquet")
    return str(root), None


def resolve(spec: str) -> ImageSource:
    """Find the files of a spec, reading no images.

    Raises:
        InputError: the spec resolves nowhere; the message lists each place that was tried.
    """
    if spec.startswith("hf://"):
        return _resolve_hub(spec)
    path = Path(spec)
    if path.is_file() and path.suffix == ".parquet":
        part = parquet.ParquetPart(path=path)
        return ImageSource(spec, "parquet", (part,), "a local file", parquet.class_names([part], (None, None)))
    if path.is_dir():
        return _resolve_folder(spec, path)
    if path.is_file():
        raise InputError(f"{spec}: is not a Parquet file, a folder or a named set; other formats are not read yet")
    name, _, split = spec.partition(":")
    info = dataset_info(name)
    if info is None:
        raise InputError(
            f"{spec}: no such file, folder or named set; named sets are {', '.join(manifests.names('datasets'))}"
        )
    return _resolve_named(spec, info, split)


def _resolve_named(spec: str, info: DatasetInfo, split: str) -> ImageSource:
    if not split:
        split = "test" if "test" in info.splits else next(iter(info.splits), "")
    if split not in info.splits:
        raise InputError(f"{spec}: {info.name} has no split '{split}'; it has {', '.join(info.splits) or 'none'}")
    tried = []
    columns = (info.image_column, info.label_column)
    common = {"license": info.license, "citation": info.citation}
    root = os.environ.get("SROOD_DATA")
    if root:
        pattern = f"{info.name}/{split}*.parquet"
        local = tuple(parquet.ParquetPart(path=p) for p in sorted(Path(root).glob(pattern)))
        if local:
            names = info.class_names or parquet.class_names(local, columns)
            return ImageSource(
                f"{info.name}:{split}", "parquet", local, f"$SROOD_DATA/{pattern}", names, columns, **common
            )
        tried.append(f"$SROOD_DATA/{pattern} (no such file)")
    else:
        tried.append("$SROOD_DATA (not set)")
    if info.hub_repo is None:
        tried.append("the Hub (no Parquet copy is known)")
    else:
        try:
            found = hub.listing(info.hub_repo, info.hub_revision)
            remote = tuple(parquet.ParquetPart(remote=file) for file in hub.matching(found, info.splits[split]))
            names = parquet.class_names(remote, columns)  # also asks whether the files may be read
            return ImageSource(
                f"{info.name}:{split}",
                "parquet",
                remote,
                f"hf://{info.hub_repo}@{found.commit[:12]}",
                info.class_names or names,
                columns,
                revision=found.commit,
                **common,
            )
        except InputError as error:
            tried.append(str(error))
    raise InputError(f"{spec}: not found; tried {'; '.join(tried)}")


def place(spec: str) -> str:
    """Where a named set's split would be read from, for people; the Hub is not asked."""
    name, _, split = spec.partition(":")
    info = dataset_info(name)
    if info is None:
        return "nowhere: no such named set"
    root = os.environ.get("SROOD_DATA")
    if root and split and any(Path(root).glob(f"{name}/{split}*.parquet")):
        return f"$SROOD_DATA/{name}/{split}*.parquet"
    if info.hub_repo and split in info.splits:
        return f"hf://{info.hub_repo}@{info.hub_revision[:12]}/{info.splits[split]}"
    return f"not on the Hub; put {name}/SPLIT.parquet under $SROOD_DATA, or name a folder"


def _resolve_hub(spec: str) -> ImageSource:
    address, _, split = spec.removeprefix("hf://").partition(":")
    repo, _, revision = address.partition("@")
    if repo.count("/") != 1:
        raise InputError(f"{spec}: is not hf://owner/repo[@revision][:split]")
    found = hub.listing(repo, revision or "main")
    parts = tuple(parquet.ParquetPart(remote=file) for file in hub.parquet_of(found, split))
    names = parquet.class_names(parts, (None, None))
    fixed = f"hf://{repo}@{found.commit}" + (f":{split}" if split else "")
    return ImageSource(fixed, "parquet", parts, fixed, names, license=found.license, revision=found.commit)


def _resolve_folder(spec: str, root: Path) -> ImageSource:
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(folder, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        tables = sorted(root.glob("*.parquet"))
        if tables:
            parts = tuple(parquet.ParquetPart(path=p) for p in tables)
            return ImageSource(spec, "parquet", parts, "a local folder", parquet.class_names(parts, (None, None)))
        raise InputError(f"{spec}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no Parquet")
    files.sort(key=lambda path: path.relative_to(root).as_posix())
    classes = sorted({p.relative_to(root).parts[0] for p in files if len(p.relative_to(root).parts) > 1})
    return ImageSource(spec, "folder", tuple(files), "a local folder", tuple(classes))


def load_images(spec: str, image_size: int | None = 32, workers: int | None = None) -> Images:
    """Read and decode a whole set into memory.

    Args:
        spec: an image spec (see the module).
        image_size: side of the images; None keeps their own size, which must then be one and square.
        workers: decoding threads; by default one per processor.

    Raises:
        InputError: the spec resolves nowhere, or no image of it can be decoded.
    """
    source = resolve(spec)
    size = image_size or _native_size(source)
    arrays, labels, skipped = [], [], dict[str, int]()
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for batch in batched(source.rows(), 4096):
            decoded, reasons = images.decode_batch([row.data for row in batch], size, pool)
            good = np.array([reason is None for reason in reasons])
            arrays.append(decoded[good])
            labels += [row.label for row, reason in zip(batch, reasons, strict=True) if reason is None]
            for reason in reasons:
                if reason is not None:
                    skipped[reason] = skipped.get(reason, 0) + 1
    if not labels:
        raise InputError(f"{spec}: none of its images can be decoded ({skipped or 'it is empty'})")
    stacked = np.concatenate(arrays)
    pa.default_memory_pool().release_unused()  # the encoded images, as many bytes again
    return Images(
        source.spec, stacked, np.array(labels, np.int64), source.class_names, content_fingerprint(stacked), skipped
    )


def content_fingerprint(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's shape, type and bytes."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def batched(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Lists of `size` consecutive rows; the last may be shorter."""
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _native_size(source: ImageSource) -> int:
    first = next(source.rows(), None)
    if first is None:
        raise InputError(f"{source.spec}: holds no rows")
    try:
        width, height = images.decode(first.data).size
    except images.BadImage as reason:
        raise InputError(f"{source.spec}: its first image is {reason}; give the image size") from reason
    if width != height:
        raise InputError(f"{source.spec}: images are {width}x{height}, not square; give the image size")
    return width
