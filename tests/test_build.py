import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encode, pictures, write_parquet
from PIL import Image

import curate.build
from curate.build import build
from curate.config import BuildConfig
from curate.inputs import resolve_inputs
from srood import outliers
from srood.errors import InputError

CLASSES = ("house", "tree", "tabby cat", "car")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """An ID set of 400 + 100 pictures, and a corpus of 900 with known faults planted in it."""
    root = tmp_path_factory.mktemp("world")
    ident = pictures(500, seed=1)
    write_parquet(root / "id" / "train.parquet", ident[:400], [i % 4 for i in range(400)], ["a", "b", "c", "d"])
    write_parquet(root / "id" / "test.parquet", ident[400:], [i % 4 for i in range(100)], ["a", "b", "c", "d"])
    corpus: list = list(pictures(900, seed=2))
    labels = [row % 4 for row in range(900)]
    for row in range(10):
        corpus[100 + row] = corpus[row]  # exact duplicates
        corpus[200 + row] = ident[400 + row]  # exact leaks
        corpus[300 + row] = encode(ident[row][:, ::-1], "JPEG", quality=80)  # mirrored, recompressed leaks
        corpus[400 + row] = encode(corpus[500 + row], "JPEG", quality=85)  # near-duplicates of later rows
    corpus[800], corpus[801], corpus[802] = b"", b"<html></html>", encode(corpus[0])[:500]
    write_parquet(root / "corpus.parquet", corpus, labels, CLASSES, row_group_size=128)
    (root / "exclude.txt").write_text("tabby cat\n")
    return root


def config(world: Path, out: Path, **changes) -> BuildConfig:
    values = {"source": (str(world / "corpus.parquet"),), "id": str(world / "id"), "size": 300, "out": out}
    small = {"batch_rows": 64, "shard_rows": 120, "workers": 2, "calibration_images": 40}
    return BuildConfig(**{**values, **small, **changes})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def built(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "mini.h5"
    return build(config(world, out, exclude_labels=str(world / "exclude.txt")))


def test_every_stage_drops_what_was_planted_for_it(built):
    stages = {entry["stage"]: entry for entry in built.manifest["stages"]}
    assert stages["decode"]["dropped"] == {"empty": 1, "not an image": 1, "truncated or corrupt": 1}
    assert stages["exact duplicates"]["dropped"] == {"same pixels as an earlier row": 10}
    # rows of label 2: 225 of 900, less the bad one (802) and the repeated rows 102 and 106
    assert stages["excluded labels"]["dropped"] == {"excluded": 222}
    # planted leaks whose label is excluded (2, 6: two of each ten) are gone before
    assert sum(stages["leaks"]["dropped"].values()) == pytest.approx(16, abs=1)
    assert stages["leaks"]["dropped"]["exact copy"] == 8
    # of ten near-duplicate pairs those of label 2 are gone before (402, 406 with 502, 506)
    assert sum(stages["near-duplicates"]["dropped"].values()) == pytest.approx(8, abs=1)
    assert [entry["stage"] for entry in built.manifest["stages"]] == [
        *("decode", "quality", "exact duplicates", "excluded labels", "leaks", "ID-class neighbours"),
        *("near-duplicates", "sample"),
    ]
    lefts = [entry["left"] for entry in built.manifest["stages"]]
    seens = [entry["seen"] for entry in built.manifest["stages"]]
    assert seens[0] == 900 and seens[1:] == lefts[:-1] and lefts[-1] == built.manifest["rows"] == 300


def test_no_excluded_label_no_leak_and_no_repeat_is_left(built, world):
    opened = outliers.OutlierSet.open(built.out)
    names = opened.manifest["label_names"]
    assert "tabby cat" not in {names[label] for label in opened.read("label")}
    rows = {int(key.decode().partition("#")[2]) for key in opened.read("key")}
    assert not rows & {*range(100, 110), *range(200, 210), *range(300, 310), 800, 801, 802}
    assert len(np.unique(opened.read("sha256"))) == 300
    assert opened.manifest["contamination"]["kept"] == 0
    assert opened.manifest["contamination"]["corpus"] == pytest.approx(222 / 887, abs=1e-6)


def test_rows_hold_what_their_columns_say(built, world):
    from srood import datasets

    opened = outliers.OutlierSet.open(built.out)
    source = {row.key.encode(): row for row in datasets.resolve(str(world / "corpus.parquet")).rows()}
    images, keys, labels = opened.read_images(), opened.read("key"), opened.read("label")
    train = datasets.load_images(str(world / "id" / "train.parquet"))
    cells = lambda x: x.astype(float).reshape(len(x), 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(x), -1)  # noqa: E731
    centred = [c - c.mean(axis=1, keepdims=True) for c in (cells(images), cells(train.images))]
    unit = [c / np.linalg.norm(c, axis=1, keepdims=True) for c in centred]
    cosine = unit[0] @ unit[1].T
    assert np.allclose(opened.read("id_similarity"), cosine.max(axis=1), atol=1e-5)
    assert np.array_equal(opened.read("id_class"), train.labels[cosine.argmax(axis=1)])
    for image, key, label in zip(images, keys, labels, strict=True):
        assert source[key].label == label
        assert np.array_equal(np.asarray(Image.open(__import__("io").BytesIO(source[key].data)).convert("RGB")), image)


def test_worker_count_changes_no_byte(built, world, tmp_path):
    for workers in (1, 5):
        out = tmp_path / str(workers) / "mini.h5"
        build(config(world, out, exclude_labels=str(world / "exclude.txt"), workers=workers))
        assert files(out.parent) == files(built.out.parent)


def test_sizes_are_nested_and_seeds_differ(built, world, tmp_path):
    keys = {}
    for name, changes in {"small": {"size": 50}, "other": {"size": 50, "seed": 1}}.items():
        out = tmp_path / name / "mini.h5"
        build(config(world, out, exclude_labels=str(world / "exclude.txt"), **changes))
        keys[name] = outliers.OutlierSet.open(out).read("key").tolist()
    assert keys["small"] == outliers.OutlierSet.open(built.out).read("key")[:50].tolist()
    assert keys["small"] != keys["other"]


def test_the_same_build_again_does_nothing_and_another_needs_overwrite(built, world):
    before = {path: path.stat().st_mtime_ns for path in built.out.parent.iterdir()}
    same = config(world, built.out, exclude_labels=str(world / "exclude.txt"))
    assert "already holds this set" in build(same).notes[0]
    assert {path: path.stat().st_mtime_ns for path in built.out.parent.iterdir()} == before
    with pytest.raises(InputError, match="exists with other content; give --overwrite"):
        build(replace(same, seed=9))
    assert {path: path.stat().st_mtime_ns for path in built.out.parent.iterdir()} == before


def test_overwriting_leaves_no_stale_shard(world, tmp_path):
    first = config(world, tmp_path / "mini.h5", id_recall=0)
    build(first)
    assert len(list(tmp_path.iterdir())) == 5  # manifest, evidence and three shards
    build(replace(first, size=100, overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mini-00000-of-00001.h5", "mini-evidence.h5", "mini.h5"]


def test_files_of_a_set_whose_manifest_was_renamed_stay(built, world, tmp_path):
    folder = Path(shutil.copytree(built.out.parent, tmp_path / "sets"))
    (folder / "mini.h5").rename(folder / "old.h5")
    before, again = files(folder), config(world, folder / "mini.h5", exclude_labels=str(world / "exclude.txt"))
    with pytest.raises(InputError, match=r"mini\.h5: .*mini-00000-of-00003\.h5 is in the way.*; give --overwrite"):
        build(again)
    assert files(folder) == before and outliers.verify(folder / "old.h5") == []
    for number in range(3):
        (folder / f"mini-0000{number}-of-00003.h5").unlink()
    with pytest.raises(InputError, match=r"mini-evidence\.h5 is in the way"):
        build(again)
    assert set(files(folder)) == {"old.h5", "mini-evidence.h5"}


def test_a_build_that_was_stopped_before_its_last_rename_goes_on(built, world, tmp_path):
    """Shards and evidence are in place then, and the finished manifest in the workspace."""
    again = config(world, tmp_path / "mini.h5", exclude_labels=str(world / "exclude.txt"))
    build(replace(again, dry_run=True))  # leaves the workspace
    for path in built.out.parent.iterdir():
        place = tmp_path / "mini.h5.work" if path == built.out else tmp_path
        shutil.copy(path, place)
    assert "went on with the parts of an interrupted build" in build(again).notes
    assert files(tmp_path) == files(built.out.parent)


def test_more_than_there_is(world, tmp_path):
    result = build(config(world, tmp_path / "all.h5", size=5_000))
    assert result.manifest["requested_rows"] == 5_000
    assert 800 < result.manifest["rows"] < 900
    assert any("asked for 5,000 rows, the corpus gives" in note for note in result.notes)
    with pytest.raises(InputError, match=r"--size 5000: asked for 5,000 rows.*--strict-size"):
        build(config(world, tmp_path / "strict.h5", size=5_000, strict_size=True))
    assert not (tmp_path / "strict.h5").exists()
    banded = {"sample": "hard:0.2-0.4", "strict_size": True}
    words = r"add a --source, widen the band of --sample hard:0.2-0.4, which leaves out \d+, or leave out --strict-size"
    with pytest.raises(InputError, match=rf"--size 800: .*; {words}$"):
        build(config(world, tmp_path / "strict.h5", size=800, **banded))


def test_dry_run_writes_nothing(world, tmp_path):
    result = build(config(world, tmp_path / "mini.h5", dry_run=True))
    assert not result.written and result.manifest["stages"][-1]["left"] == 300
    assert not list(tmp_path.glob("*.h5"))


def test_nothing_protected_means_no_leak_is_dropped(world, tmp_path):
    result = build(config(world, tmp_path / "mini.h5", protect=("none",), dry_run=True))
    stages = {entry["stage"]: entry for entry in result.manifest["stages"]}
    assert stages["leaks"]["dropped"] == {}
    assert result.manifest["leak_certificate"]["protected"] == []


def test_protecting_one_more_set_drops_its_copies(world, tmp_path):
    more = pictures(900, seed=2)[600:620]
    write_parquet(tmp_path / "ood.parquet", more, list(range(20)))
    plain = build(config(world, tmp_path / "a.h5", dry_run=True)).manifest["stages"]
    more_protected = config(world, tmp_path / "b.h5", dry_run=True, protect=(str(tmp_path / "ood.parquet"),))
    stages = build(more_protected).manifest["stages"]
    assert sum(stages[4]["dropped"].values()) == sum(plain[4]["dropped"].values()) + 20


def test_id_filter_catches_the_stated_share_of_id_images(world, tmp_path):
    """A corpus of more ID-like images: held-out ones are caught at the share that was asked for."""
    held_out = pictures(500, seed=1)[400:]
    write_parquet(tmp_path / "corpus.parquet", held_out, [0] * 100, ["x"])
    changes = {"source": (str(tmp_path / "corpus.parquet"),), "protect": ("none",), "id_recall": 0.6, "dry_run": True}
    stages = build(config(world, tmp_path / "a.h5", **changes)).manifest["stages"]
    assert stages[5]["stage"] == "ID-class neighbours"
    assert stages[5]["dropped"] == {"as near as held-out ID images": 60}


def test_a_group_that_touches_a_leak_goes_as_a_whole(world, tmp_path):
    """Crops of one picture, 4 pixels apart: each is a copy of its neighbours only, and one of a protected image."""
    wide = pictures(1, seed=77, size=96)[0]
    protected, leak, second, third = (wide[:32, x : x + 32] for x in (0, 4, 8, 12))
    others = pictures(200, seed=3)
    others[7], others[90], others[150] = third, second, leak  # third stands for second, which repeats the leak
    write_parquet(tmp_path / "corpus.parquet", others, [0] * 200, ["x"])
    write_parquet(tmp_path / "more.parquet", [protected], [0])
    changes = {"source": (str(tmp_path / "corpus.parquet"),), "protect": (str(tmp_path / "more.parquet"),)}
    keys = {}
    for name, batch_rows in (("a", 64), ("b", 33)):
        result = build(config(world, tmp_path / name / "mini.h5", size=199, batch_rows=batch_rows, **changes))
        stages = {entry["stage"]: entry["dropped"] for entry in result.manifest["stages"]}
        assert stages["leaks"] == {"near-duplicate": 1}
        assert stages["near-duplicates"] == {"in a group with a leak": 2}
        keys[name] = outliers.OutlierSet.open(result.out).read("key").tolist()
        assert {int(key.partition(b"#")[2]) for key in keys[name]} == set(range(200)) - {7, 90, 150}
    assert keys["a"] == keys["b"]
    unprotected = build(config(world, tmp_path / "mini.h5", size=199, dry_run=True, source=changes["source"]))
    assert unprotected.manifest["stages"][-2]["dropped"] == {"repeats an earlier row": 1}  # third stands for second


@pytest.mark.parametrize("kill_after", [4])  # random points: test_torture_faults
def test_killed_and_run_again_gives_the_same_bytes(built, world, tmp_path, kill_after):
    out = tmp_path / "mini.h5"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests'); import test_build as t; "
        "from curate.build import build; world, out = map(Path, sys.argv[1:]); "
        "build(t.config(world, out, exclude_labels=str(world / 'exclude.txt')))"
    )
    root = Path(__file__).parent.parent
    process = subprocess.Popen([sys.executable, "-c", code, str(world), str(out)], cwd=root)
    work = out.with_name("mini.h5.work")
    while process.poll() is None and len(list(work.glob("part-*.npz"))) < kill_after:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert not out.exists()
    parts = {path.name: path.stat().st_mtime_ns for path in work.glob("part-*.npz")}
    result = build(config(world, out, exclude_labels=str(world / "exclude.txt")))
    assert "went on with the parts of an interrupted build" in result.notes
    assert len(parts) >= kill_after
    assert files(out.parent) == files(built.out.parent)


def test_a_damaged_part_is_made_again(built, world, tmp_path):
    again = config(world, tmp_path / "mini.h5", exclude_labels=str(world / "exclude.txt"))
    work = tmp_path / "mini.h5.work"
    build(replace(again, dry_run=True))  # leaves every part
    parts = {path.name: path.read_bytes() for path in work.glob("*.npz")}
    assert len(parts) == 16  # of the ID set, and of 900 rows 15 batches of 64
    for name, kept in (("id", 0.9), ("part-000000", 0.5), ("part-000007", 0), ("part-000014", 0.1)):
        content = parts[f"{name}.npz"]
        (work / f"{name}.npz").write_bytes(content[: int(kept * len(content))])
    content = parts["part-000003.npz"]  # one that the disk has as zeros, and one of which a block is missing
    (work / "part-000003.npz").write_bytes(bytes(len(content)))
    content, middle = parts["part-000005.npz"], len(parts["part-000005.npz"]) // 2
    (work / "part-000005.npz").write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    assert "went on with the parts of an interrupted build" in build(again).notes
    assert files(tmp_path) == files(built.out.parent)


def test_parts_of_another_recipe_are_not_used(world, tmp_path):
    first = config(world, tmp_path / "mini.h5", dry_run=True)
    build(first)
    result = build(replace(first, dry_run=False, seed=4))
    assert "went on with the parts of an interrupted build" not in result.notes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": ("nowhere.parquet",)}, "nowhere.parquet: no such file"),
        ({"id": "nowhere"}, "--id nowhere: neither a named set"),
        ({"embedder": "clip"}, "--embedder clip: no such embedder"),
        ({"embedder": "checkpoint:gone.safetensors"}, "gone.safetensors: no such weights file"),
        ({"id_recall": 1.5}, "--id-recall 1.5: must lie between"),
        ({"exclude_labels": "gone.txt"}, "gone.txt: cannot be read"),
        ({"protect": ("gone",)}, "gone: no such file, folder or named set"),
        ({"size": 0}, "--size 0: must be at least 1"),
        ({"source": ("",)}, "an image spec is empty; name a set, a file or a folder"),
        ({"id": ""}, "--id: is empty; name a set, a file or a folder"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
        ({"max_upscale": float("inf")}, "--max-upscale inf: must be a number of at least 1"),
        ({"out": Path("x.hdf")}, "--out x.hdf: must end in .h5"),
        ({"out": Path("x-evidence.h5")}, "--out x-evidence.h5: is how a shard or the evidence of another set is named"),
        ({"out": Path("x-00000-of-00001.h5")}, "is how a shard or the evidence of another set is named"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(world, tmp_path, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        build(config(world, **{"out": tmp_path / "mini.h5", **changes}))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_id_set_of_one_image_needs_test_images(world, tmp_path):
    np.save(tmp_path / "one.npy", pictures(1, seed=3))
    with pytest.raises(InputError, match=r"one\.npy: holds one image, and one must be held out; name a set of more"):
        build(config(world, tmp_path / "mini.h5", id=str(tmp_path / "one.npy")))
    assert [path.name for path in tmp_path.iterdir()] == ["one.npy"]


def test_a_label_file_that_does_not_match_is_refused(world, tmp_path):
    (tmp_path / "labels.txt").write_text("aardvark\n")
    with pytest.raises(InputError, match=r"labels.txt: does not match .*aardvark"):
        build(config(world, tmp_path / "mini.h5", exclude_labels=str(tmp_path / "labels.txt")))


def test_manifest_holds_no_path_of_this_machine_and_no_time(built, world):
    text = json.dumps(built.manifest)
    assert not any(str(path) in text for path in (built.out.parent, world, Path.cwd()))
    assert {"recipe", "config", "sources", "stages", "leak_certificate", "id_filter", "contamination"} <= set(
        built.manifest
    )


def test_a_file_that_is_gone_since_the_build_began_is_no_bad_image(world, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out" / "mini.h5"
    folder.mkdir()
    for number, picture in enumerate(pictures(20, seed=9)):
        (folder / f"{number:02d}.png").write_bytes(encode(picture))
    (folder / "99.png").symlink_to(folder / "nowhere.png")  # is bad from the start
    settings = config(world, out, source=(str(folder),), size=10)
    whole = build(replace(settings, out=tmp_path / "whole" / "mini.h5"))
    assert whole.manifest["stages"][0]["dropped"] == {"unreadable file": 1}
    inputs, taken = resolve_inputs(settings), (folder / "05.png").read_bytes()
    (folder / "05.png").unlink()
    with pytest.raises(InputError, match=r"photos/05\.png: is gone since the build began; put it back; the same"):
        build(settings, inputs=inputs)
    (folder / "05.png").write_bytes(taken)
    assert files(build(settings).out.parent) == files(whole.out.parent)


def test_batches_without_one_usable_row_change_nothing_else(world, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(pictures(20, seed=9)):
        (folder / f"{number:02d}.png").write_bytes(encode(picture))
    settings = config(world, tmp_path / "a" / "mini.h5", source=(str(folder),), size=20, batch_rows=4, quality="none")
    good = outliers.OutlierSet.open(build(settings).out)
    for number in (*range(8), *range(20, 28)):  # two batches before 00.png, two after 19.png
        (folder / f"{'+' if number < 20 else 'x'}{number}.png").write_text("no image")
    mixed = build(replace(settings, out=tmp_path / "b" / "mini.h5"))
    assert mixed.manifest["stages"][0] == {"stage": "decode", "seen": 36, "dropped": {"not an image": 16}, "left": 20}
    opened = outliers.OutlierSet.open(mixed.out)
    for column in ("image", "id_similarity", "id_class"):
        values = [each.read(column)[np.argsort(each.read("key"))] for each in (good, opened)]
        np.testing.assert_array_equal(*values)
    for path in folder.glob("[01]*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"no row is left to write \(of 16 rows: 16 not an image\); .* --source$"):
        build(replace(settings, out=tmp_path / "c" / "mini.h5"))
    assert not (tmp_path / "c" / "mini.h5").exists()


def test_where_no_row_is_left_the_advice_is_what_would_help(world, tmp_path):
    grey = np.full((16, 32, 32, 3), 99, np.uint8) + np.arange(16, dtype=np.uint8)[:, None, None, None]
    write_parquet(tmp_path / "grey.parquet", grey, [row % 2 for row in range(16)], ["tabby cat", "car"])
    write_parquet(tmp_path / "cats.parquet", [*grey[:4], *pictures(4, seed=8)], [0] * 8, ["tabby cat", "car"])
    for name, options in (("grey", "--quality none"), ("cats", "--quality none, --exclude-labels")):
        source = (str(tmp_path / f"{name}.parquet"),)
        settings = config(world, tmp_path / "mini.h5", source=source, exclude_labels=str(world / "exclude.txt"))
        with pytest.raises(InputError, match=rf"; name another --source, or weaken what drops them \({options}\)$"):
            build(settings)


def test_labels_that_no_class_can_have_are_none(world, tmp_path):
    rows = [{"bytes": encode(picture), "path": None} for picture in pictures(8, seed=9)]
    labels = pa.array([2**64 - 1, 2**31, 2**31 - 1, 0, 1, 2, 3, 4], pa.uint64())
    pq.write_table(pa.table({"image": rows, "label": labels}), tmp_path / "corpus.parquet")
    settings = config(world, tmp_path / "mini.h5", source=(str(tmp_path / "corpus.parquet"),), size=8, quality="none")
    opened = outliers.OutlierSet.open(build(settings).out)
    found = opened.read("label")[np.argsort(opened.read("key"))]
    assert found.tolist() == [-1, -1, 2**31 - 1, 0, 1, 2, 3, 4]


def test_the_manifest_has_the_fingerprint_of_what_was_read(world, tmp_path, monkeypatch):
    corpus = tmp_path / "corpus.parquet"
    shutil.copy(world / "corpus.parquet", corpus)
    settings = config(world, tmp_path / "mini.h5", source=(str(corpus),))
    expected = resolve_inputs(settings).corpus.describe()[0]["fingerprint"]
    described = curate.build.describe

    def cut_off(*arguments):
        os.truncate(corpus, 2000)  # when all rows are read, and before the manifest is written
        return described(*arguments)

    monkeypatch.setattr(curate.build, "describe", cut_off)
    assert build(settings).manifest["sources"][0]["fingerprint"] == expected
