import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from exported_sets import write_labelled

from curate import cli
from curate.exporting.export import FORMATS, export
from srood.errors import InputError
from srood.outliers import OutlierSet, read_manifest


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> OutlierSet:
    return write_labelled(tmp_path_factory.mktemp("set"))


@pytest.fixture
def curate(monkeypatch, capfd):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["curate", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capfd.readouterr())

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("format", list(FORMATS))
def test_command_says_what_it_wrote(opened, tmp_path, curate, format):
    out = tmp_path / "deep" / "out"
    code, text, _ = curate("export", opened.path, "--format", format, "--out", out, "--json")
    there = files(out)
    assert code == 0
    assert json.loads(text) == {
        **{"out": str(out), "format": format, "rows": 129},
        **{"files": len(there), "bytes": sum(map(len, there.values())), "already": False},
    }
    assert json.loads(there["manifest.json"]) == read_manifest(opened.path)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("format", list(FORMATS))
def test_the_same_set_gives_the_same_bytes(opened, tmp_path, format):
    export(str(opened.path), format, tmp_path / "a", workers=1)
    (tmp_path / "b").mkdir()  # an empty folder will do
    export(str(opened.path), format, tmp_path / "b", workers=4)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("format", list(FORMATS))
def test_an_export_that_is_there_already_is_left_as_it_is(opened, tmp_path, curate, format):
    """As after one that was killed when its folder had just come into place."""
    out = tmp_path / "out"
    assert not export(str(opened.path), format, out).already
    before, times = files(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    code, text, _ = curate("export", opened.path, "--format", format, "--out", out)
    assert code == 0 and text.startswith(f"{out} holds this export already ({format}): 129 rows in ")
    assert files(out) == before and {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    others = (path for path in out.rglob("*") if path.is_file() and path.name != "manifest.json")
    largest = max(others, key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.write_bytes(data)
    with pytest.raises(InputError, match="out: holds another export of this set; name a new or an empty folder"):
        export(str(opened.path), format, out)
    assert largest.read_bytes() == data


def test_another_format_is_not_written_over_an_export(opened, tmp_path):
    export(str(opened.path), "hdf5", tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(InputError, match="out: holds another export of this set"):
        export(str(opened.path), "parquet", tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_last_line(opened, tmp_path, curate):
    code, text, _ = curate("export", opened.path, "--format", "hdf5", "--out", tmp_path / "out")
    size = sum(map(len, files(tmp_path / "out").values())) / 1e6
    assert (code, text) == (0, f"wrote {tmp_path / 'out'} (hdf5): 129 rows in 2 files, {size:.1f} MB\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "csv", "--out", "out"), "--format csv: no such format; one of parquet, webdataset, imagefolder"),
        (("--format", "hdf5", "--out", "full"), "--out full: holds files already; name a new or an empty folder"),
        (("--format", "hdf5", "--out", "full/a.txt"), "--out full/a.txt: is a file; name a folder"),
        (("--format", "hdf5", "--out", "."), "--out .: cannot be replaced as a whole; name a new folder in it"),
        (("--format", "hdf5", "--out", "full/a.txt/b"), "--out full/a.txt/b: cannot be made, for"),
        (("--format", "hdf5", "--out", "out", "--workers", "0"), "--workers 0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(opened, tmp_path, monkeypatch, curate, arguments, words):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    if "." not in arguments:
        (here / "full").mkdir()
        (here / "full/a.txt").write_text("mine")
    before = files(here)
    code, text, error = curate("export", opened.path, *arguments)
    assert (code, text, error.count("\n")) == (2, "", 1)
    assert words in error
    assert files(here) == before


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="none.h5: no such outlier set"):
        export(str(tmp_path / "none.h5"), "parquet", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", list(FORMATS))
def test_a_damaged_row_is_never_exported(tmp_path, format):
    """Even where the shard's own hash was made again to fit."""
    from srood.hashes import file_sha256

    opened = write_labelled(tmp_path / "set")
    shard = opened.path.parent / "mini-00002-of-00003.h5"
    with h5py.File(shard, "r+") as file:
        file["image"][4, 0, 0, 0] ^= 1
    with pytest.raises(InputError, match="mini-00002-of-00003.h5: was altered"):
        export(str(opened.path), format, tmp_path / "out")
    with h5py.File(opened.path, "r+") as file:
        manifest = json.loads(file["manifest"][()])
        manifest["shards"][2]["sha256"] = file_sha256(shard)
        text = json.dumps(manifest, sort_keys=True).encode()
        file["manifest"][()] = text
        file["manifest_sha256"][()] = hashlib.sha256(text).hexdigest().encode()
    with pytest.raises(InputError, match="mini-00002-of-00003.h5: row 4: the pixels do not match their SHA-256"):
        export(str(opened.path), format, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_killed_leaves_nothing_that_looks_whole_and_the_next_succeeds(opened, tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys, time; from pathlib import Path; from curate.exporting import export as e, rows\n"
        "write = e.FORMATS['imagefolder']\n"
        "e.FORMATS['imagefolder'] = lambda *a, advance, **k: write(*a, advance=lambda n: time.sleep(60), **k)\n"
        "e.export(sys.argv[1], 'imagefolder', Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(opened.path), str(out)], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.png"))) < 70 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists() and all(path.name[0] == "." for path in tmp_path.iterdir())
    assert export(str(opened.path), "parquet", out).files == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert not any("png" in name for name in files(out))


def test_a_set_on_the_hub(opened, tmp_path, writable_hub):
    writable_hub.add("owner/set", opened.path.parent)
    assert export("hf://owner/set@main/mini.h5", "parquet", tmp_path / "hub").rows == 129
    export(str(opened.path), "parquet", tmp_path / "local")
    assert files(tmp_path / "hub") == files(tmp_path / "local")
