import datetime
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srood import parquet
from srood.errors import InputError
from srood.parquet import ParquetPart

NONE = (None, None)


def write(path, first, count, group, label_type=None, compression="snappy"):
    """Rows whose image bytes and label both tell their number over all files."""
    numbers = list(range(first, first + count))
    images = pa.array([{"bytes": b"image %d" % n, "path": str(n)} for n in numbers])
    labels = pa.array(numbers, label_type or pa.int64())
    table = pa.table({"label": labels, "image": images})  # the label first: order in the file must not matter
    if count == 0:
        table = pa.table({"label": pa.array([], pa.int64()), "image": pa.array([], images_type())})
    pq.write_table(table, path, row_group_size=group or None, compression=compression)
    return ParquetPart(path=path)


def images_type():
    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def parts(tmp_path):
    """41 rows in five files, of which one is empty, with row groups of different sizes."""
    sizes = [(10, 3), (1, 1), (0, 1), (20, 7), (10, 10)]
    made, first = [], 0
    for index, (count, group) in enumerate(sizes):
        made.append(write(tmp_path / f"{index}.parquet", first, count, group))
        first += count
    return made


@pytest.mark.parametrize("start", range(43))
def test_reading_from_any_row_gives_the_rest(parts, start):
    expected = [(n, (b"image %d" % n, n)) for n in range(start, 41)]
    assert list(parquet.rows(parts, NONE, start)) == expected


@pytest.mark.parametrize("size", [1, 2, 4, 1000])
def test_batch_size_does_not_show(parts, size, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_ROWS", size)
    for start in (0, 5, 12, 40):
        assert [number for number, _ in parquet.rows(parts, NONE, start)] == list(range(start, 41))


def test_row_groups_and_files_before_the_start_are_not_read(tmp_path):
    """Their bytes are overwritten: whoever read them would fail or see it."""
    parts = [write(tmp_path / "0.parquet", 0, 30, 10), write(tmp_path / "1.parquet", 30, 30, 10)]
    for path, groups in ((parts[0].path, 3), (parts[1].path, 2)):
        metadata = pq.read_metadata(path)
        last = metadata.row_group(groups - 1)
        end = max(
            last.column(c).dictionary_page_offset or last.column(c).data_page_offset for c in range(last.num_columns)
        )
        with open(path, "r+b") as file:
            file.seek(4)
            file.write(b"\xff" * (end - 4 + 8))
    assert [label for _, (_, label) in parquet.rows(parts, NONE, 50)] == list(range(50, 60))
    with pytest.raises(InputError, match=r"1\.parquet: cannot be read as Parquet \(.*\); fetch it again"):
        list(parquet.rows(parts, NONE, 45))


def test_a_footer_is_read_once(tmp_path):
    part = write(tmp_path / "a.parquet", 0, 12, 5)
    assert part.num_rows() == 12
    (tmp_path / "a.parquet").unlink()
    assert part.num_rows() == 12
    assert part == ParquetPart(path=tmp_path / "a.parquet")


def test_a_truncated_file_is_named(tmp_path):
    part = write(tmp_path / "a.parquet", 0, 100, 10)
    part.path.write_bytes(part.path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
        part.num_rows()
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"b\.parquet: cannot be read as Parquet"):
        list(parquet.rows([ParquetPart(path=tmp_path / "b.parquet")], NONE))


@pytest.mark.parametrize(
    ("values", "kind", "expected_names", "expected"),
    [
        (["dog", "ant", None, "dog"], pa.string(), ("ant", "dog"), [1, 0, -1, 1]),
        (["dog", "ant", None, "dog"], pa.large_string(), ("ant", "dog"), [1, 0, -1, 1]),
        (["dog", "ant", None, "dog"], pa.dictionary(pa.int32(), pa.string()), ("ant", "dog"), [1, 0, -1, 1]),
        ([3, None, -1, 250], pa.int16(), (), [3, -1, -1, 250]),
        ([3, 4, 5, 250], pa.uint8(), (), [3, 4, 5, 250]),
        ([3, -5, 2**64 - 1 - 2**64, 250], pa.int64(), (), [3, -1, -1, 250]),
        ([3, 2**63, 2**63 - 1, 0], pa.uint64(), (), [3, -1, 2**63 - 1, 0]),
        ([3.0, None, float("nan"), 250.0], pa.float64(), (), [3, -1, -1, 250]),
        ([True, False, None, True], pa.bool_(), (), [1, 0, -1, 1]),
        (["dog", "ant", None, "dog"], pa.string_view(), ("ant", "dog"), [1, 0, -1, 1]),
    ],
)
def test_labels(tmp_path, values, kind, expected_names, expected):
    table = pa.table({"image": pa.array([b"a", b"b", None, b""]), "label": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    parts = [ParquetPart(path=tmp_path / "a.parquet")]
    names = parquet.class_names(parts, NONE)
    assert names == expected_names
    found = [row for _, row in parquet.rows(parts, NONE, 0, names)]
    assert found == list(zip([b"a", b"b", b"", b""], expected, strict=True))


@pytest.mark.parametrize("label", [0.5, float("inf")])
def test_a_label_that_is_no_whole_number_is_refused(tmp_path, label):
    pq.write_table(pa.table({"image": [b"a"], "label": [label]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"a\.parquet: has the label {label}, which is no whole number"):
        list(parquet.rows([ParquetPart(path=tmp_path / "a.parquet")], NONE))


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_words_in_one_file_and_numbers_in_another_are_refused(tmp_path, order):
    for name, labels in (("a", ["x", "y"]), ("b", [0, 1])):
        pq.write_table(pa.table({"image": [b"1", b"2"], "label": labels}), tmp_path / f"{name}.parquet")
    parts = [ParquetPart(path=tmp_path / f"{name}.parquet") for name in order]
    with pytest.raises(InputError, match=rf"{order[1]}\.parquet: its labels are .*, those of .*{order[0]}\.parquet"):
        list(parquet.rows(parts, NONE, 0, parquet.class_names(parts, NONE)))


@pytest.mark.parametrize(
    "kind",
    [pa.binary_view(), pa.binary(3), pa.dictionary(pa.int32(), pa.binary()), pa.struct([("bytes", pa.binary_view())])],
)
def test_images_in_any_binary_type(tmp_path, kind):
    values = [{"bytes": b"abc"}, {"bytes": b"def"}] if pa.types.is_struct(kind) else [b"abc", b"def"]
    array = pa.array(values).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(values, kind)
    pq.write_table(pa.table({"image": array}), tmp_path / "a.parquet")
    assert [data for _, (data, _) in parquet.rows([ParquetPart(path=tmp_path / "a.parquet")], NONE)] == [b"abc", b"def"]


def test_a_file_without_images_names_the_types_of_its_columns():
    schema = pa.schema([("image", pa.list_(pa.binary())), ("label", pa.int64())])
    with pytest.raises(InputError, match=r"among image \(list<.*binary>\), label \(int64\)"):
        parquet.find_columns(schema, NONE, ParquetPart())


def test_strings_of_all_files_are_class_names(tmp_path):
    for name, labels in (("a", ["b", "c"]), ("b", ["a", "c"])):
        table = pa.table({"image": [b"1", b"2"], "label": labels})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    parts = [ParquetPart(path=tmp_path / f"{name}.parquet") for name in "ab"]
    names = parquet.class_names(parts, NONE)
    assert names == ("a", "b", "c")
    assert [label for _, (_, label) in parquet.rows(parts, NONE, 0, names)] == [1, 2, 0, 2]


@pytest.mark.parametrize(
    ("columns", "asked", "expected"),
    [
        ({"img": b"x", "label": 1}, NONE, ("img", "label")),
        ({"image": b"x", "label": [0.5]}, NONE, ("image", None)),  # a list is no class
        ({"image": b"x", "label": datetime.date(2020, 1, 1)}, NONE, ("image", None)),
        ({"image": b"x", "label": [1], "fine_label": 3}, NONE, ("image", "fine_label")),
        ({"image": "path.png", "data": b"x"}, NONE, ("data", None)),
        ({"image": b"x", "thumb": b"y", "label": 1, "kind": 2}, ("thumb", "kind"), ("thumb", "kind")),
        ({"image": {"bytes": b"x", "path": "a"}, "cls": "dog"}, ("absent", "absent"), ("image", "cls")),
    ],
)
def test_columns(columns, asked, expected):
    names = list(columns)
    random.Random(0).shuffle(names)
    schema = pa.Table.from_pylist([{name: columns[name] for name in names}]).schema
    assert parquet.find_columns(schema, asked, ParquetPart()) == expected


def test_real_parts_agree_with_pyarrow(srood_data):
    path = srood_data / "textures" / "test.parquet"
    table = pq.read_table(path)
    part = ParquetPart(path=path)
    assert part.num_rows() == table.num_rows
    for start in (0, 1, 777, 1199):
        rows = list(parquet.rows([part], NONE, start))
        assert [data for _, (data, _) in rows] == [item["bytes"] for item in table["image"][start:].to_pylist()]
        assert np.array_equal([label for _, (_, label) in rows], table["label"][start:].to_numpy())
