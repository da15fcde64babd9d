"""The corpus: several sets as one, rows left out by number, licences, and reading from the Hub."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer, point_client_at
from pictures import encode, pictures, write_parquet

from curate import sources
from curate.build import build
from curate.config import BuildConfig
from curate.sources import open_corpus, raw_batches
from srood import images, outliers
from srood.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An ID set, 40 pictures as tiny_images.bin and as Parquet, and two folders of classes."""
    root = tmp_path_factory.mktemp("sources")
    ident = pictures(50, seed=1)
    write_parquet(root / "id" / "train.parquet", ident[:40], [i % 2 for i in range(40)], ["a", "b"])
    write_parquet(root / "id" / "test.parquet", ident[40:], [i % 2 for i in range(10)], ["a", "b"])
    corpus = pictures(40, seed=2)
    (root / "tiny_images.bin").write_bytes(corpus.transpose(0, 3, 2, 1).tobytes())
    write_parquet(root / "numbered.parquet", corpus, [row % 9 for row in range(40)])
    for name in ("cat", "dog"):
        (root / "named" / name).mkdir(parents=True)
        (root / "named" / name / "0.png").write_bytes(encode(pictures(1, seed=7)[0]))
    return root


def settings(folder, out, **changes):
    values = {"source": (str(folder / "tiny_images.bin"),), "id": str(folder / "id"), "size": 99, "out": out}
    small = {"batch_rows": 16, "workers": 1, "calibration_images": 30, "protect": ("none",)}
    return BuildConfig(**{**values, **small, **changes})


# ---- limits of decoding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "parquet"])
def test_limits_hold_for_every_source_and_are_recorded(folder, tmp_path, kind):
    corpus = [encode(picture) for picture in pictures(6, seed=3)]
    corpus += [encode(np.zeros((41, 41, 3), np.uint8)), encode(pictures(1, seed=4)[0]) + bytes(9000)]
    place = tmp_path / "set"
    place.mkdir()
    for number, data in enumerate(corpus):
        (place / f"{number}.png").write_bytes(data)
    if kind == "parquet":
        place = write_parquet(tmp_path / "set.parquet", corpus, [0] * len(corpus))
    elif kind != "folder":
        place = Path(shutil.make_archive(str(tmp_path / "set"), kind, tmp_path / "set"))
    config = settings(folder, tmp_path / "a.h5", source=(str(place),), max_pixels=1600, max_bytes=9000)
    manifest = build(config).manifest
    assert manifest["stages"][0]["dropped"] == {"too many bytes": 1, "too many pixels": 1}
    assert (manifest["config"]["max_pixels"], manifest["config"]["max_bytes"]) == (1600, 9000)
    assert build(settings(folder, tmp_path / "b.h5", source=(str(place),))).manifest["stages"][0]["dropped"] == {}


def test_batches_of_large_images_are_read_in_parts_to_the_same_bytes(folder, tmp_path, monkeypatch):
    """Encoded images of a batch are never held all together, and the batches are the same."""
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number, picture in enumerate(pictures(40, seed=2)):
            file.writestr(f"{number:02d}.png", encode(picture))
    sets = []
    for name, held in (("whole", 1 << 30), ("parts", 7000)):  # an image has about 3,000 bytes
        monkeypatch.setattr(sources.datasets.batched, "__defaults__", (held,))
        corpus = open_corpus([str(archive)], 10)
        parts = [(part.number, part.start, len(part.rows)) for part in raw_batches(corpus, 16)]
        assert (len(parts) == 3) == (name == "whole") and sum(rows for _, _, rows in parts) == 40
        assert [next(start for number, start, _ in parts if number == batch) for batch in range(3)] == [0, 16, 32]
        out = build(settings(folder, tmp_path / name / "a.h5", source=(str(archive),))).out
        sets.append({path.name: path.read_bytes() for path in out.parent.iterdir()})
    assert sets[0] == sets[1] and len(sets[0]) > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_pixels": 178_956_971}, "--max-pixels 178956971: must lie between 1 and 178,956,970"),
        ({"max_bytes": 0}, "--max-bytes 0: must lie between 1 and 2,147,483,648"),
    ],
)
def test_limits_that_cannot_be_used_are_refused(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        build(settings(folder, tmp_path / "a.h5", **changes))


# ---- rows left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "left_out"), [(None, [0, 6, 39]), (1, [0, 6, 39])])
def test_numbers_count_from_one_in_tiny_images(folder, tmp_path, base, left_out):
    (tmp_path / "idxs.txt").write_text("1\n40\n7\n7\n")
    corpus = open_corpus([str(folder / "tiny_images.bin")], 9, None, tmp_path / "idxs.txt", base)
    assert corpus.excluded_rows.rows.tolist() == left_out
    assert corpus.excluded_rows.note() == "--exclude-indices idxs.txt: 3 rows are left out, counted from 1"
    assert corpus.describe()[0]["excluded_rows"] == {
        "file": "idxs.txt",
        "sha256": hashlib.sha256(b"1\n40\n7\n7\n").hexdigest(),
        "counted_from": 1,
        "rows": 3,
    }


def test_numbers_count_from_zero_elsewhere(folder, tmp_path):
    (tmp_path / "idxs.txt").write_text("0 39 7", encoding="utf-8-sig")  # as editors of Windows write it
    for spec, base in (("numbered.parquet", None), ("tiny_images.bin", 0)):
        corpus = open_corpus([str(folder / spec)], 9, None, tmp_path / "idxs.txt", base)
        assert corpus.excluded_rows.rows.tolist() == [0, 7, 39] and corpus.excluded_rows.base == 0


@pytest.mark.parametrize("start", [0, 5, 7, 8, 39])
def test_left_out_rows_are_not_decoded_wherever_reading_starts(folder, tmp_path, start):
    (tmp_path / "idxs.txt").write_text("7\n8\n33\n")
    corpus = open_corpus([str(folder / "numbered.parquet")], 9, None, tmp_path / "idxs.txt")
    rows = [row for batch in raw_batches(corpus, 6, 0, start) for row in batch.rows]
    gone = [start + n for n, row in enumerate(rows) if isinstance(row.data, images.Unusable)]
    assert gone == [row for row in (7, 8, 33) if row >= start] and len(rows) == 40 - start


def test_of_several_sets_the_list_is_for_tiny_images(folder, tmp_path):
    (tmp_path / "idxs.txt").write_text("3")
    specs = [str(folder / name) for name in ("numbered.parquet", "tiny_images.bin")]
    corpus = open_corpus(specs, 9, None, tmp_path / "idxs.txt")
    assert (corpus.excluded_rows.source, corpus.excluded_rows.rows.tolist()) == (1, [2])
    with pytest.raises(
        InputError, match="numbers the rows of one set, the corpus has numbered.parquet, named; give one"
    ):
        open_corpus([str(folder / "numbered.parquet"), str(folder / "named")], 9, None, tmp_path / "idxs.txt")


@pytest.mark.parametrize(
    ("text", "base", "words"),
    [
        ("0", None, r"row 0 is not in tiny_images.bin, which has 1 to 40; check the file, or --exclude-indices-base"),
        ("41", None, "row 41 is not in"),
        ("40", 0, "row 40 is not in tiny_images.bin, which has 0 to 39"),
        ("3\n-4", None, "holds '-4'"),
        ("3\nx7", None, "holds 'x7'"),
        ("1.5", None, "holds '1.5'"),
        ("9" * 400, None, "holds '9999"),
        ("", None, "holds nothing"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(folder, tmp_path, text, base, words):
    (tmp_path / "idxs.txt").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        open_corpus([str(folder / "tiny_images.bin")], 9, None, tmp_path / "idxs.txt", base)
    assert "\n" not in str(error.value)


def test_a_list_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"gone.txt: cannot be read \(No such file"):
        open_corpus([str(folder / "tiny_images.bin")], 9, None, tmp_path / "gone.txt")


def test_a_build_leaves_them_out_counts_and_records_them(folder, tmp_path):
    """As the published list is used: numbers of rows that show protected images, counted from 1."""
    (tmp_path / "idxs.txt").write_text("".join(f"{row + 1}\n" for row in range(10, 20)))
    result = build(
        settings(folder, tmp_path / "a.h5", exclude_indices=tmp_path / "idxs.txt", source_license="research")
    )
    decode = result.manifest["stages"][0]
    assert (decode["seen"], decode["dropped"]) == (40, {"listed in --exclude-indices": 10})
    assert "--exclude-indices idxs.txt: 10 rows are left out, counted from 1" in result.notes
    entry = result.manifest["sources"][0]
    assert entry["license"] == "research" and entry["excluded_rows"]["rows"] == 10
    assert result.manifest["config"]["exclude_indices"] == "idxs.txt"
    keys = {key.decode() for key in outliers.OutlierSet.open(tmp_path / "a.h5").read("key")}
    assert keys == {f"tiny_images.bin#{row}" for row in range(40) if not 10 <= row < 20}
    (tmp_path / "idxs.txt").write_text("1")
    other = build(settings(folder, tmp_path / "b.h5", exclude_indices=tmp_path / "idxs.txt", dry_run=True))
    assert other.manifest["recipe"] != result.manifest["recipe"]


# ---- several sets ---------------------------------------------------------------------------------------------------


def test_bare_numbers_are_not_taken_for_the_names_of_another_set(folder):
    corpus = open_corpus([str(folder / "named"), str(folder / "numbered.parquet")], 9)
    assert (corpus.class_names, corpus.label_offsets) == (("cat", "dog"), (0, 2))
    labels = [[row.label for row in batch.rows] for batch in raw_batches(corpus, 100)]
    assert labels == [[0, 1], [-1] * 40]
    alone = open_corpus([str(folder / "numbered.parquet")], 9)
    assert [row.label for batch in raw_batches(alone, 100) for row in batch.rows] == [row % 9 for row in range(40)]


def test_bare_numbers_of_two_sets_are_not_taken_for_the_same_labels(folder, tmp_path):
    write_parquet(tmp_path / "other.parquet", pictures(30, seed=3), [8 - row % 9 for row in range(30)])
    both = (str(folder / "numbered.parquet"), str(tmp_path / "other.parquet"))
    corpus = open_corpus(both, 9)
    assert {row.label for batch in raw_batches(corpus, 100) for row in batch.rows} == {-1}
    result = build(settings(folder, tmp_path / "mini.h5", source=both))
    assert set(outliers.OutlierSet.open(result.out).read("label")) == {-1}
    told = [note for note in result.notes if "its labels are numbers without names" in note]
    assert [note.partition(":")[0] for note in told] == ["numbered.parquet", "other.parquet"]
    for files in (both, (str(folder / "named"), str(folder / "tiny_images.bin"))):  # nothing is lost of one, or none
        assert open_corpus(files[:1], 9).notes() == []
    assert open_corpus([str(folder / "named"), str(folder / "tiny_images.bin")], 9).notes() == []
    (tmp_path / "one").mkdir()
    for file in both:  # as the note says
        shutil.copy(file, tmp_path / "one")
    labels = [row.label for batch in raw_batches(open_corpus([str(tmp_path / "one")], 9), 100) for row in batch.rows]
    assert labels == [row % 9 for row in range(40)] + [8 - row % 9 for row in range(30)]


def test_two_sets_of_one_name_are_refused(folder, tmp_path):
    shutil.copy(folder / "numbered.parquet", tmp_path / "numbered.parquet")
    for other in (tmp_path, folder):  # another file, and the same one twice
        specs = [str(folder / "numbered.parquet"), str(other / "numbered.parquet")]
        with pytest.raises(InputError, match=r"^--source .*: two sets are called numbered\.parquet; name each once"):
            open_corpus(specs, 9)


def test_licence_of_local_files_is_unknown_or_as_stated(folder, srood_data, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(srood_data))
    specs = [str(folder / "tiny_images.bin"), "textures:test"]
    known = open_corpus(["textures:test"], 9).describe()[0]["license"]
    assert known != "unknown"
    assert [entry["license"] for entry in open_corpus(specs, 9).describe()] == ["unknown", known]
    assert [entry["license"] for entry in open_corpus(specs, 9, "CC0-1.0").describe()] == ["CC0-1.0", known]
    assert all({"revision", "fingerprint", "origin"} <= set(entry) for entry in open_corpus(specs, 9).describe())


# ---- from the Hub ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, folder, monkeypatch):
    """A Hub with the corpus (20 rows a row group) and the ID set; every file counts as a large one."""
    write_parquet(tmp_path / "corpus/data/train.parquet", pictures(60, seed=2), [0] * 60, ["x"], row_group_size=20)
    monkeypatch.setattr("srood.parquet.DOWNLOAD", 0)
    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        running.add("owner/corpus", tmp_path / "corpus", license="cc-by-4.0")
        running.add("owner/ood", folder / "id", license="mit")
        yield running


def test_a_build_streams_the_corpus_and_downloads_what_is_protected(server, folder, tmp_path):
    changes = {"source": ("hf://owner/corpus:train",), "protect": ("hf://owner/ood:test",), "size": 40}
    first = build(settings(folder, tmp_path / "one" / "a.h5", **changes))
    asked = [request for request in server.requests if "/resolve/" in request.path and request.method == "GET"]
    assert all(request.range for request in asked if "corpus" in request.path)
    assert [r for r in asked if "ood" in r.path and r.range is None and r.sent]
    cached = {path.name for path in (tmp_path / "hf" / "hub").rglob("*.parquet")}
    assert cached == {"test.parquet"}
    entry = first.manifest["sources"][0]
    assert (entry["revision"], entry["license"]) == (server.repos["owner/corpus"].refs["main"], "cc-by-4.0")

    # failures in the middle, and another batch size for reading, change no byte
    server.fail_next(503, times=1, path="/resolve/.*train.parquet")
    server.fail_next(None, times=1, path="/resolve/.*train.parquet", sent=5000)
    build(settings(folder, tmp_path / "two" / "a.h5", **changes))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_stream_that_breaks_goes_on_where_it_stopped(server, folder, tmp_path, monkeypatch):
    changes = {"source": ("hf://owner/corpus:train",), "size": 40, "batch_rows": 10}
    whole = build(settings(folder, tmp_path / "one" / "a.h5", **changes))
    monkeypatch.setattr("srood.hub_errors.PATIENT", (0.01,))
    monkeypatch.setattr(sources, "prefetch", lambda items, depth=2: items)  # so that what was read is done
    real, read = images.decode_batch, []

    def decode(batch, *rest, **named):
        read.append(len(batch))
        if len(read) == 3:
            server.fail_next(500, times=50, path="/resolve/")
        return real(batch, *rest, **named)

    monkeypatch.setattr(images, "decode_batch", decode)
    config = settings(folder, tmp_path / "two" / "a.h5", **changes)
    with pytest.raises(InputError, match=r"hf://owner/corpus@\w{40}/data/train.parquet: the Hub fails \(HTTP 500\)"):
        build(config)
    monkeypatch.setattr(images, "decode_batch", real)
    server._failures.clear()
    server.requests.clear()
    result = build(config)
    assert "went on with the parts of an interrupted build" in result.notes
    assert result.manifest["recipe"] == whole.manifest["recipe"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_prefetch_hands_on_items_in_order_and_errors():
    def items():
        yield from range(5)
        raise ValueError("the sixth")

    taken = []
    with pytest.raises(ValueError, match="the sixth"):
        for item in sources.prefetch(items()):
            taken.append(item)
    assert taken == [0, 1, 2, 3, 4]


def test_tiny_images_and_numpy_give_the_same_set(folder, tmp_path):
    """The same pixels by another road: only keys and the sources in the manifest differ."""
    np.save(tmp_path / "corpus.npy", pictures(40, seed=2))
    build(settings(folder, tmp_path / "a.h5"))
    build(settings(folder, tmp_path / "b.h5", source=(str(tmp_path / "corpus.npy"),)))
    one, two = (outliers.OutlierSet.open(tmp_path / name) for name in ("a.h5", "b.h5"))
    for column in ("image", "sha256", "id_similarity"):
        assert np.array_equal(one.read(column), two.read(column))
    assert two.read("key")[0].startswith(b"corpus.npy#")
