import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encode, write_parquet

from srood import datasets
from srood.errors import InputError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


def test_parquet_rows_in_order_with_labels(tmp_path, pixels):
    write_parquet(tmp_path / "a.parquet", pixels, list(range(20)), row_group_size=7)
    loaded = datasets.load_images(str(tmp_path / "a.parquet"))
    assert np.array_equal(loaded.images, pixels)
    assert loaded.labels.tolist() == list(range(20))


@pytest.mark.parametrize("start", [0, 1, 7, 13, 19, 20])
def test_reading_can_start_at_any_row(tmp_path, pixels, start):
    write_parquet(tmp_path / "s" / "train-0.parquet", pixels[:12], list(range(12)), row_group_size=5)
    write_parquet(tmp_path / "s" / "train-1.parquet", pixels[12:], list(range(12, 20)))
    rows = list(datasets.resolve(str(tmp_path / "s")).rows(start))
    assert [row.label for row in rows] == list(range(start, 20))
    assert [int(row.key.rpartition("#")[2]) for row in rows] == list(range(start, 20))


def test_string_labels_become_sorted_class_names(tmp_path, pixels):
    write_parquet(tmp_path / "a.parquet", pixels[:3], ["dog", "ant", "dog"])
    loaded = datasets.load_images(str(tmp_path / "a.parquet"))
    assert loaded.class_names == ("ant", "dog")
    assert loaded.labels.tolist() == [1, 0, 1]


def test_folder_with_class_subfolders(tmp_path, pixels):
    for name, image in zip(["b/2.png", "b/1.png", "a/9.png", "top.png"], pixels, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(image))
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "zero.jpg").write_bytes(b"")
    loaded = datasets.load_images(str(tmp_path))
    assert loaded.class_names == ("a", "b")
    assert loaded.labels.tolist() == [0, 1, 1, -1]
    assert np.array_equal(loaded.images, pixels[[2, 1, 0, 3]])
    assert loaded.skipped == {"empty": 1}


def test_named_set_is_read_from_srood_data(tmp_path, pixels, monkeypatch):
    write_parquet(tmp_path / "cifar10" / "train.parquet", pixels[:10], [i % 10 for i in range(10)], image="img")
    monkeypatch.setenv("SROOD_DATA", str(tmp_path))
    loaded = datasets.load_images("cifar10:train")
    assert np.array_equal(loaded.images, pixels[:10])
    assert loaded.class_names[:2] == ("airplane", "automobile")
    assert datasets.place("cifar10:train") == "$SROOD_DATA/cifar10/train*.parquet"


def test_a_neighbour_of_a_split_is_no_part_of_it(tmp_path, pixels, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(tmp_path))
    folder = tmp_path / "cifar10"
    write_parquet(folder / "test.parquet", pixels[:3], [0] * 3, image="img")
    for name in ("test_corrupted", "test-old", "test2x"):
        write_parquet(folder / f"{name}.parquet", pixels[3:10], [0] * 7, image="img")
    assert datasets.resolve("cifar10:test").num_rows() == 3
    write_parquet(folder / "test-00000-of-00001.parquet", pixels[:5], [0] * 5, image="img")
    with pytest.raises(InputError, match=r"holds test\.parquet and test-00000-of-00001\.parquet, one split twice"):
        datasets.resolve("cifar10:test")
    (folder / "test.parquet").unlink()
    write_parquet(folder / "test-00001-of-00001-0beef.parquet", pixels[:2], [0] * 2, image="img")
    assert datasets.resolve("cifar10:test").num_rows() == 7
    assert datasets.place("cifar10:test") == "$SROOD_DATA/cifar10/test*.parquet"
    for path in folder.glob("test-0*"):
        path.unlink()
    assert datasets.place("cifar10:test").startswith("hf://")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("cifra10", ["no such file, folder or named set", "cifar10"]),
        ("cifar10:tset", ["no split 'tset'", "train, test"]),
        ("hf://only-one-part", ["is not hf://owner/repo"]),
        ("isun:test", ["tried", "$SROOD_DATA/isun/test*.parquet", "hf://detectors/isun-ood"]),
    ],
)
def test_a_spec_that_resolves_nowhere_says_what_was_tried(spec, words, tmp_path, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        datasets.resolve(spec)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
        datasets.resolve(str(path))


def test_parquet_without_images_is_named(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column of images.*text"):
        datasets.resolve(str(tmp_path / "a.parquet"))


def test_id_specs(tmp_path):
    assert datasets.id_specs("cifar10") == ("cifar10:train", "cifar10:test")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    assert datasets.id_specs(str(tmp_path)) == (str(tmp_path / "train"), str(tmp_path / "val"))
    with pytest.raises(
        InputError, match="textures: is not set up as an ID set; choose cifar10 or cifar100, or a folder"
    ):
        datasets.id_specs("textures")


def test_every_packaged_set_has_what_the_code_reads():
    for name in datasets.manifests.names("datasets"):
        info = datasets.dataset_info(name)
        assert info is not None and info.name == name
        assert info.splits and info.license and info.citation


def test_real_sets_have_the_rows_their_readme_states(srood_data, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(srood_data))
    expected = {"cifar10:train": 50_000, "cifar10:test": 10_000, "cifar100:test": 10_000, "textures:test": 1_200}
    assert {spec: datasets.resolve(spec).num_rows() for spec in expected} == expected
    labels = [row.label for row in datasets.resolve("cifar10:test").rows()]
    assert np.bincount(labels).tolist() == [1_000] * 10
