import json
import re
import shutil
import tarfile
from pathlib import Path

import datasets
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torchvision
import webdataset
from exported_sets import ID_CLASSES, LABELS, write_labelled
from PIL import Image

from curate.exporting import class_folders, imagefolder
from curate.exporting.export import FORMATS, export
from srood.datasets import load_images
from srood.outliers import OutlierSet

NUMBERS = ("label", "id_similarity", "id_class", "cluster", "id_ness", "energy")


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> OutlierSet:
    return write_labelled(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def exports(opened, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    for name in FORMATS:
        export(str(opened.path), name, root / name)
    return {name: root / name for name in FORMATS}


@pytest.fixture(scope="module")
def plain(opened) -> dict[str, np.ndarray]:
    """All columns by plain h5py."""
    parts = []
    for entry in opened.manifest["shards"]:
        with h5py.File(opened.path.parent / entry["file"]) as file:
            parts.append({name: file[name][:] for name in file})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_same(loaded, plain):
    """Rows of `datasets`, or dictionaries, against the columns of the set."""
    for name in NUMBERS:
        stored = plain[name]
        assert np.array_equal(np.array([row[name] for row in loaded], stored.dtype), stored), name
    for name in ("key", "sha256"):
        assert [row[name] for row in loaded] == [value.decode() for value in plain[name]]


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


# ---- parquet: tests/test_export_parquet.py has the rest -------------------------------------------------------------


@pytest.mark.parametrize("how", [{"path": "parquet", "data_dir": True}, {"path": True}])
def test_datasets_reads_the_parquet_folder(exports, plain, tmp_path, how):
    folder = str(exports["parquet"])
    how = {name: folder if value is True else value for name, value in how.items()}
    loaded = datasets.load_dataset(**how, cache_dir=str(tmp_path))
    assert set(loaded) == {"train"}
    assert np.array_equal(pixels(loaded["train"]["image"]), plain["image"])
    assert_same(loaded["train"], plain)


# ---- webdataset -----------------------------------------------------------------------------------------------------


def test_the_webdataset_library_reads_the_tars(exports, plain):
    tars = [str(path) for path in sorted(exports["webdataset"].glob("*.tar"))]
    assert [Path(tar).name for tar in tars] == [f"train-0000{i}-of-00003.tar" for i in range(3)]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"{row:09d}" for row in range(129)]
    assert np.array_equal(pixels(sample["png"] for sample in samples), plain["image"])
    rows = [sample["json"] for sample in samples]
    assert_same(rows, plain)
    assert [row["label_name"] for row in rows] == [LABELS[i] if i >= 0 else "" for i in plain["label"]]
    assert [row["id_class_name"] for row in rows] == [ID_CLASSES[i] for i in plain["id_class"]]


@pytest.mark.parametrize("how", [{"path": "webdataset", "data_dir": True}, {"path": True}])
def test_datasets_reads_the_tars(exports, plain, tmp_path, how):
    folder = str(exports["webdataset"])
    how = {name: folder if value is True else value for name, value in how.items()}
    loaded = datasets.load_dataset(**how, split="train", cache_dir=str(tmp_path))
    assert np.array_equal(pixels(loaded["png"]), plain["image"])
    assert_same(loaded["json"], plain)


def test_tar_headers_hold_no_time_and_no_owner(exports):
    with tarfile.open(exports["webdataset"] / "train-00001-of-00003.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members[:3]] == ["000000070.png", "000000070.json", "000000071.png"]
    kinds = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.isreg()) for m in members}
    assert kinds == {(0, 0, 0, "", "", 0o644, True)}


def test_a_number_that_json_cannot_hold_is_null(tmp_path):
    from curate.exporting.rows import Block
    from curate.exporting.webdataset import _texts

    columns = {"key": np.array([b"a", b"b"]), "energy": np.array([np.nan, -np.inf], np.float32)}
    texts = _texts(Block(0, np.zeros((2, 4, 4, 3), np.uint8), columns), ["key", "energy"], {})
    assert [json.loads(text) for text in texts] == [{"key": "a", "energy": None}, {"key": "b", "energy": None}]


# ---- imagefolder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"path": "imagefolder", "data_dir": True}, {"path": True}])
def test_datasets_reads_the_folder(exports, plain, tmp_path, how):
    folder = str(exports["imagefolder"])
    how = {name: folder if value is True else value for name, value in how.items()}
    loaded = datasets.load_dataset(**how, cache_dir=str(tmp_path))
    assert set(loaded) == {"train"}  # though labels are called "train" and "crash test dummy"
    assert loaded["train"].features["label"] == datasets.ClassLabel(names=LABELS)
    assert np.array_equal(pixels(loaded["train"]["image"]), plain["image"])
    assert_same(loaded["train"], plain)


def test_torchvision_reads_the_folder(exports, plain):
    read = torchvision.datasets.ImageFolder(exports["imagefolder"] / "train")
    folders = {0: LABELS[0], 1: "Straße_Weg", 2: "train~", 3: "crash test~ dummy", 4: "空き家"}
    folders |= {5: "a_b~5", 6: "a_b~6", 7: "con~", 8: "NA", -1: "unlabelled"}
    assert sorted(read.classes) == sorted(folders.values())
    rows = [int(Path(path).stem) for path, _ in read.samples]
    assert sorted(rows) == list(range(129))
    assert [read.classes[index] for _, index in read.samples] == [folders[plain["label"][row]] for row in rows]
    assert np.array_equal(pixels(image for image, _ in read), plain["image"][rows])


def test_the_table_beside_the_pictures_keeps_types(exports, plain):
    table = pq.read_table(exports["imagefolder"] / "train" / "metadata.parquet")
    assert table.column_names[0] == "file_name" and table.num_rows == 129
    for name in NUMBERS:
        assert table[name].to_numpy().dtype == plain[name].dtype
    root = exports["imagefolder"] / "train"
    for name, image in zip(table["file_name"].to_pylist(), plain["image"], strict=True):
        with Image.open(root / name) as read:
            assert read.format == "PNG" and np.array_equal(np.asarray(read), image)


def test_names_that_are_no_file_names():
    given = ["../etc/passwd", ".hidden", "NUL.txt", "tail. ", "Cat", "cat", "unlabelled", "", "a\0b\n", "bullet train"]
    given += ["x" * 300, "x" * 301, "猫" * 100, "vals", "test1", "e\u0301", "\u00e9"]
    found = class_folders.folder_names(given)
    assert found[:6] == ["_etc_passwd", "hidden", "NUL.txt~", "tail", "Cat~4", "cat~5"]
    assert found[6:10] == ["unlabelled~6", "~7", "a_b_", "bullet train~"]
    assert found[10:13] == ["x" * 100 + "~10", "x" * 100 + "~11", "猫" * 33]
    assert found[13:] == ["vals", "test~1", "\u00e9~15", "\u00e9~16"]


def test_no_folder_is_called_as_the_table():
    assert class_folders.folder_names(["metadata.parquet", "cat"]) == ["metadata.parquet~0", "cat"]


def test_no_folder_has_more_than_ten_thousand_pictures():
    labels = np.r_[np.zeros(25_000, int), np.ones(3, int), -np.ones(10_001, int)]
    names = imagefolder.file_names(labels, ["dog", "cat"])
    assert names[0] == "dog/00000/000000000.png" and names[24_999] == "dog/00002/000024999.png"
    assert names[25_000] == "cat/000025000.png" and names[-1] == "unlabelled/00001/000035003.png"
    _, counts = np.unique([name.rpartition("/")[0] for name in names], return_counts=True)
    assert counts.max() == 10_000 and len(set(names)) == len(labels)
    assert imagefolder.file_names(np.array([7, -1]), None) == ["7/000000000.png", "unlabelled/000000001.png"]


# ---- hdf5 -----------------------------------------------------------------------------------------------------------


def test_plain_h5py_reads_the_one_file(exports, plain):
    assert sorted(path.name for path in exports["hdf5"].iterdir()) == ["manifest.json", "mini.hdf5"]
    with h5py.File(exports["hdf5"] / "mini.hdf5") as file:
        assert set(file) == set(plain)
        for name, values in plain.items():
            assert np.array_equal(file[name][:], values) and file[name].dtype == values.dtype
            assert file[name].chunks[0] == 64 and file[name].compression is None


def test_datasets_reads_the_one_file(exports, plain, tmp_path):
    file = str(exports["hdf5"] / "mini.hdf5")
    loaded = datasets.load_dataset("hdf5", data_files=file, split="train", cache_dir=str(tmp_path))
    assert np.array_equal(np.array(loaded["image"], np.uint8), plain["image"])
    assert_same([{**row, "key": row["key"].decode(), "sha256": row["sha256"].decode()} for row in loaded], plain)


# ---- all ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "where", "classes"),
    [
        ("parquet", "", True),
        ("webdataset", "", True),
        ("imagefolder", "train", False),
        ("hdf5", "mini.hdf5", None),
    ],
)
def test_our_own_reader_gives_the_same_pixels_and_labels(exports, plain, name, where, classes):
    read = load_images(str(exports[name] / where), image_size=None)
    rows = np.arange(129)
    if name == "imagefolder":
        rows = np.array([int(Path(key).stem) for key in read.keys])
        assert sorted(rows) == list(range(129))
    assert np.array_equal(read.images, plain["image"][rows])
    labels = plain["label"][rows]
    if classes is None:
        assert np.array_equal(read.labels, labels)
    else:
        wanted = LABELS if classes else class_folders.folder_names(LABELS)
        no_label = "unlabelled" if name == "imagefolder" else None
        named = [read.class_names[label] if label >= 0 else None for label in read.labels]
        assert named == [wanted[label] if label >= 0 else no_label for label in labels]


@pytest.mark.parametrize("name", list(FORMATS))
def test_without_labels_and_class_names(name, tmp_path):
    opened = write_labelled(tmp_path / "set", labelled=False, id_filter={})
    assert export(str(opened.path), name, tmp_path / name).rows == 129
    where = tmp_path / name / ("mini.hdf5" if name == "hdf5" else "")
    read = load_images(str(where), image_size=None)
    assert np.array_equal(read.images, opened.read_images())
    assert set(read.labels) == ({0} if name == "imagefolder" else {-1})


def test_the_page_on_exports_reads_them_as_it_says(exports, opened, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs" / "export.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    shutil.copytree(exports["hdf5"].parent, tmp_path / "exports")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for block in blocks:
        exec(block, {})
    printed = capsys.readouterr().out.splitlines()
    first = opened.read("key", [0])[0].decode()
    assert first in printed[0] and printed[1] == LABELS[0]
    assert printed[2:] == [
        f"(16, 16, 3) {LABELS[0]}",
        f"Image(mode=None, decode=True) {first}",
        "10",
        f"(129, 16, 16, 3) {first}",
    ]
