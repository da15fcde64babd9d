"""Parquet files, NumPy arrays, records and lists of paths made to harm."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torture.hostile import SECONDS, Case, png


class _Payload:
    """What runs when it is unpickled: it writes a file."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, ("ran-a-pickle", "w"))


def cases(good: Sequence[np.ndarray], quick: bool) -> list[Case]:
    """The cases."""
    return [*_parquet(good, quick), *_npy(good), *_records(good), *_lists(good)]


# ---- Parquet -------------------------------------------------------------------------------------------------------


def _parquet(good: Sequence[np.ndarray], quick: bool) -> list[Case]:
    encoded = [png(image) for image in good]
    large = b"\0" * ((2 if quick else 60) << 20)
    rows = 300 if quick else 2_000

    def table(
        fault: str, columns: dict[str, pa.Array], rows: int | None, seconds: float = SECONDS, **options: object
    ) -> Case:
        return Case(fault, partial(_table, columns=columns, options=options), rows, seconds)

    image = pa.array(encoded, pa.binary())
    nested = pa.array([{"bytes": {"bytes": data}} for data in encoded])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([large], pa.binary()))
    many = pa.array([b"\0" * (1 << 20)] * (20 if quick else 600), pa.binary())
    return [
        table("Parquet: no column of images", {"number": pa.array([1, 2, 3])}, None),
        table("Parquet: no rows", {"image": pa.array([], pa.binary())}, 0),
        table("Parquet: images nested deeper than is read", {"image": nested}, None),
        table("Parquet: images that are lists of bytes", {"image": pa.array([list(d) for d in encoded])}, None),
        table("Parquet: images that are null", {"image": pa.array([None, encoded[0], None], pa.binary())}, 1),
        table("Parquet: two columns of one name", {"image": image, "image ": image}, None),
        table("Parquet: labels that are nested", {"image": image, "label": pa.array([[1]] * len(good))}, len(good)),
        table(
            "Parquet: labels beyond 2^63",
            {"image": image, "label": pa.array([2**64 - 1] * len(good), pa.uint64())},
            len(good),
        ),
        table(
            "Parquet: labels that are null",
            {"image": image, "label": pa.array([None] * len(good), pa.int64())},
            len(good),
        ),
        table(  # 120 GB of images, each as large as is allowed: they take what so many bytes take
            "Parquet: one value of 60 MB of a dictionary in thousands of rows",
            {"image": repeated},
            0,
            seconds=rows * 0.15,
            store_schema=False,
        ),
        table(
            "Parquet: pages that expand a thousandfold", {"image": many}, 0, compression="zstd", use_dictionary=False
        ),
        Case("Parquet: statistics of MiB", partial(_statistics, size=(1 if quick else 32) << 20), 0),
        Case(
            "Parquet: metadata of the Hub that make no sense", partial(_metadata, encoded=encoded, text=b"[" * 100_000)
        ),
        Case(
            "Parquet: metadata of the Hub that make no sense", partial(_metadata, encoded=encoded, text=b'{"info": 7}')
        ),
        Case("Parquet: a footer longer than the file", partial(_footer, encoded=encoded, length=1 << 31)),
        Case("Parquet: a footer of no bytes", partial(_footer, encoded=encoded, length=0)),
    ]


def _table(folder: Path, columns: dict[str, pa.Array], options: dict[str, object]) -> Path:
    path = folder / "corpus.parquet"
    made = pa.table(list(columns.values()), names=[name.strip() for name in columns])
    pq.write_table(made, path, row_group_size=100_000, **options)
    return path


def _statistics(folder: Path, size: int) -> Path:
    path = folder / "corpus.parquet"
    pq.write_table(
        pa.table({"image": pa.array([b"\1" * size, b"\2" * size], pa.binary())}), path, write_statistics=True
    )
    return path


def _metadata(folder: Path, encoded: Sequence[bytes], text: bytes) -> Path:
    path = folder / "corpus.parquet"
    made = pa.table({"image": pa.array(encoded, pa.binary()), "label": pa.array([0] * len(encoded))})
    pq.write_table(made.replace_schema_metadata({b"huggingface": text}), path)
    return path


def _footer(folder: Path, encoded: Sequence[bytes], length: int) -> Path:
    path = _table(folder, {"image": pa.array(encoded, pa.binary())}, {})
    path.write_bytes(path.read_bytes()[:-8] + struct.pack("<I", length) + b"PAR1")
    return path


def mutated_parquet(folder: Path, good: Sequence[np.ndarray], seed: int) -> Path:
    """A file of three row groups, of which bytes of the footer or of page headers are changed at random."""
    rng = np.random.default_rng(seed)
    path = folder / "corpus.parquet"
    images = pa.array([png(image) for image in good], pa.binary())
    made = pa.table({"image": images, "label": pa.array(range(len(good)))})
    pq.write_table(made, path, row_group_size=1, compression="none", use_dictionary=bool(rng.integers(2)))
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    with pq.ParquetFile(path) as file:
        chunks = [file.metadata.row_group(number).column(0) for number in range(file.num_row_groups)]
    starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
    for _ in range(int(rng.integers(1, 6))):
        first, last = (footer, len(data) - 4) if rng.random() < 0.7 else (start := int(rng.choice(starts)), start + 24)
        data[int(rng.integers(first, last))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


# ---- NumPy arrays --------------------------------------------------------------------------------------------------


def _npy(good: Sequence[np.ndarray]) -> list[Case]:
    def written(fault: str, content: bytes, rows: int | None = None) -> Case:
        return Case(fault, partial(_bytes, name="corpus.npy", content=content), rows)

    def saved(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()

    def header(shape: str, descr: str = "'|u1'", order: str = "False", after: bytes = b"\0" * 100) -> bytes:
        text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + after

    stack = np.stack(good)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", saved(stack))
    objects = np.array([_Payload()], dtype=object)
    return [
        written("npy: an array of Python objects with a payload", saved(objects)),
        written("npy: a bare pickle with a payload", pickle.dumps(_Payload())),
        written("npy: an archive of arrays (.npz)", archive.getvalue()),
        written("npy: in Fortran's order", saved(np.asfortranarray(stack)), len(good)),
        written("npy: a shape of 2^60 rows", header(f"({1 << 60}, 32, 32, 3)")),
        written("npy: a shape whose product overflows", header(f"({1 << 40}, {1 << 40}, 32, 3)")),
        written("npy: a shape whose product overflows", header(f"({1 << 62}, 4, 4, 3)")),
        written("npy: a negative shape", header("(-1, 32, 32, 3)")),
        written("npy: a header that is a program", header("__import__('os').system('touch ran-a-header')")),
        written("npy: a header that is nested deeply", header("(" * 9_000 + ")" * 9_000)),
        written("npy: a header that claims 4 GiB", b"\x93NUMPY\2\0" + struct.pack("<I", 0xFFFFFFFF) + b"{" * 100),
        written("npy: another type", saved(stack.astype(np.float64))),
        written("npy: records with a field of objects", header("(3,)", "[('a', '|O')]")),
        written("npy: images of no rows or no columns", header("(3, 0, 32, 3)")),
    ]


# ---- records and lists ---------------------------------------------------------------------------------------------


def _records(good: Sequence[np.ndarray]) -> list[Case]:
    records = np.stack(good).transpose(0, 3, 2, 1).tobytes()

    def written(fault: str, content: bytes, rows: int | None = None) -> Case:
        return Case(fault, partial(_bytes, name="tiny_images.bin", content=content), rows)

    return [
        written("tiny_images.bin: a whole number of records", records, len(good)),
        written("tiny_images.bin: a byte too much or too little", records + b"\0"),
        written("tiny_images.bin: a byte too much or too little", records[:-1]),
        written("tiny_images.bin: empty", b""),
    ]


def _lists(good: Sequence[np.ndarray]) -> list[Case]:
    def listing(fault: str, text: bytes, rows: int | None = 2) -> Case:
        return Case(fault, partial(_list, images=[png(image) for image in good[:2]], text=text), rows)

    return [
        listing("list: a NUL in a path", b"a.png\0b.png\n", None),
        listing("list: a label with a NUL", b"0.png\tcat\0dog\n", None),
        listing("list: bytes that are not UTF-8", b"0.png\n\xff\xfe\xfa.png\n", None),
        listing("list: nothing but empty lines", b"\n\n \n", None),
        listing("list: a path of 64 KiB", b"0.png\n" + b"a" * 65_536 + b"\n1.png\n"),
        listing(
            "list: devices, pipes, folders and files that never end",
            b"0.png\n/dev/zero\n/dev/stdin\npipe.png\n/proc\n.\n1.png\n",
        ),
        listing("list: a loop of symbolic links", b"0.png\nloop.png\n1.png\n"),
        listing("list: a million lines", b"0.png\n1.png\n" + b"gone.png\n" * 200_000),
        listing("list: a program", b"0.png\n$(touch ran)\n| touch ran\n1.png\n"),
    ]


def _list(folder: Path, images: Sequence[bytes], text: bytes) -> Path:
    import os

    for number, data in enumerate(images):
        (folder / f"{number}.png").write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    return _bytes(folder, "corpus.txt", text)


def _bytes(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name
