"""Hostile HDF5: outlier sets and image files that lead elsewhere, lie or expand, given to every command."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from torture.forked import forked
from torture.hostile import REFUSED, Case, Outside, bounds, pictures, read_cases, refusal, trespasses, write_id_set
from torture.set_files import ROWS, copy_set, document, edit_manifest, edit_shard, make_set, rewrite_manifest
from torture.trial import Effort, Trial

COMMANDS = (
    *("curate verify mini.h5", "curate inspect mini.h5", "curate report mini.h5 --out report.html"),
    *("curate select mini.h5 --size 50 --out chosen.h5", "curate merge other/mini.h5 mini.h5 --out both.h5"),
    "curate export mini.h5 --format parquet --out exported",
    "curate publish mini.h5 a/b --rights-confirmed --license cc0-1.0 --dry-run published",
    "srood train --id id --model resnet20 --checkpoint resnet20.safetensors --outliers mini.h5 --out run --max-steps 1",
)
ONLY_WITH_SHARDS = ("manifest: another hash of a shard", "manifest: another size of a shard")
OF_MANIFEST = ("curate inspect mini.h5",)  # reads no shard
Edit = Callable[[Path], object]


def hostile_hdf5(effort: Effort) -> Iterator[Trial]:
    """Files of images, then shards and manifests of outlier sets."""
    good = pictures(3, effort.seed)
    yield from read_cases(effort, list(_sources(good)), good)
    original = make_set(effort.folder / "original", effort.seed)
    commands = ("curate verify mini.h5",) if effort.quick else COMMANDS
    if not effort.quick:
        _write_what_commands_need(effort)
        yield from _as_it_was(effort, original)
    spoilt = [(f"shard: {fault}", partial(edit_shard, edit=edit)) for fault, edit in _shard_edits(effort.quick).items()]
    spoilt += [(f"manifest: {fault}", edit) for fault, edit in _manifest_edits(effort.quick)]
    if effort.quick:  # some faults, each in one way
        spoilt = list(dict(spoilt).items())[::4]
    for number, (fault, edit) in enumerate(spoilt):
        place = effort.folder / f"set-{number}"
        place.mkdir()
        outside = Outside.make(place / "outside")
        path = _given(effort, original, place / "given")
        edit(path)
        outside.state = outside.look()
        of_shard = fault.startswith("shard") or fault in ONLY_WITH_SHARDS
        asked = commands if of_shard or not effort.quick else OF_MANIFEST
        for words in asked:
            if of_shard and words in OF_MANIFEST:
                continue
            yield _refused(effort, fault, words, place, outside)


def _write_what_commands_need(effort: Effort) -> None:
    import torch

    from srood.models import build_model
    from srood.models.weights import WeightsInfo, save_weights

    make_set(effort.folder / "other", effort.seed + 2)
    write_id_set(effort.folder / "id", pictures(300, effort.seed + 1))
    torch.manual_seed(effort.seed)
    info = WeightsInfo("resnet20", None, (0.5,) * 3, (0.25,) * 3)
    save_weights(effort.folder / "resnet20.safetensors", build_model("resnet20", 2).state_dict(), info)


def _given(effort: Effort, original: Path, folder: Path) -> Path:
    """A copy of the set in a new folder, with what the commands read besides."""
    path = copy_set(original, folder)
    if not effort.quick:
        copy_set(effort.folder / "other" / original.name, folder / "other")
        shutil.copytree(effort.folder / "id", folder / "id")
        shutil.copy(effort.folder / "resnet20.safetensors", folder)
    return path


def _as_it_was(effort: Effort, original: Path) -> Iterator[Trial]:
    """The commands on a set that nobody spoilt: what they refuse later is not refused for something else."""
    place = effort.folder / "as-it-was"
    place.mkdir()
    outside = Outside.make(place / "outside")
    _given(effort, original, place / "given")
    for words in COMMANDS:
        watched = forked(effort.quick).run(*words.split(), cwd=place / "given", limit=120)
        problems = bounds(watched) + trespasses(watched, place / "given", outside)
        if watched.ended.code:
            problems.append(f"exit code {watched.ended.code}: {watched.ended.err[-300:]}")
        yield Trial("a set as it was made", "; ".join(problems) or "done", not problems, f"{words}: {problems}")


def _refused(effort: Effort, fault: str, words: str, place: Path, outside: Outside) -> Trial:
    """A command is to refuse a set; `curate verify` may also say what differs, with exit code 1."""
    given = place / "given"
    watched = forked(effort.quick).run(*words.split(), cwd=given, limit=120)
    problems = bounds(watched) + trespasses(watched, given, outside)
    outcome = REFUSED
    if words.startswith("curate verify") and watched.ended.code == 1 and "difference" in watched.ended.out:
        outcome = "`curate verify` names the difference, exit code 1"
    else:
        problems += refusal(watched, ["mini"])
    detail = f"{words} in {given}: {'; '.join(problems)}"
    return Trial(fault, "; ".join(problems) or outcome, not problems, detail)


# ---- files of images -----------------------------------------------------------------------------------------------


def _sources(good: list[np.ndarray]) -> Iterator[Case]:
    stack = np.stack(good)

    def file(fault: str, write: Callable[[h5py.File], object], rows: int | None = None) -> Case:
        def make(folder: Path) -> Path:
            with h5py.File(folder / "corpus.h5", "w") as opened:
                write(opened)
            return folder / "corpus.h5"

        return Case(f"HDF5 images: {fault}", make, rows)

    for fault, edit in _leading_out().items():
        yield file(fault, edit)
    yield file("groups that hold each other", partial(_cycle, stack=stack), len(good))
    yield file("groups nested a thousand deep", partial(_deep, stack=stack), len(good))
    yield file("a gzip chunk that expands a thousandfold to 1 GiB", partial(_bomb, rows=350_000))
    yield file(
        "2^60 rows that were never written",
        lambda f: f.create_dataset("image", (1 << 55, 32, 32, 3), "u1", chunks=(64, 32, 32, 3)),
    )
    yield file("a filter that only a plugin has", _plugin)
    for kind in ("float32", ">u2", "compound", "text", "reference"):
        yield file("another type than uint8", partial(_typed, kind=kind))
    yield file("an attribute of MiB", partial(_attribute, stack=stack), len(good))
    yield file(
        "images with no bytes a row", lambda f: f.create_dataset("image", data=np.zeros((5, 0, 32, 3), np.uint8))
    )
    yield file("nothing", lambda f: None)


def _leading_out(name: str = "image") -> dict[str, Callable[[h5py.File], object]]:
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


def _cycle(file: h5py.File, stack: np.ndarray) -> None:
    file["image"] = stack
    group = file.create_group("a")
    group.create_group("b")["up"] = group
    file["a/root"] = file["/"]


def _deep(file: h5py.File, stack: np.ndarray) -> None:
    file["image"] = stack
    group = file
    for _ in range(1000):
        group = group.create_group("g")


def _bomb(file: h5py.File, rows: int) -> None:
    made = file.create_dataset("image", (rows, 32, 32, 3), "u1", chunks=(rows, 32, 32, 3), compression="gzip")
    made.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(rows * 3072), 1))


def _plugin(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 32, 32, 3))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # Zstandard, of the plugins
    space = h5py.h5s.create_simple((3, 32, 32, 3))
    made = h5py.h5d.create(file.id, b"image", h5py.h5t.NATIVE_UINT8, space, plist)
    made.write_direct_chunk((0, 0, 0, 0), b"\0" * 100)


def _typed(file: h5py.File, kind: str) -> None:
    if kind == "compound":
        file["image"] = np.zeros((3, 32, 32, 3), [("a", "u1"), ("b", "f4")])
    elif kind == "text":
        file.create_dataset("image", (3, 32, 32, 3), h5py.string_dtype())[0, 0, 0, 0] = "x" * (1 << 20)
    elif kind == "reference":
        file.create_dataset("image", (3, 1, 1, 3), h5py.ref_dtype)[0, 0, 0, 0] = file.ref
        file.create_dataset("regions", (3,), h5py.regionref_dtype)
    else:
        file["image"] = np.zeros((3, 32, 32, 3), kind)


def _attribute(file: h5py.File, stack: np.ndarray) -> None:
    file["image"] = stack
    file.attrs.create("large", np.zeros(60_000, np.uint8))
    file["image"].attrs["text"] = "x" * 60_000


# ---- shards --------------------------------------------------------------------------------------------------------


def _shard_edits(quick: bool) -> dict[str, Callable[[h5py.File], object]]:
    def replaced(name: str, write: Callable[[h5py.File], object]) -> Callable[[h5py.File], object]:
        def edit(file: h5py.File) -> None:
            del file[name]
            write(file)

        return edit

    half = ROWS // 2
    made: dict[str, Callable[[h5py.File], object]] = {
        f"{fault} for the images": replaced("image", edit) for fault, edit in _leading_out().items()
    }
    made |= {
        "an external link for the keys": replaced("key", _leading_out("key")["an external link"]),
        "images that expand a thousandfold": replaced("image", partial(_bomb, rows=half)),
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


def _manifest_edits(quick: bool) -> Iterator[tuple[str, Edit]]:
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
