"""`curate select` and `merge` where there is no space for the result: one line, and nothing left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_sets import files, manifest_of, rewrite, rows_of

from curate.deriving.select import SelectConfig, select

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from curate import cli
sys.argv[0] = "curate"
cli.main()
"""


def run(*arguments: object, limit: int | str = -1) -> tuple[int, str]:
    words = [sys.executable, "-c", LIMITED, limit, *arguments]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return done.returncode, done.stderr


def commands(small_sets: Path, out: Path) -> dict[str, list[object]]:
    a, b = (small_sets / name / "mini.h5" for name in "ab")
    return {"select": ["select", a, "--size", 140, "--out", out], "merge": ["merge", a, b, "--out", out]}


def lines(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error: ")]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("command", ["select", "merge"])
def test_a_disk_without_space_for_the_images(small_sets, small_disk, command):
    out = small_disk / "x.h5"
    assert rows_of(small_sets / "a" / "mini.h5")["image"].nbytes > 256 * 1024
    code, err = run(*commands(small_sets, out)[command])
    message = f"error: --out {out}: cannot be written (No space left on device); free space, or name another"
    assert (code, lines(err)) == (2, [message])
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
@pytest.mark.parametrize(
    ("command", "share"), [("select", 0), ("merge", 0.5), ("select", 1)], ids=["the marker", "the images", "the shard"]
)
def test_files_that_grow_too_large(small_sets, tmp_path, command, share):
    """The limit is a share of the images, which one shard holds; what was there before stays."""
    parents = tmp_path / "parents"
    for name in "ab":
        made = small_sets / name / "mini.h5"
        whole = {**manifest_of(made)["config"], "shard_rows": 1000}
        rewrite(made, parents / name / "mini.h5", lambda columns: columns, config=whole)
    out = tmp_path / "out" / "x.h5"
    before = files(select(SelectConfig(parents / "a" / "mini.h5", out, size=9)).out.parent)
    rows = 140 if command == "select" else 270
    limit = int(share * rows * 32 * 32 * 3) + 4
    code, err = run(*commands(parents, out)[command], "--overwrite", limit=limit)
    message = f"error: --out {out}: cannot be written (File too large); free space, or name another"
    assert (code, lines(err)) == (2, [message])
    assert files(out.parent) == before
