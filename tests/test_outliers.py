import json
import shutil

import h5py
import numpy as np
import pytest

from srood import outliers
from srood.errors import InputError
from srood.hashes import file_sha256, pixel_sha256
from srood.outlier_checks import REQUIRED


def columns(start: int, count: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(start).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return {
        "image": images,
        "key": np.array([f"row{start + i}".encode() for i in range(count)], dtype="S12"),
        "sha256": np.array([pixel_sha256(image) for image in images], dtype="S64"),
        "label": np.arange(start, start + count),
        "id_similarity": np.linspace(0, 1, count, dtype=np.float32),
        "id_class": np.zeros(count, np.int64),
    }


def write(folder, name="set.h5"):
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    manifest = {"config": {"image_size": 8}, "note": "grüße"}
    shards = iter([columns(0, 100), columns(100, 70)])
    return outliers.write_set(folder / name, shards, 2, manifest, scratch)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path)


def test_reads_back_what_was_written(path):
    opened = outliers.OutlierSet.open(path)
    expected = np.concatenate([columns(0, 100)["image"], columns(100, 70)["image"]])
    assert opened.num_rows == 170
    assert opened.image_shape == (8, 8, 3)
    assert np.array_equal(opened.read_images(), expected)
    wanted = [169, 0, 99, 100, 99, 5]
    assert np.array_equal(opened.read_images(wanted), expected[wanted])
    assert opened.read("label", wanted).tolist() == wanted
    assert opened.read("key", [100]).tolist() == [b"row100"]
    assert outliers.verify(path) == []


def test_layout_is_the_one_that_is_documented(path):
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    assert names == ["set-00000-of-00002.h5", "set-00001-of-00002.h5", "set.h5"]
    with h5py.File(path.parent / names[0]) as shard:
        assert {name: len(shard[name]) for name in shard} == dict.fromkeys(columns(0, 1), 100)
        assert shard["image"].chunks == (64, 8, 8, 3)
        assert shard["image"].compression is None


def test_the_same_rows_give_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    for one in sorted(p for p in first.parent.iterdir() if p.is_file()):
        assert one.read_bytes() == (second.parent / one.name).read_bytes()


def test_a_name_is_no_pattern_for_the_files_of_other_sets(tmp_path):
    others = [write(tmp_path, name) for name in ("m1.h5", "m2.h5")]
    for _ in range(2):  # into an empty place, and over itself
        path = write(tmp_path, "m[12].h5")
        assert [outliers.verify(each) for each in (*others, path)] == [[], [], []]
    outliers.remove_set(path)
    assert len([file for file in tmp_path.iterdir() if file.is_file()]) == 6


def test_moving_the_folder_keeps_the_set_whole(path, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in list(path.parent.glob("set*.h5")):
        shutil.move(file, moved / file.name)
    assert outliers.OutlierSet.open(moved / "set.h5").num_rows == 170
    assert outliers.verify(moved / "set.h5") == []


def test_shards_load_with_datasets(path, tmp_path):
    from datasets import load_dataset

    files = sorted(str(p) for p in path.parent.glob("set-*.h5"))
    loaded = load_dataset("hdf5", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 170
    assert np.array_equal(np.array(loaded[3]["image"]), columns(0, 100)["image"][3])
    assert loaded[120]["label"] == 120


def test_missing_and_altered_shards_are_named(path):
    shard = path.parent / "set-00001-of-00002.h5"
    original = shard.read_bytes()
    with h5py.File(shard, "r+") as file:
        file["image"][3, 0, 0, 0] ^= 1
    with pytest.raises(InputError, match="set-00001-of-00002.h5: was altered"):
        outliers.OutlierSet.open(path)
    assert any("row 3: the pixels do not match" in problem for problem in outliers.verify(path))
    shard.write_bytes(original[:-10])
    with pytest.raises(InputError, match="was altered"):
        outliers.OutlierSet.open(path, check_hashes=False)
    shard.unlink()
    with pytest.raises(InputError, match="set-00001-of-00002.h5: this shard of set.h5 is missing"):
        outliers.OutlierSet.open(path)
    assert len(outliers.verify(path)) == 1


@pytest.mark.parametrize("column", REQUIRED)
def test_a_shard_without_a_column_is_refused_before_a_row_is_read(path, column):
    """Its hash is that of the manifest: a set that was written so, and not one that was damaged."""
    shard = path.parent / "set-00001-of-00002.h5"
    with h5py.File(shard, "r+") as file:
        del file[column]
    with h5py.File(path, "r+") as file:
        manifest = json.loads(file["manifest"][()])
        manifest["shards"][1] |= {"bytes": shard.stat().st_size, "sha256": file_sha256(shard)}
        del file["manifest"], file["manifest_sha256"]
        file["manifest"] = np.bytes_(json.dumps(manifest))
    with pytest.raises(InputError, match=f"set-00001-of-00002.h5: has no column {column}; do not use this file"):
        outliers.OutlierSet.open(path)
    assert outliers.verify(path) == [f"{shard}: has no column {column}"]


def test_what_is_no_outlier_set_is_refused(path, tmp_path):
    with pytest.raises(InputError, match="no such outlier set"):
        outliers.OutlierSet.open(tmp_path / "none.h5")
    with pytest.raises(InputError, match="looks like a shard"):
        outliers.OutlierSet.open(path.parent / "set-00000-of-00002.h5")
    other = tmp_path / "other.h5"
    other.write_text("text")
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        outliers.OutlierSet.open(other)
    document = json.loads(h5py.File(path)["manifest"][()])
    for change, words in (
        ({"schema_version": 99}, "schema version 99"),
        ({"shards": [{**document["shards"][0], "file": "../set.h5"}]}, "outside its folder"),
    ):
        with h5py.File(other, "w") as file:
            file["manifest"] = np.bytes_(json.dumps({**document, **change}))
        with pytest.raises(InputError, match=words):
            outliers.OutlierSet.open(other)


def test_links_and_virtual_datasets_are_refused(path):
    shard = path.parent / "set-00000-of-00002.h5"
    with h5py.File(shard, "r+") as file:
        del file["image"]
        file["image"] = h5py.ExternalLink("set-00001-of-00002.h5", "image")
    assert any("not a plain dataset" in problem for problem in outliers.verify(path))
