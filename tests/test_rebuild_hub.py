"""Sets made again from a Hub on this machine: its sources, and an index without images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer, point_client_at
from pictures import pictures, write_parquet
from rebuilt_sets import files, write_document

from curate.build import build
from curate.config import BuildConfig
from curate.rebuilding.agreement import columns_of_index
from curate.rebuilding.rebuild import rebuild
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.named_sets import dataset_info
from srood.outlier_sources import local_manifest, manifest_of, row_files
from srood.outliers import OutlierSet, read_manifest

SMALL: dict[str, Any] = {"batch_rows": 32, "shard_rows": 30, "calibration_images": 30, "workers": 1}
REAL_ROWS = 250


def write_id(folder: Path) -> Path:
    ident = pictures(100, seed=1)
    write_parquet(folder / "train.parquet", ident[:70], [i % 2 for i in range(70)], ["a", "b"])
    write_parquet(folder / "test.parquet", ident[70:], [i % 2 for i in range(30)], ["a", "b"])
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv("SROOD_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        yield running


def serve(hub: HubServer, folder: Path, name: str, path: str, images: np.ndarray, commit: str | None = None) -> str:
    """Serve one Parquet file as a commit; returns the commit."""
    write_parquet(folder / path, images, [i % 2 for i in range(len(images))], ["lamp", "chair"])
    return hub.add(name, folder, commit, license="mit").refs["main"]


def test_sources_are_read_at_the_recorded_commit_wherever_main_is(hub, tmp_path):
    first = serve(hub, tmp_path / "one", "owner/corpus", "data/train.parquet", pictures(60, seed=2))
    kept = serve(hub, tmp_path / "two", "owner/ood", "data/test.parquet", pictures(20, seed=3))
    out = tmp_path / "set/mini.h5"
    specs = {"source": ("hf://owner/corpus:train",), "protect": ("hf://owner/ood:test",)}
    build(BuildConfig(**specs, size=40, id=str(write_id(tmp_path / "id")), out=out, **SMALL))
    manifest = read_manifest(out)
    assert manifest["sources"][0]["revision"] == first
    assert [entry["revision"] for entry in manifest["leak_certificate"]["protected"]] == ["unknown", "unknown", kept]

    serve(hub, tmp_path / "three", "owner/corpus", "data/train.parquet", pictures(60, seed=12))
    serve(hub, tmp_path / "four", "owner/ood", "data/test.parquet", pictures(20, seed=13))
    shutil.rmtree(tmp_path / "hf")  # so that nothing is read from a cache
    result = rebuild(str(out), tmp_path / "again/mini.h5", look_in=[tmp_path])
    assert result.agreement.lines() == ["agrees byte for byte: 2 shards, 40 rows"]
    assert files(tmp_path / "again") == files(out.parent)
    assert result.found[0].place == f"hf://owner/corpus@{first}:train"


def serve_named(hub: HubServer, folder: Path, spec: str, images: np.ndarray) -> Path:
    """Serve a named set where and at the commit that it is expected; returns its file."""
    name, _, split = spec.partition(":")
    info = dataset_info(name)
    assert info is not None and info.hub_repo is not None
    path = info.splits[split].replace("*", "00000-of-00001")
    serve(hub, folder, info.hub_repo, path, images, info.hub_revision)
    return folder / path


def test_a_named_source_is_the_sets_that_were_read_then(hub, tmp_path, monkeypatch):
    corpus = serve_named(hub, tmp_path / "tiny", "tiny-imagenet:corpus", pictures(60, seed=2))
    ident = pictures(100, seed=1)
    serve_named(hub, tmp_path / "cifar", "cifar10:train", ident[:70])
    test = serve_named(hub, tmp_path / "cifar", "cifar10:test", ident[70:])
    out = tmp_path / "set/mini.h5"
    build(BuildConfig(source=("tinyimages-alt",), size=40, id="cifar10", out=out, **SMALL))
    manifest = read_manifest(out)
    assert [entry["name"] for entry in manifest["sources"]] == ["tiny-imagenet:corpus"]
    assert manifest["missing_sources"] == ["imagenet-64:train", "food101:train"]

    # meanwhile another set of the source can be read: `curate build` would take it
    serve_named(hub, tmp_path / "imagenet", "imagenet-64:train", pictures(30, seed=5))
    again = tmp_path / "again/mini.h5"
    assert rebuild(str(out), again).agreement.bytes_agree
    assert files(again.parent) == files(out.parent)

    # the same files under $SROOD_DATA, without a network: the manifest still says where they came from
    for name, file in (("tiny-imagenet/corpus", corpus), ("cifar10/test", test), ("cifar10/train", None)):
        place = tmp_path / "data" / f"{name}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file or next((tmp_path / "cifar").rglob("train*.parquet")), place)
    monkeypatch.setenv("SROOD_DATA", str(tmp_path / "data"))
    hub.requests.clear()
    local = tmp_path / "local/mini.h5"
    result = rebuild(str(out), local)
    assert not hub.requests and result.found[0].place == "$SROOD_DATA/tiny-imagenet/corpus*.parquet"
    assert files(local.parent) == files(out.parent)

    # another file in that place: the Hub's, which is the one that was read
    shutil.copy(test, tmp_path / "data/tiny-imagenet/corpus.parquet")
    result = rebuild(str(out), tmp_path / "third/mini.h5")
    assert result.found[0].place.startswith("hf://zh-plus/tiny-imagenet@")
    assert files(tmp_path / "third") == files(out.parent)


def test_the_images_compared_with_are_those_that_were_found(hub, tmp_path, monkeypatch):
    """Other files under $SROOD_DATA do not take the place of the ID images and the protected ones of the Hub."""
    ident, ood = pictures(100, seed=1), pictures(20, seed=3)
    corpus = np.concatenate([pictures(60, seed=2), ident[:8], ood[:5]])  # 13 rows are copies of what is protected
    write_parquet(tmp_path / "corpus.parquet", corpus, [i % 2 for i in range(73)], ["lamp", "chair"])
    serve_named(hub, tmp_path / "cifar", "cifar10:train", ident[:70])
    serve_named(hub, tmp_path / "cifar", "cifar10:test", ident[70:])
    serve_named(hub, tmp_path / "textures", "textures:test", ood)
    out = tmp_path / "set/mini.h5"
    specs: dict[str, Any] = {"source": (str(tmp_path / "corpus.parquet"),), "protect": ("textures:test",)}
    build(BuildConfig(**specs, size=70, id="cifar10", out=out, **SMALL))
    keys = set(OutlierSet.open(out).read("key"))
    assert not keys & {f"corpus.parquet#{row}".encode() for row in range(60, 73)} and len(keys) == 60

    for name, seed in (("cifar10/train", 77), ("cifar10/test", 78), ("textures/test", 79)):
        write_parquet(tmp_path / f"data/{name}.parquet", pictures(30, seed), [i % 2 for i in range(30)], ["a", "b"])
    monkeypatch.setenv("SROOD_DATA", str(tmp_path / "data"))
    result = rebuild(str(out), tmp_path / "again/mini.h5", look_in=[tmp_path])
    assert all(entry.place.startswith("hf://") for entry in result.found if entry.role in ("ID set", "protected set"))
    assert result.agreement.bytes_agree
    assert files(tmp_path / "again") == files(out.parent)


# ---- an index: the manifest and the rows without images -------------------------------------------------------------


def write_index(manifest: Path, folder: Path, **altered: Any) -> Path:
    """A repository with the manifest and a Parquet file of its rows, in which columns may be altered."""
    opened = OutlierSet.open(manifest)
    columns = {name: opened.read(name) for name in ("key", "sha256", "label", "id_ness")} | altered
    text = {name: [value.decode() for value in columns[name]] for name in ("key", "sha256")}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, **text}), folder / "data/train-00000-of-00001.parquet")
    shutil.copy(manifest, folder)
    return folder


@pytest.fixture
def made(tmp_path) -> Path:
    """A set of 40 rows with what it was made from beside it."""
    write_parquet(tmp_path / "corpus.parquet", pictures(60, seed=2), [i % 2 for i in range(60)], ["lamp", "chair"])
    source = (str(tmp_path / "corpus.parquet"),)
    out = tmp_path / "set/mini.h5"
    return build(BuildConfig(source, 40, str(write_id(tmp_path / "id")), out, **SMALL)).out


def test_an_index_says_so_and_is_made_again(hub, made, tmp_path):
    hub.add("owner/index", write_index(made, tmp_path / "repo"))
    commit = hub.repos["owner/index"].refs["main"]
    with pytest.raises(InputError) as caught:
        local_manifest("hf://owner/index")
    assert str(caught.value) == (
        f"hf://owner/index@{commit}/mini.h5: is an index: its images were not published; "
        "make it again with `curate rebuild hf://owner/index`"
    )
    assert manifest_of("hf://owner/index").read_bytes() == made.read_bytes()
    assert manifest_of(str(made)) == made
    hub.requests.clear()
    result = rebuild("hf://owner/index", look_in=[tmp_path])
    assert result.out == Path("manifests/mini.h5")
    assert result.agreement.lines() == ["agrees byte for byte: 2 shards, 40 rows"]
    assert files(Path("manifests")) == files(made.parent)
    assert not [
        request for request in hub.requests if "train-00000" in request.path
    ]  # only asked for where bytes differ


def test_what_curate_publish_puts_there_as_an_index_is_made_again(writable_hub, made, tmp_path, monkeypatch):
    from curate.publishing.publish import PublishConfig, publish

    publish(PublishConfig(made, "owner/index", index_only=True))
    with pytest.raises(InputError, match="is an index: its images were not published"):
        local_manifest("hf://owner/index")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = rebuild("hf://owner/index", look_in=[tmp_path])
    assert result.agreement.lines() == ["agrees byte for byte: 2 shards, 40 rows"]
    assert files(Path("manifests")) == files(made.parent)
    rows = columns_of_index(row_files("hf://owner/index"), 40)
    opened = OutlierSet.open(made)
    assert {"key", "sha256", "label", "id_similarity", "id_class", "id_ness", "cluster"} <= rows.keys()
    assert all(np.array_equal(values, opened.read(name)) for name, values in rows.items())


def with_other_hashes(manifest: Path) -> Path:
    """The manifest says that its shards were others than those that come out."""
    document = read_manifest(manifest)
    document["shards"][0]["sha256"] = "0" * 64
    return write_document(manifest, document)


@pytest.mark.parametrize(
    ("column", "change", "expected"),
    [
        ("id_ness", lambda values: np.where(np.arange(40) < 3, 9, values), "columns that differ: id_ness (3 rows)"),
        ("sha256", lambda values: values[::-1], "all 40 rows have the recorded pixels, in another order"),
        (
            "sha256",
            lambda values: np.array([b"0" * 64, *values[1:-1], b"1" * 64]),
            "2 of 40 rows are not in the recorded set, 2 of its rows are not here",
        ),
        ("label", lambda values: values, "all 40 rows agree in every column; only the bytes of the files differ"),
    ],
    ids=["a column", "the order", "the rows", "nothing but bytes"],
)
def test_where_bytes_differ_the_index_says_which_rows(hub, made, tmp_path, column, change, expected):
    folder = write_index(made, tmp_path / "repo", **{column: change(OutlierSet.open(made).read(column))})
    with_other_hashes(folder / "mini.h5")
    hub.add("owner/index", folder)
    agreement = rebuild("hf://owner/index", look_in=[tmp_path]).agreement
    assert agreement.lines()[0] == "does not agree: 1 of 2 shards differs"
    assert agreement.lines()[1].endswith(expected)


def test_shards_at_hand_say_which_rows_differ(hub, made, tmp_path):
    """The set here was altered in one column of one shard, and its manifest with it."""
    shutil.copytree(made.parent, tmp_path / "altered")
    shard = tmp_path / "altered/mini-00001-of-00002.h5"
    with h5py.File(shard, "r+") as file:
        file["id_similarity"][2:6] = 0.5
    document = read_manifest(made)
    document["shards"][1] |= {"sha256": file_sha256(shard), "bytes": shard.stat().st_size}
    write_document(tmp_path / "altered/mini.h5", document)
    agreement = rebuild(str(tmp_path / "altered/mini.h5"), tmp_path / "again/mini.h5", look_in=[tmp_path]).agreement
    assert agreement.altered == (1,) and agreement.columns == {"id_similarity": 4}


# ---- real images ----------------------------------------------------------------------------------------------------


def cut(source: Path, target: Path, rows: int) -> None:
    """The first rows of a Parquet file, with its metadata."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(source).slice(0, rows), target)


def test_real_images_come_again(srood_data, hub, tmp_path, monkeypatch):
    data = tmp_path / "data"
    for name in ("cifar10/train", "cifar10/test", "tiny-imagenet/corpus"):
        cut(srood_data / f"{name}.parquet", data / f"{name}.parquet", REAL_ROWS)
    monkeypatch.setenv("SROOD_DATA", str(data))
    out = tmp_path / "set/mini.h5"
    build(BuildConfig(source=("tiny-imagenet:corpus",), size=100, out=out, protect=("cifar10:test",), **SMALL))
    hub.add("owner/index", write_index(out, tmp_path / "repo"))
    shutil.move(tmp_path / "set", tmp_path / "original")
    assert rebuild("hf://owner/index", tmp_path / "set/mini.h5").agreement.bytes_agree
    assert files(tmp_path / "set") == files(tmp_path / "original")


@pytest.mark.slow
def test_the_whole_corpus_of_real_images_comes_again(srood_data, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(srood_data))
    classifier = srood_data / "models/resnet20-cifar10.safetensors"
    embedder = f"checkpoint:{classifier}"
    out = tmp_path / "set/mini.h5"
    build(BuildConfig(size=2_000, out=out, embedder=embedder))
    index = tmp_path / "index/mini.h5"
    index.parent.mkdir()
    shutil.copy(out, index)
    assert rebuild(str(index), embedder=embedder).agreement.bytes_agree
    assert files(index.parent) == files(out.parent)
