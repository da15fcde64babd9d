import io
import json

import datasets
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from exported_sets import ID_CLASSES, LABELS, write_labelled
from PIL import Image

from curate.exporting import parquet
from srood.datasets import load_images
from srood.errors import InputError
from srood.outliers import OutlierSet


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> OutlierSet:
    return write_labelled(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def files(opened, tmp_path_factory):
    return parquet.write_parquet(opened, tmp_path_factory.mktemp("parquet"))


def plain(opened: OutlierSet, name: str) -> np.ndarray:
    """A column by plain h5py."""
    parts = []
    for entry in opened.manifest["shards"]:
        with h5py.File(opened.path.parent / entry["file"]) as file:
            parts.append(file[name][:])
    return np.concatenate(parts)


def test_one_file_a_shard(opened, files):
    assert [path.name for path in files] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.ParquetFile(path).metadata.num_rows for path in files] == [70, 50, 9]


def test_datasets_gives_the_same_pixels_and_columns(opened, files, tmp_path):
    loaded = datasets.load_dataset(
        "parquet", data_files=list(map(str, files)), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.features["image"] == datasets.Image()
    assert loaded.features["label"] == datasets.ClassLabel(names=LABELS)
    assert loaded.features["id_class"] == datasets.ClassLabel(names=ID_CLASSES)
    assert np.array_equal(np.stack([np.asarray(image) for image in loaded["image"]]), plain(opened, "image"))
    for name in ("label", "id_similarity", "id_class", "cluster", "id_ness", "energy"):
        stored = plain(opened, name)
        assert np.array_equal(np.array(loaded[name], stored.dtype), stored)
    for name in ("key", "sha256"):
        assert loaded[name][:] == [value.decode() for value in plain(opened, name)]
    assert set(loaded.column_names) == {"image"} | set(h5py.File(opened.path.parent / "mini-00000-of-00003.h5"))
    undecoded = loaded.cast_column("image", datasets.Image(decode=False))
    assert [row["path"] for row in undecoded["image"]] == [f"{number:09d}.png" for number in range(129)]


def test_features_are_those_of_the_files_and_in_the_form_of_datasets(opened, files):
    for images, schema in ((True, pq.read_schema(files[1])), (False, None)):
        described = parquet.features(opened, images=images)
        assert datasets.Features.from_dict(described).to_dict() == described
        assert ("image" in described) == images
        if schema is not None:
            assert json.loads(schema.metadata[b"huggingface"]) == {"info": {"features": described}}
            assert schema.equals(datasets.Features.from_dict(described).arrow_schema)


def test_our_own_reader_gives_the_same_pixels_and_labels(opened, files):
    read = load_images(str(files[0].parent), image_size=None)
    assert np.array_equal(read.images, plain(opened, "image"))
    assert np.array_equal(read.labels, plain(opened, "label"))
    assert read.class_names == tuple(LABELS)


def test_without_images(opened, tmp_path):
    paths = parquet.write_parquet(opened, tmp_path, split="index", images=False)
    assert paths[0].name == "index-00000-of-00003.parquet"
    table = pq.read_table(paths[0])
    assert "image" not in table.column_names and table.num_rows == 70
    assert table["sha256"].to_pylist() == [value.decode() for value in plain(opened, "sha256")[:70]]


def test_workers_change_no_byte(opened, files, tmp_path):
    for path in parquet.write_parquet(opened, tmp_path, workers=3):
        assert path.read_bytes() == (files[0].parent / path.name).read_bytes()


def test_row_groups_are_what_a_viewer_can_fetch(tmp_path, monkeypatch):
    from curate.exporting import rows

    opened = write_labelled(tmp_path / "set")
    assert rows.block_rows(opened) == 1000
    monkeypatch.setattr(rows, "BLOCK_BYTES", 16 * 16 * 3 * 32 + 5)
    metadata = pq.ParquetFile(parquet.write_parquet(opened, tmp_path)[0]).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [32, 32, 6]
    assert all(metadata.row_group(0).column(i).has_offset_index for i in range(metadata.num_columns))


@pytest.mark.parametrize("names", [["a", "a", *"bcdefgh"], ["only", "two"], []])
def test_labels_without_a_name_each_stay_numbers(tmp_path, names):
    opened = write_labelled(tmp_path / "set", label_names=names, id_filter={})
    described = parquet.features(opened)
    assert described["label"] == described["id_class"] == {"dtype": "int64", "_type": "Value"}
    paths = parquet.write_parquet(opened, tmp_path)
    loaded = datasets.load_dataset("parquet", data_files=str(paths[0]), split="train", cache_dir=str(tmp_path / "c"))
    assert np.array_equal(loaded["label"], plain(opened, "label")[:70])


def test_a_row_that_does_not_match_its_hash_is_not_exported(tmp_path):
    opened = write_labelled(tmp_path / "set")
    with h5py.File(tmp_path / "set" / "mini-00001-of-00003.h5", "r+") as file:
        file["image"][17, 3, 2, 1] ^= 1
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=r"mini-00001-of-00003.h5: row 17: the pixels do not match"):
        parquet.write_parquet(opened, out)
    assert [path.name for path in out.iterdir()] == ["train-00000-of-00003.parquet"]
    with Image.open(io.BytesIO(pq.read_table(out)["image"][0]["bytes"].as_py())) as image:
        assert np.array_equal(np.asarray(image), plain(opened, "image")[0])


def test_a_column_that_fits_no_format_is_named(tmp_path):
    opened = write_labelled(tmp_path / "set")
    with h5py.File(tmp_path / "set" / "mini-00002-of-00003.h5", "r+") as file:
        file["embedding"] = np.zeros((9, 4), np.float32)
    with pytest.raises(InputError, match="mini-00002-of-00003.h5: column 'embedding' is neither text nor one number"):
        parquet.features(opened)
