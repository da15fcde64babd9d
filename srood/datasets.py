"""Image sets by name: a spec is resolved to a container of images, and its rows are read.

A spec is ``NAME[:SPLIT]`` of a named set (manifests/datasets), ``hf://owner/repo[@revision][:split]``, a folder (class
subfolders are labels), or a file: .parquet, .zip, .tar, .h5, .npy, .txt (a list of paths), or 80 Million Tiny Images'
tiny_images.bin; srood.containers has a module for each. A named set is looked up in ``$SROOD_DATA/NAME/SPLIT*.parquet``
and then on the Hugging Face Hub. A spec is resolved before any work starts, and what resolves nowhere says where it was
looked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from srood import hub, images, manifests, parquet, splits
from srood.containers import Container, Row, open_container, parquet_file
from srood.errors import InputError
from srood.named_sets import DatasetInfo, dataset_info

HELD = 128 << 20  # bytes of images that are held before they are decoded


@dataclass(frozen=True)
class ImageSource:
    """A resolved spec: images that exist here, or on the Hub at a fixed commit, in a fixed order."""

    spec: str
    container: Container
    origin: str  # for people: where the rows are read from
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

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels; empty where labels are bare numbers or there are none."""
        return self.container.class_names

    def num_rows(self) -> int:
        """Rows in the set; of files on the Hub only the footers are read, and once."""
        return self.container.num_rows()

    def rows(self, start: int = 0, max_bytes: int = images.MAX_BYTES) -> Iterator[Row]:
        """All rows from row number `start`, in the order of the files; those before are not decoded.

        Keys begin with the set's name: ``cifar10:train#12``, ``archive.zip/dir/img.png``, ``file.npy#12``.

        Raises:
            InputError: a file cannot be read as what it claims to be.
        """
        name = self.name
        for row in self.container.rows(start, max_bytes):
            yield Row(name + row.key, row.data, row.label)

    def fingerprint(self) -> str:
        """SHA-256 (hex) that changes when the rows do: over the content of files, or names and sizes in a folder.

        It stays what it was when first asked for: a file that changes later is not what was read.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return self.container.fingerprint()


@dataclass(frozen=True)
class Images:
    """A whole set, decoded: `images` (N, H, W, 3) uint8, `labels` (N,) int64 with -1 for none.

    Images that cannot be used are left out and counted in `skipped`; `rows` int64 (N,) and `keys` are the row numbers
    and keys, in the set as it is read, of those that remain.
    """

    spec: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    skipped: dict[str, int] = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    keys: tuple[str, ...] = ()


def id_specs(name: str) -> tuple[str, str | None]:
    """Specs of the train and test images of an ID set: a named set, a file, or a folder (its train/ and test/ if any).

    Raises:
        InputError: neither a named ID set nor a folder or file.
    """
    info = dataset_info(name)
    if info is not None:
        if len(info.id_splits) != 2:
            known = [n for n in manifests.names("datasets") if (i := dataset_info(n)) and i.id_splits]
            raise InputError(f"--id {name}: is not set up as an ID set; choose {' or '.join(known)}, or a folder")
        return f"{name}:{info.id_splits[0]}", f"{name}:{info.id_splits[1]}"
    if not name:
        raise InputError("--id: is empty; name a set, a file or a folder (. is the working folder)")
    root = Path(name)
    if root.is_file():
        return name, None
    if not root.is_dir():
        named = ", ".join(manifests.names("datasets"))
        raise InputError(f"--id {name}: neither a named set ({named}) nor a folder or file of images")
    for train, test in (("train", "test"), ("train", "val"), ("train", "valid")):
        if (root / train).is_dir() and (root / test).is_dir():
            return str(root / train), str(root / test)
    for suffix in ("test", "val", "valid"):
        if (root / "train.parquet").is_file() and (root / f"{suffix}.parquet").is_file():
            return str(root / "train.parquet"), str(root / f"{suffix}.parquet")
    return str(root), None


def resolve(spec: str, stream: bool = False, revision: str = "") -> ImageSource:
    """Find the files of a spec, reading no images.

    Args:
        spec: an image spec (see the module).
        stream: read large files of the Hub by row group as they are reached, instead of downloading them whole.
        revision: read a named set from the Hub at this commit, whatever is on this machine.

    Raises:
        InputError: the spec resolves nowhere; the message lists each place that was tried.
    """
    if not spec:  # a path would take it for the working folder
        raise InputError("an image spec is empty; name a set, a file or a folder (. is the working folder)")
    if spec.startswith("hf://"):
        return _resolve_hub(spec, stream)
    path = Path(spec)
    if path.exists() and not revision:
        container = open_container(path)
        origin = "a local folder" if path.is_dir() else "a local file"
        return ImageSource(spec, container, origin, license=getattr(container, "license", "unknown"))
    name, _, split = spec.partition(":")
    info = dataset_info(name)
    if info is None:
        raise InputError(
            f"{spec}: no such file, folder or named set; named sets are {', '.join(manifests.names('datasets'))}"
        )
    return _resolve_named(spec, info, split, stream, revision)


def _resolve_named(spec: str, info: DatasetInfo, split: str, stream: bool, revision: str) -> ImageSource:
    if not split:
        split = "test" if "test" in info.splits else next(iter(info.splits), "")
    if split not in info.splits:
        raise InputError(f"{spec}: {info.name} has no split '{split}'; it has {', '.join(info.splits) or 'none'}")
    tried = []
    columns = (info.image_column, info.label_column)
    common = {"license": info.license, "citation": info.citation}
    root = os.environ.get("SROOD_DATA")
    if root and not revision:
        pattern = f"{info.name}/{split}*.parquet"
        local = tuple(parquet.ParquetPart(path=path) for path in splits.local_files(Path(root, info.name), split))
        if local:
            container = parquet_file.open_parts(local, columns, info.class_names)
            return ImageSource(f"{info.name}:{split}", container, f"$SROOD_DATA/{pattern}", **common)
        tried.append(f"$SROOD_DATA/{pattern} (no such file)")
    elif not revision:
        tried.append("$SROOD_DATA (not set)")
    if info.hub_repo is None:
        tried.append("the Hub (no Parquet copy is known)")
    else:
        try:
            found = hub.listing(info.hub_repo, revision or info.hub_revision)
            remote = tuple(parquet.ParquetPart(remote=file) for file in splits.matching(found, info.splits[split]))
            # also asks whether the files may be read
            container = parquet_file.open_parts(remote, columns, info.class_names, stream)
            origin = f"hf://{info.hub_repo}@{found.commit[:12]}"
            return ImageSource(f"{info.name}:{split}", container, origin, revision=found.commit, **common)
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
    if root and split and splits.local_files(Path(root, name), split):
        return f"$SROOD_DATA/{name}/{split}*.parquet"
    if info.hub_repo and split in info.splits:
        return f"hf://{info.hub_repo}@{info.hub_revision[:12]}/{info.splits[split]}"
    return f"not on the Hub; put {name}/SPLIT.parquet under $SROOD_DATA, or name a folder"


def _resolve_hub(spec: str, stream: bool) -> ImageSource:
    address, _, split = spec.removeprefix("hf://").partition(":")
    repo, _, revision = address.partition("@")
    if repo.count("/") != 1:
        raise InputError(f"{spec}: is not hf://owner/repo[@revision][:split]")
    found = hub.listing(repo, revision or "main")
    parts = tuple(parquet.ParquetPart(remote=file) for file in splits.parquet_of(found, split))
    container = parquet_file.open_parts(parts, stream=stream)
    fixed = f"hf://{repo}@{found.commit}" + (f":{split}" if split else "")
    return ImageSource(fixed, container, fixed, license=found.license, revision=found.commit)


def load_images(
    spec: str,
    image_size: int | None = 32,
    workers: int | None = None,
    reduced: bool = False,
    limits: images.Limits = images.DEFAULT_LIMITS,
) -> Images:
    """Resolve an image spec (see the module), and read and decode the whole set into memory, as `load_source` does.

    Raises:
        InputError: the spec resolves nowhere, or no image of it can be decoded.
    """
    return load_source(resolve(spec), image_size, workers, reduced, limits)


def load_source(
    source: ImageSource,
    image_size: int | None = 32,
    workers: int | None = None,
    reduced: bool = False,
    limits: images.Limits = images.DEFAULT_LIMITS,
) -> Images:
    """Read and decode a whole set, found already, into memory.

    Args:
        source: a resolved spec.
        image_size: side of the images; None keeps their own size, which must then be one and square.
        workers: decoding threads; by default one per processor.
        reduced: do not decode large JPEGs in full (`srood.images.REDUCED`).
        limits: beyond which images are left out.

    Raises:
        InputError: no image of it can be decoded.
    """
    size = image_size or _native_size(source)
    arrays, labels, skipped = [], [], dict[str, int]()
    numbers: list[np.ndarray] = []
    keys: list[str] = []
    read = 0
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for batch in batched(source.rows(max_bytes=limits.bytes), 4096):
            decoded, reasons = images.decode_batch(
                [row.data for row in batch], size, pool, reduced=reduced, limits=limits
            )
            good = np.array([reason is None for reason in reasons])
            arrays.append(decoded[good])
            labels += [row.label for row, reason in zip(batch, reasons, strict=True) if reason is None]
            keys += [row.key for row, reason in zip(batch, reasons, strict=True) if reason is None]
            numbers.append(read + np.flatnonzero(good))
            read += len(batch)
            for reason in reasons:
                if reason is not None:
                    skipped[reason] = skipped.get(reason, 0) + 1
    if not labels:
        raise InputError(f"{source.spec}: none of its images can be decoded ({skipped or 'it is empty'})")
    stacked = np.concatenate(arrays)
    pa.default_memory_pool().release_unused()  # the encoded images, as many bytes again
    return Images(
        source.spec,
        stacked,
        np.array(labels, np.int64),
        source.class_names,
        content_fingerprint(stacked),
        skipped,
        np.concatenate(numbers),
        tuple(keys),
    )


def content_fingerprint(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's shape, type and bytes."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def batched(rows: Iterator[Row], size: int, held: int = HELD) -> Iterator[list[Row]]:
    """Lists of consecutive rows, one of which ends at every `size` rows, and at the last.

    One ends before that where its images have `held` bytes: a thousand members of an archive, decompressed, may be more
    than the memory.
    """
    batch: list[Row] = []
    read, place = 0, 0
    for row in rows:
        batch.append(row)
        place += 1
        read += len(row.data) if isinstance(row.data, bytes) else getattr(row.data, "nbytes", 0)
        if place == size or read >= held:
            yield batch
            batch, read, place = [], 0, place % size
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
