"""Every format that image specs may name: rows, labels, keys, reading on from the middle, and files made to harm."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from pictures import encode, pictures, write_parquet
from PIL import Image

from srood import datasets, images, outliers
from srood.containers import container, open_container, tar_file, tiny_images
from srood.errors import InputError
from srood.hashes import pixel_sha256
from srood.labels import number_labels

LABELS = ["cat", "dog", "cat", "emu", "dog", "cat", "cat", "emu", "dog"]
NUMBERS = [["cat", "dog", "emu"].index(label) for label in LABELS]


@pytest.fixture(scope="module")
def pixels():
    return pictures(9, seed=4)


def member(row):
    return f"{LABELS[row]}/{row}.png"


def write_zip(path, files, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def write_tar(path, files, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_outliers(path, pixels):
    columns = {
        "image": pixels,
        "key": np.array([b"k"] * len(pixels)),
        "sha256": np.array([pixel_sha256(p).encode() for p in pixels]),
        "label": np.array(NUMBERS),
        "id_similarity": np.zeros(len(pixels), np.float32),
        "id_class": np.zeros(len(pixels), np.int64),
    }
    halves = [{name: values[part] for name, values in columns.items()} for part in (slice(0, 5), slice(5, None))]
    manifest = {"config": {"image_size": 32}, "label_names": ["cat", "dog", "emu"], "sources": [{"license": "CC0"}]}
    path.with_name("scratch").mkdir()
    return outliers.write_set(path, iter(halves), 2, manifest, path.with_name("scratch"))


def make(kind, folder, pixels):
    """A file of one kind with all nine pictures in order, and what its keys are expected to be."""
    files = [(member(row), encode(pixels[row])) for row in range(9)]
    numbered = [f"#{row}" for row in range(9)]
    named = [f"/{name}" for name, _ in files]
    if kind == "folder":
        for name, data in files:
            (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "set" / name).write_bytes(data)
        order = sorted(range(9), key=member)
        return folder / "set", [named[row] for row in order]
    if kind == "list":
        make("folder", folder, pixels)
        (folder / "set.txt").write_text("".join(f"set/{name}\t{name[:3]}\n" for name, _ in files))
        return folder / "set.txt", [f"/set{name}" for name in named]
    if kind == "parquet":
        return write_parquet(folder / "a.parquet", pixels, LABELS, row_group_size=4), numbered
    if kind == "zip":
        return write_zip(folder / "a.zip", files), named
    if kind == "tar":
        return write_tar(folder / "a.tar", files), named
    if kind == "webdataset":
        parts = [
            item
            for row in range(9)
            for item in ((f"{row:04d}.png", files[row][1]), (f"{row:04d}.cls", LABELS[row].encode()))
        ]
        return write_tar(folder / "w.tar", parts), [f"/{row:04d}.png" for row in range(9)]
    if kind == "tar shards":
        (folder / "shards").mkdir()
        write_tar(folder / "shards" / "0.tar", files[:4])
        write_tar(folder / "shards" / "1.tar", files[4:])
        return folder / "shards", [f"/{0 if row < 4 else 1}.tar{named[row]}" for row in range(9)]
    if kind == "h5":
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset("images", data=pixels, chunks=(2, 32, 32, 3), compression="gzip")
            file["labels"] = NUMBERS
            file.create_group("notes")
        return folder / "a.h5", numbered
    if kind == "outliers":
        return write_outliers(folder / "set.h5", pixels), numbered
    if kind == "shard":
        write_outliers(folder / "set.h5", pixels)
        with h5py.File(folder / "whole.h5", "w") as file:
            file["image"], file["label"] = pixels, NUMBERS
        return folder / "whole.h5", numbered
    if kind == "npy":
        np.save(folder / "a.npy", pixels)
        return folder / "a.npy", numbered
    assert kind == "tiny"
    (folder / "tiny_images.bin").write_bytes(b"".join(record(image) for image in pixels))
    return folder / "tiny_images.bin", numbered


def record(image):
    """A record as MATLAB writes an array of 32 x 32 x 3: the first index runs fastest, the last slowest."""
    return bytes(image[row, column, channel] for channel in range(3) for column in range(32) for row in range(32))


NAMED = ("folder", "list", "parquet", "zip", "tar", "webdataset", "tar shards", "outliers")
KINDS = (*NAMED, "h5", "shard", "npy", "tiny")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_labels_and_keys_of_every_format(kind, tmp_path, pixels):
    path, keys = make(kind, tmp_path, pixels)
    source = datasets.resolve(str(path))
    rows = list(source.rows())
    assert source.num_rows() == len(rows) == 9
    assert [row.key for row in rows] == [path.name + key for key in keys]
    order = sorted(range(9), key=member) if kind == "folder" else range(9)
    assert np.array_equal(datasets.load_images(str(path)).images, pixels[list(order)])
    assert source.class_names == (("cat", "dog", "emu") if kind in NAMED else ())
    expected = [-1] * 9 if kind in ("npy", "tiny") else [NUMBERS[row] for row in order]
    assert [row.label for row in rows] == expected
    assert source.license == ("CC0" if kind == "outliers" else "unknown")


@pytest.mark.parametrize("kind", KINDS)
def test_reading_on_from_any_row(kind, tmp_path, pixels):
    path, _ = make(kind, tmp_path, pixels)
    source = datasets.resolve(str(path))
    rows = [(row.key, row.label, data_of(row.data)) for row in source.rows()]
    for start in range(11):
        assert [(row.key, row.label, data_of(row.data)) for row in source.rows(start)] == rows[start:]


def data_of(data):
    return data.tobytes() if isinstance(data, np.ndarray) else str(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fingerprint_is_of_the_content(kind, tmp_path, pixels):
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for folder, content in ((one, pixels), (two, pixels), (other, pictures(9, seed=5))):
        folder.mkdir()
        make(kind, folder, content)
    path, _ = make(kind, tmp_path, pixels)
    found = [datasets.resolve(str(folder / path.name)).fingerprint() for folder in (one, two, other)]
    assert found[0] != found[2]
    assert kind in ("zip", "webdataset", "tar") or found[0] == found[1]  # archives hold times


def test_archives_are_never_extracted(tmp_path, pixels, monkeypatch):
    for name in ("extract", "extractall"):
        monkeypatch.setattr(zipfile.ZipFile, name, None)
        monkeypatch.setattr(tarfile.TarFile, name, None)
    before = set(os.listdir("."))
    for kind in ("zip", "tar"):
        path, _ = make(kind, tmp_path, pixels)
        assert len(datasets.load_images(str(path)).images) == 9
    assert set(os.listdir(".")) == before and sorted(os.listdir(tmp_path)) == ["a.tar", "a.zip"]


# ---- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["cat/1.png", "dog/2.png"], ["cat", "dog"]),
        (["images/cat/1.png", "images/dog/2.png"], ["cat", "dog"]),
        (["a/b/cat/1.png", "a/b/dog/x/2.png"], ["cat", "dog"]),
        (["cat/1.png", "cat/2.png"], ["cat", "cat"]),
        (["a/cat/1.png", "a/cat/2.png"], ["cat", "cat"]),
        (["1.png", "cat/2.png"], [None, "cat"]),
        (["1.png", "2.png"], [None, None]),
        (["images/cat/1.png", "images/2.png"], ["images", "images"]),
        (["x/cat/1.png", "../dog/2.png", "x/emu/3.png"], ["cat", None, "emu"]),
    ],
)
def test_folders_of_an_archive_are_labels_below_those_that_all_share(names, labels):
    assert container.archive_labels(names) == labels


@pytest.mark.parametrize(
    ("texts", "numbers", "names"),
    [
        (["b", "a", None, "b"], [1, 0, -1, 1], ("a", "b")),
        (["3", "10", None, "-1"], [3, 10, -1, -1], ()),
        (["3", "x"], [0, 1], ("3", "x")),
        (["9" * 30, "1"], [1, 0], ("1", "9" * 30)),
        ([None], [-1], ()),
    ],
)
def test_labels_are_integers_or_indices_into_names(texts, numbers, names):
    found, found_names = number_labels(texts)
    assert (found.tolist(), found_names) == (numbers, names)


def test_labels_of_an_archive_are_those_of_the_folder_that_was_packed(tmp_path, pixels):
    files = [(f"{year}/{number}.png", encode(pixels[number])) for number, year in enumerate((2012, 2007, 2012, 999))]
    for name, data in files:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(data)
    write_zip(tmp_path / "a.zip", sorted(files))
    write_tar(tmp_path / "a.tar", sorted(files))
    backward = [zipfile.ZipInfo("x") for _ in files]
    for info, (name, _) in zip(backward, sorted(files), strict=True):
        info.filename = name.replace("/", "\\")  # as some programs for Windows do
    write_zip(tmp_path / "b.zip", zip(backward, (data for _, data in sorted(files)), strict=True))
    for name in ("photos", "a.zip", "a.tar", "b.zip"):
        found = datasets.load_images(str(tmp_path / name))
        assert (found.labels.tolist(), found.class_names) == ([0, 1, 1, 2], ("2007", "2012", "999"))
        assert found.keys[0] == f"{name}/2007/1.png"


@pytest.mark.parametrize("labels", [np.array([[1], [0]]), np.array([1.0, 0.0], np.float32), np.array([True, False])])
def test_labels_of_hdf5_in_other_shapes_and_types(tmp_path, pixels, labels):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["labels"] = pixels[:2], labels
    assert [row.label for row in datasets.resolve(str(tmp_path / "a.h5")).rows()] == [1, 0]


def webdataset(folder, samples):
    return datasets.resolve(str(write_tar(folder / "w.tar", [item for sample in samples for item in sample])))


def test_webdataset_labels_from_cls_json_or_txt(tmp_path, pixels):
    image = encode(pixels[0])
    samples = [
        [("a/1.jpg", image), ("a/1.cls", b"7"), ("a/1.txt", b"a caption")],
        [("a/2.json", b'{"label": 5.0, "x": 1}'), ("a/2.png", image)],
        [("a/3.txt", b"6\n"), ("a/3.seg.png", image), ("a/3.png", encode(pixels[1]))],
        [("a/4.json", b"not json"), ("a/4.png", image)],
        [("a/5.json", b"[1]"), ("a/5.txt", b"no picture")],
        [("b/1.png", image)],
    ]
    source = webdataset(tmp_path, samples)
    rows = list(source.rows())
    assert [row.key for row in rows] == [
        "w.tar/" + name for name in ("a/1.jpg", "a/2.png", "a/3.png", "a/4.png", "b/1.png")
    ]
    assert [row.label for row in rows] == [7, 5, 6, -1, -1]
    assert source.class_names == ()
    assert rows[2].data == encode(pixels[1])


def test_of_json_the_name_of_a_label_comes_before_its_number(tmp_path, pixels):
    image = encode(pixels[0])
    given = [
        '{"label": 7, "label_name": "cat"}',
        '{"label": -1, "label_name": ""}',
        '{"label": 2, "label_name": "ant"}',
    ]
    samples = [[(f"{n}.png", image), (f"{n}.json", text.encode())] for n, text in enumerate(given)]
    source = webdataset(tmp_path, samples)
    assert source.class_names == ("ant", "cat")
    assert [row.label for row in source.rows()] == [1, -1, 0]


def test_captions_are_no_labels(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(tar_file, "MAX_TEXTS", 3)
    image = encode(pixels[0])
    captioned = [[(f"{n}.png", image), (f"{n}.txt", b"caption %d" % n)] for n in range(6)]
    assert webdataset(tmp_path, captioned).class_names == ()
    classes = [[(f"{n}.png", image), (f"{n}.txt", b"class %d" % (n % 3))] for n in range(6)]
    assert webdataset(tmp_path, classes).class_names == ("class 0", "class 1", "class 2")


def test_a_list_may_mix_labels_paths_and_gaps(tmp_path, pixels):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b.png").write_bytes(encode(pixels[0]))
    (tmp_path / "c.png").write_bytes(encode(pixels[1]))
    (tmp_path / "in" / "set.txt").write_bytes(
        f"a b.png\t4\r\n\r\n../c.png\n{tmp_path}/c.png\t2\ngone.png\t3\n".encode("utf-8-sig")
    )
    loaded = datasets.load_images(str(tmp_path / "in" / "set.txt"))
    assert np.array_equal(loaded.images, pixels[[0, 1, 1]])
    assert loaded.labels.tolist() == [4, -1, 2]
    assert loaded.skipped == {"unreadable file": 1}
    keys = [row.key for row in datasets.resolve(str(tmp_path / "in" / "set.txt")).rows()]
    assert keys == ["set.txt/a b.png", "set.txt/../c.png", "set.txt#2", "set.txt/gone.png"]


def test_a_path_too_long_to_be_one_is_a_row_that_cannot_be_read(tmp_path, pixels):
    (tmp_path / "a.png").write_bytes(encode(pixels[0]))
    (tmp_path / "set.txt").write_text("b" * 65_536 + "\na.png\n")
    size = (tmp_path / "a.png").stat().st_size
    expected = hashlib.sha256(f"{'b' * 65_536}\0-1\0-1\na.png\0-1\0{size}\n".encode()).hexdigest()
    assert open_container(tmp_path / "set.txt").fingerprint() == expected
    loaded = datasets.load_images(str(tmp_path / "set.txt"))
    assert np.array_equal(loaded.images, pixels[:1]) and loaded.skipped == {"unreadable file": 1}


# ---- arrays ---------------------------------------------------------------------------------------------------------


def test_a_tiny_images_record_is_column_major():
    """Byte row + 32 * column + 1024 * channel: a record by hand, and NumPy's Fortran order."""
    data = bytearray(3072)
    data[5 + 32 * 7 + 1024 * 2] = 200  # blue at row 5, column 7
    data[31] = 100  # red at row 31, column 0
    image = tiny_images.decode_records(bytes(data))[0]
    assert (image[5, 7, 2], image[31, 0, 0], image.sum()) == (200, 100, 300)
    noise = np.random.default_rng(0).integers(0, 256, 4 * 3072, dtype=np.uint8)
    expected = [noise[n * 3072 : (n + 1) * 3072].reshape((32, 32, 3), order="F") for n in range(4)]
    assert np.array_equal(tiny_images.decode_records(noise.tobytes()), expected)


def test_blocks_of_tiny_images_join(tmp_path, monkeypatch, pixels):
    monkeypatch.setattr(tiny_images, "BLOCK", 2)
    path, _ = make("tiny", tmp_path, pixels)
    for start in (0, 1, 8, 9):
        rows = list(datasets.resolve(str(path)).rows(start))
        assert all(np.array_equal(row.data, pixels[start + n]) for n, row in enumerate(rows)) and len(rows) == 9 - start


def test_grey_and_fortran_ordered_arrays(tmp_path, pixels):
    np.save(tmp_path / "grey.npy", pixels[..., 0])
    grey = datasets.load_images(str(tmp_path / "grey.npy")).images
    assert np.array_equal(grey, np.repeat(pixels[..., :1], 3, axis=3))
    np.save(tmp_path / "f.npy", np.asfortranarray(pixels))
    assert np.array_equal(datasets.load_images(str(tmp_path / "f.npy")).images, pixels)


def test_a_large_file_is_fingerprinted_by_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "WHOLE", 1 << 20)
    monkeypatch.setattr(container, "SAMPLES", 5)
    size = 3 << 20
    (tmp_path / "a").write_bytes(bytes(size))
    plain = container.file_fingerprint(tmp_path / "a")
    for at in (0, size - 1, size // 2):  # the first, last and middle blocks are among the samples
        content = bytearray(size)
        content[at] = 1
        (tmp_path / "b").write_bytes(content)
        assert container.file_fingerprint(tmp_path / "b") != plain
    (tmp_path / "b").write_bytes(bytes(size + 1))
    assert container.file_fingerprint(tmp_path / "b") != plain


# ---- made to harm ---------------------------------------------------------------------------------------------------


SMALL = images.Limits(bytes=10_000)


def reasons(path, limits=images.DEFAULT_LIMITS):
    loaded = datasets.load_images(str(path), limits=limits)
    return len(loaded.images), loaded.skipped


def test_zip_members_that_lead_out_or_lie_are_counted(tmp_path, pixels):
    good = encode(pixels[0])
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = 0o120777 << 16
    names = ["cat/a.png", "../b.png", "/c.png", "cat/../../d.png", "C:/e.png", link, "cat/.f.png", "__MACOSX/g.png"]
    path = write_zip(tmp_path / "a.zip", [(name, good) for name in names])
    assert reasons(path) == (1, {"unsafe member name": 4, "link or device": 1})
    assert datasets.resolve(str(path)).class_names == ("cat",)

    bomb = write_zip(
        tmp_path / "bomb.zip", [("a.png", good), ("b.png", bytes(20_000))], compression=zipfile.ZIP_DEFLATED
    )
    assert reasons(bomb, SMALL) == (1, {"too many bytes": 1})
    lying = bytearray(bomb.read_bytes())  # the same member claims to be 100 bytes long, in both of its headers
    while (at := lying.find(struct.pack("<I", 20_000))) >= 0:
        lying[at : at + 4] = struct.pack("<I", 100)
    (tmp_path / "lying.zip").write_bytes(lying)
    assert reasons(tmp_path / "lying.zip", SMALL) == (1, {"truncated or corrupt": 1})


def test_damaged_and_unsupported_zip_members_are_counted(tmp_path, pixels):
    good = encode(pixels[0])
    path = write_zip(tmp_path / "a.zip", [("a.png", good), ("b.png", encode(pixels[1]))])
    content = bytearray(path.read_bytes())
    content[content.rfind(b"IDAT") + 20] ^= 255
    path.write_bytes(content)
    assert reasons(path) == (1, {"truncated or corrupt": 1})
    packed = write_zip(tmp_path / "l.zip", [("b.png", good)], compression=zipfile.ZIP_LZMA)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("a.png", good)
    assert reasons(packed) == (1, {"unsupported compression": 1})
    locked = bytearray(write_zip(tmp_path / "e.zip", [("a.png", good), ("b.png", good)]).read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.rfind(signature) + offset] |= 1
    (tmp_path / "e.zip").write_bytes(locked)
    assert reasons(tmp_path / "e.zip") == (1, {"encrypted": 1})


def test_tar_members_that_lead_out_or_lie_are_counted(tmp_path, pixels):
    good = encode(pixels[0])
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("cat/a.png", "../b.png", "/c.png", "cat/../../d.png"):
            info = tarfile.TarInfo(name)
            info.size = len(good)
            archive.addfile(info, io.BytesIO(good))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"cat/{ord(kind)}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert reasons(path) == (1, {"unsafe member name": 3, "link or device": 4})
    assert reasons(write_tar(tmp_path / "b.tar", [("a.png", good), ("b.png", bytes(20_000))]), SMALL) == (
        1,
        {"too many bytes": 1},
    )


def test_names_that_are_no_utf8_are_escaped(tmp_path, pixels):
    write_tar(tmp_path / "a.tar", [("caf\udce9/a.png", encode(pixels[0]))], errors="surrogateescape")
    row = next(datasets.resolve(str(tmp_path / "a.tar")).rows())
    assert row.key == "a.tar/caf\\udce9/a.png" and row.key.encode()


def test_a_loose_file_that_is_too_large_or_no_file(tmp_path, pixels):
    (tmp_path / "a.png").write_bytes(encode(pixels[0]))
    (tmp_path / "b.png").write_bytes(bytes(20_000))
    os.mkfifo(tmp_path / "c.png")
    assert reasons(tmp_path, SMALL) == (1, {"too many bytes": 1, "unreadable file": 1})


def test_links_out_of_a_folder_are_not_followed(tmp_path, pixels):
    root, other = tmp_path / "set", tmp_path / "set-other"
    for name in ("set/a.png", "set-other/secret.png", "set-other/deep/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(pixels[0]))
    (root / "inside.png").symlink_to("a.png")
    (root / "round.png").symlink_to("../set/a.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "gone.png").symlink_to("nowhere.png")
    for name, target in (("out", "../set-other/secret.png"), ("out-gone", "/nowhere.png"), ("root", "/etc/passwd")):
        (root / f"{name}.png").symlink_to(target)
    (root / "folder").symlink_to(other)
    (root / "folder.png").symlink_to(other)
    assert reasons(root) == (3, {"link out of the folder": 3, "unreadable file": 2})
    fingerprint = datasets.resolve(str(root)).fingerprint()
    (other / "secret.png").write_bytes(bytes(3))
    assert datasets.resolve(str(root)).fingerprint() == fingerprint
    (tmp_path / "link").symlink_to(root)  # the folder that is given may be a link itself
    assert reasons(tmp_path / "link") == reasons(root)


@pytest.mark.parametrize("name", ["a.parquet", "a.tar"])
def test_a_folder_whose_archive_is_a_link_out_of_it_is_refused(tmp_path, name):
    (tmp_path / "set").mkdir()
    (tmp_path / name).write_bytes(b"not read")
    (tmp_path / "set" / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match=f"set/{name}: is a link out of the folder"):
        datasets.resolve(str(tmp_path / "set"))


def external_link(path):
    with h5py.File(path, "w") as file:
        file["image"] = h5py.ExternalLink("other.h5", "image")


def soft_link(path):
    with h5py.File(path, "w") as file:
        file["real"] = pictures(2, 0)
        file["image"] = h5py.SoftLink("/real")


def virtual(path):
    with h5py.File(path.with_name("real.hdf5"), "w") as file:
        file["image"] = pictures(2, 0)
    layout = h5py.VirtualLayout((2, 32, 32, 3), np.uint8)
    layout[:] = h5py.VirtualSource(path.with_name("real.hdf5"), "image", (2, 32, 32, 3))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("image", layout)


def external_storage(path):
    path.with_name("raw.data").write_bytes(bytes(2 * 3072))
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "image", (2, 32, 32, 3), np.uint8, external=[(str(path.with_name("raw.data")), 0, 2 * 3072)]
        )


@pytest.mark.parametrize("write", [external_link, soft_link, virtual, external_storage])
def test_hdf5_that_leads_out_of_its_file_is_refused(write, tmp_path):
    write(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"a\.h5: 'image' is not a plain dataset; do not use this file"):
        datasets.resolve(str(tmp_path / "a.h5"))


def test_an_hdf5_dataset_that_was_never_written_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", (10**9, 32, 32, 3), np.uint8, chunks=(64, 32, 32, 3))
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with pytest.raises(InputError, match="nothing was written to 'image'"):
        datasets.resolve(str(tmp_path / "a.h5"))


class Harm:
    def __reduce__(self):
        return (os.mkdir, ("harm",))


def test_pickles_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([Harm(), Harm()], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Harm()))
    for name in ("a.npy", "b.npy"):
        with pytest.raises(InputError, match=rf"{name}: is no .npy array, or one of Python objects.*not loaded"):
            datasets.resolve(name)
    assert not (tmp_path / "harm").exists()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def h5(**arrays):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return buffer.getvalue()


def tar_bytes(*files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def damaged_header():
    content = bytearray(tar_bytes(("a.png", b"x" * 700), ("b.png", b"y" * 700), ("c.png", b"z")))
    content[512 + 1024 + 3] ^= 255  # the second header
    return bytes(content)


def zip_bytes(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 500)
    return buffer.getvalue()


JUNK = bytes(range(256)) * 8
ZEROS = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        *(
            (f"a{suffix}", JUNK, "cannot be read|no multiple|is no .npy array")
            for suffix in (".zip", ".tar", ".h5", ".npy", ".txt", ".bin")
        ),
        *((f"a{suffix}", b"", r"\.") for suffix in (".zip", ".tar", ".h5", ".npy", ".txt", ".bin", ".parquet")),
        ("a.zip", zip_bytes("a.png")[:-30], "cannot be read as zip"),
        ("a.zip", zip_bytes("notes.txt"), "the archive holds no images"),
        ("a.tar", tar_bytes(("notes.txt", b"x")), "the archive holds no images"),
        ("a.tar", tar_bytes(("a.png", b"x" * 5000))[:3000], "cannot be read as tar .*unexpected end"),
        ("a.tar", damaged_header(), "cannot be read as tar .damaged at byte 1,536"),
        ("a.tar.gz", zlib.compress(b"x"), "decompress it to .tar"),
        ("a.tgz", b"x", "decompress it to .tar"),
        ("a.rar", b"x", "is no format that is read; give a folder or .parquet, .zip"),
        ("a.npy", npy(np.zeros((2, 8, 8, 3))), r"is float64 \(2, 8, 8, 3\); images are uint8"),
        ("a.npy", npy(np.zeros((8, 8, 3), np.uint8)), r"is uint8 \(8, 8, 3\)"),
        ("a.npy", npy(np.zeros((0, 8, 8, 3), np.uint8)), "holds no images"),
        ("a.npy", npy(ZEROS)[:-9], "cannot be read as npy"),
        ("a.npy", npz(), r"archive of arrays \(.npz\)"),
        ("a.h5", h5(image=ZEROS.astype(np.float32)), r"has no dataset of images.*image \(4, 8, 8, 3\)"),
        ("a.h5", h5(), "has no dataset of images.*none"),
        ("a.h5", h5(left=ZEROS, right=ZEROS), "holds images in left, right; name the one to read 'image'"),
        ("a.h5", h5(image=ZEROS)[:2100], "cannot be read as HDF5"),
        ("a.h5", h5(manifest=np.bytes_(b"{}")), "is not the manifest of an outlier set"),
        ("a.bin", bytes(3071), "has 3,071 bytes, no multiple of 3,072"),
        ("a.txt", b"nowhere.png\nalso/not.png\n", "none of its 2 lines is a file"),
        ("a.txt", b"\n \n", "lists no path"),
        ("a.txt", b"x" * 70_000, "none of its 1 lines is a file"),
        ("a.txt", b"a\0b.png", "is no text"),
    ],
)
def test_a_malformed_file_is_one_line_that_names_it(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        datasets.resolve(str(tmp_path / name))
    assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)


def test_truncated_anywhere_an_archive_is_an_error_or_reads_as_less(tmp_path, pixels):
    """No length of a cut makes anything but an InputError or rows that are counted as bad."""
    for kind in ("zip", "tar", "webdataset", "h5", "npy"):
        path, _ = make(kind, tmp_path, pixels)
        whole = path.read_bytes()
        for cut in np.linspace(0, len(whole) - 1, 25).astype(int):
            path.write_bytes(whole[:cut])
            try:
                rows = list(datasets.resolve(str(path)).rows())
            except InputError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert len(rows) <= 9


def test_flipped_bytes_are_an_error_or_a_row(tmp_path, pixels):
    rng = np.random.default_rng(0)
    for kind in ("zip", "tar", "npy", "h5", "parquet"):
        path, _ = make(kind, tmp_path, pixels)
        whole = path.read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for at in rng.integers(0, len(whole), 4):
                content[at] = rng.integers(256)
            path.write_bytes(content)
            try:
                for row in datasets.resolve(str(path)).rows():
                    images.decode_to_size(row.data, 32)
            except InputError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_an_outlier_set_that_was_altered_is_refused(tmp_path, pixels):
    path, _ = make("outliers", tmp_path, pixels)
    with h5py.File(tmp_path / "set-00001-of-00002.h5", "r+") as file:
        file["image"][0, 0, 0, 0] ^= 1
    with pytest.raises(InputError, match="set-00001-of-00002.h5: was altered"):
        datasets.resolve(str(path))


def test_real_images_come_out_of_every_archive_as_they_went_in(tmp_path, srood_data, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(srood_data))
    rows = [row for row, _ in zip(datasets.resolve("tiny-imagenet:corpus").rows(29_900), range(100), strict=False)]
    files = [(f"{row.label:03d}/{n:03d}.jpg", row.data) for n, row in enumerate(rows)]
    expected = [np.asarray(Image.open(io.BytesIO(row.data)).convert("RGB").resize((32, 32), 2)) for row in rows]
    for path in (write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)):
        loaded = datasets.load_images(str(path))
        assert np.array_equal(loaded.images, expected)
        assert [int(loaded.class_names[label]) for label in loaded.labels] == [row.label for row in rows]
