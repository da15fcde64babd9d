"""Ways to spoil the shards and manifests of an outlier set: what leads elsewhere, lies or expands."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from torture.set_files import ROWS, document, edit_manifest, rewrite_manifest

Edit = Callable[[Path], object]


def leading_out(name: str = "image") -> dict[str, Callable[[h5py.File], object]]:
    """Ways for a dataset of a name to be elsewhere, or something else."""

    def external(file: h5py.File) -> None:
        file[name] = h5py.ExternalLink("../outside/secret.h5", "/image")

    def soft(file: h5py.File) -> None:
        file.create_group("g").create_dataset("x", data=np.zeros((3, 32, 32, 3), np.uint8))
        file[name] = h5py.SoftLink("/g/x")

    def stored(file: h5py.File) -> None:
        file.create_dataset(name, (3, 32, 32, 3), "u1", external=[("../outside/secret.bin", 0, 9216)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((3, 32, 32, 3), np.uint8)
        layout[:] = h5py.VirtualSource("../outside/secret.h5", "image", (3, 32, 32, 3))
        file.create_virtual_dataset(name, layout)

    def typed(file: h5py.File) -> None:
        file["t"] = np.dtype("u1")
        file[name] = file["t"]

    return {
        "an external link": external,
        "a soft link": soft,
        "external storage": stored,
        "a virtual dataset": virtual,
        "a type where data should be": typed,
    }


def bomb(file: h5py.File, rows: int) -> None:
    """Images of one colour, `rows` of them in one chunk that gzip makes a thousand times smaller."""
    made = file.create_dataset("image", (rows, 32, 32, 3), "u1", chunks=(rows, 32, 32, 3), compression="gzip")
    made.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(rows * 3072), 1))


# ---- shards --------------------------------------------------------------------------------------------------------


def shard_edits(quick: bool) -> dict[str, Callable[[h5py.File], object]]:
    """What is done to a shard, by what is wrong with it then."""

    def replaced(name: str, write: Callable[[h5py.File], object]) -> Callable[[h5py.File], object]:
        def edit(file: h5py.File) -> None:
            del file[name]
            write(file)

        return edit

    half = ROWS // 2
    made: dict[str, Callable[[h5py.File], object]] = {
        f"{fault} for the images": replaced("image", edit) for fault, edit in leading_out().items()
    }
    made |= {
        "an external link for the keys": replaced("key", leading_out("key")["an external link"]),
        "images that expand a thousandfold": replaced("image", partial(bomb, rows=half)),
        "2^55 rows that were never written": replaced(
            "image", lambda f: f.create_dataset("image", (1 << 55, 32, 32, 3), "u1", chunks=(64, 32, 32, 3))
        ),
        "rows that were never written": replaced(
            "image", lambda f: f.create_dataset("image", (half, 32, 32, 3), "u1", chunks=(64, 32, 32, 3))
        ),
        "fewer rows than the manifest says": replaced(
            "image", lambda f: f.create_dataset("image", data=np.zeros((5, 32, 32, 3), np.uint8))
        ),
        "images of another size": replaced(
            "image", lambda f: f.create_dataset("image", data=np.zeros((half, 8, 8, 3), np.uint8))
        ),
        "images of another type": replaced(
            "image", lambda f: f.create_dataset("image", data=np.zeros((half, 32, 32, 3), ">f4"))
        ),
        "keys of variable length": replaced(
            "key", lambda f: f.create_dataset("key", data=["k"] * half, dtype=h5py.string_dtype())
        ),
        "labels that are references": replaced("label", lambda f: f.create_dataset("label", (half,), h5py.ref_dtype)),
        "labels that are records": replaced(
            "label", lambda f: f.create_dataset("label", data=np.zeros(half, [("a", "i4")]))
        ),
        "a group for a column": replaced("label", lambda f: f.create_group("label")),
        "no images": replaced("image", lambda f: None),
        "no hashes": replaced("sha256", lambda f: None),
    }
    few = ("an external link for the images", "images that expand a thousandfold", "2^55 rows that were never written")
    return {fault: edit for fault, edit in made.items() if not quick or fault in few}


# ---- manifests -----------------------------------------------------------------------------------------------------


def manifest_edits(quick: bool) -> Iterator[tuple[str, Edit]]:
    """What is done to a manifest, and what is wrong with it then."""

    def field(fault: str, change: Callable[[dict[str, Any]], object]) -> tuple[str, Edit]:
        return fault, partial(edit_manifest, edit=change)

    def shard(fault: str, **values: Any) -> tuple[str, Edit]:
        return field(fault, lambda content: content["shards"][0].update(values))

    def text(fault: str, change: Callable[[str], str | bytes]) -> tuple[str, Edit]:
        return fault, lambda path: rewrite_manifest(path, change(json.dumps(document(path))))

    for version in (0, 2, 999, -1, "1", None, [1], 1.5):
        yield field("another schema version", lambda content, v=version: content.update(schema_version=v))
    for name in ("/etc/passwd", "../outside/secret.h5", "..", "", "sub/x.h5", "a\0b", "."):
        yield shard("a shard outside the folder", file=name)
    yield "a shard that is a link to a file outside", _linked
    yield shard("another hash of a shard", sha256="0" * 64)
    yield shard("another size of a shard", bytes=1)
    for rows in (1, -100, 10**18, "100", None, True):
        yield shard("a wrong number of rows", rows=rows)
    yield field("a wrong number of rows", lambda content: content.update(rows=ROWS + 1))
    yield field("a shard twice", lambda content: content["shards"].append(content["shards"][0]))
    yield text("NaN and Infinity", lambda found: found[:-1] + ', "x": NaN}')
    yield text("a key twice", lambda found: found[:-1] + f', "rows": {ROWS}}}')
    yield text(
        "objects nested 100,000 deep", lambda found: found[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    )
    yield text("no JSON", lambda found: found[:-10])
    yield text("no JSON", lambda found: b"\xff\xfe\0" + found.encode())
    yield text("JSON of another form", lambda found: "[1, 2]")
    yield "a document that claims 1 GB", _claimed
    yield "a document of variable length", _variable
    yield "a document that is a link", _document_link
    yield "altered after it was written", _altered
    for name in ("rows", "shards", "format", "schema_version"):
        yield field("a field is missing", lambda content, n=name: content.pop(n))
    kinds: tuple[Any, ...] = (7, "text", [1], {"a": 1}) if not quick else ("text",)
    for name in (
        "config",
        "sources",
        "stages",
        "leak_certificate",
        "id_filter",
        "contamination",
        "versions",
        "label_names",
    ):
        for kind in kinds:
            if (name == "contamination" and isinstance(kind, dict)) or (name, kind) == ("config", {"a": 1}):
                continue
            if isinstance(kind, dict) and name in ("leak_certificate", "id_filter", "versions"):
                continue
            yield field("a field of another type", lambda content, n=name, k=kind: content.update({n: k}))


def _linked(path: Path) -> None:
    shard = path.parent / document(path)["shards"][0]["file"]
    moved = path.parent.parent / "outside" / "shard.h5"
    moved.write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to("../outside/shard.h5")


def _claimed(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(1 << 30)
        h5py.h5d.create(file.id, b"manifest", kind, h5py.h5s.create(h5py.h5s.SCALAR))


def _variable(path: Path) -> None:
    content = json.dumps(document(path))
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("manifest", data=content, dtype=h5py.string_dtype())


def _document_link(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file["manifest"] = h5py.ExternalLink("../outside/secret.h5", "/image")


def _altered(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b'"emu"') == 1
    path.write_bytes(data.replace(b'"emu"', b'"emo"'))
