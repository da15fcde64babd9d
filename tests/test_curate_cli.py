"""The `curate` command as a person runs it: what it prints, and its exit codes."""

import io
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from pictures import encode, pictures, write_parquet
from PIL import Image
from rich.console import Console

from curate.tables import rows_in_shards
from srood import commands
from srood.commands import without_password
from srood.errors import InputError
from srood.progress import progress_bar


def curate(cwd, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "curate", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An ID folder and a corpus folder of loose files, one of them no image."""
    root = tmp_path_factory.mktemp("cli")
    ident = pictures(60, seed=1)
    write_parquet(root / "id" / "train.parquet", ident[:40], [i % 2 for i in range(40)], ["a", "b"])
    write_parquet(root / "id" / "test.parquet", ident[40:], [i % 2 for i in range(20)], ["a", "b"])
    for row, picture in enumerate(pictures(40, seed=2)):
        path = root / "corpus" / ("cups" if row % 2 else "chairs") / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture))
    (root / "corpus" / "cups" / "page.jpg").write_text("<!doctype html><title>Not Found</title>")
    return root


@pytest.fixture(scope="module")
def built(world):
    return curate(world, "build", "--source", "corpus", "--id", "id", "--size", "30", "--out", "sets/mini.h5")


def test_build_prints_what_each_stage_dropped(built):
    assert built.returncode == 0, built.stderr
    lines = [" ".join(line.split()) for line in built.stdout.splitlines()]
    assert "decode 41 1 40 not an image 1" in lines
    assert "sample 40 10 30 not drawn 10" in lines
    assert "wrote sets/mini.h5: 30 rows in 1 shard" in built.stdout
    assert "the ID-class filter is off" in built.stderr


def test_build_prints_json_when_asked(world):
    result = curate(world, "build", "--source", "corpus", "--id", "id", "--size", "9", "--dry-run", "--json")
    document = json.loads(result.stdout)
    assert document["written"] is False
    assert document["manifest"]["stages"][-1]["left"] == 9
    assert not (world / "manifests").exists() or not list((world / "manifests").glob("*.h5"))


def test_a_dry_run_says_where_its_work_is(world):
    result = curate(world, "build", "--source", "corpus", "--id", "id", "--size", "9", "--dry-run", "--out", "dry/a.h5")
    assert "dry run: no set was written; what was worked out is kept in dry/a.h5.work for the build" in result.stdout
    assert [path.name for path in (world / "dry").iterdir()] == ["a.h5.work"]


def test_inspect_prints_the_manifest(built, world):
    shown = curate(world, "inspect", "sets/mini.h5")
    assert shown.returncode == 0
    assert "30 rows of 32x32 RGB (asked for 30)" in shown.stdout
    document = json.loads(curate(world, "inspect", "sets/mini.h5", "--json").stdout)
    assert document["rows"] == 30 and document["config"]["source"] == ["corpus"]


def test_verify_says_yes_and_then_no(built, world):
    agreed = curate(world, "verify", "sets/mini.h5")
    assert (agreed.returncode, agreed.stderr) == (0, "")
    assert "30 rows in 1 shard agree" in agreed.stdout
    shard = world / "sets" / "mini-00000-of-00001.h5"
    kept = shard.read_bytes()
    with h5py.File(shard, "r+") as file:
        file["image"][7, 0, 0, 0] ^= 1
    differs = curate(world, "verify", "sets/mini.h5")
    shard.write_bytes(kept)
    assert differs.returncode == 1
    assert "row 7: the pixels do not match their SHA-256" in differs.stdout


def test_sources_say_where_each_would_be_read_from(world):
    write_parquet(world / "data" / "cifar10" / "test.parquet", pictures(2, 0), [0, 1])
    listed = json.loads(curate(world, "sources", "--json", SROOD_DATA=str(world / "data")).stdout)
    places = {entry["spec"]: entry["place"] for entry in listed["sets"]}
    assert places["cifar10:test"] == "$SROOD_DATA/cifar10/test*.parquet"
    assert places["cifar10:train"].startswith("hf://uoft-cs/cifar10@")
    assert [entry["name"] for entry in listed["sources"]] == ["tinyimages-alt"]
    assert listed["sources"][0]["sets"][0]["spec"] == "tiny-imagenet:corpus"


def test_a_corpus_of_odd_files_is_counted_by_reason(world, tmp_path):
    """Odd but sound images are kept; bad ones are skipped and counted; nothing stops the build."""
    folder = tmp_path / "odd"
    folder.mkdir()
    a, b, c, d, e, f = pictures(6, seed=9)
    (folder / "cmyk.jpg").write_bytes(_bytes(Image.fromarray(a).convert("CMYK"), "JPEG"))
    sixteen = np.asarray(Image.fromarray(b).convert("L")).astype(np.uint16) * 257
    (folder / "sixteen.png").write_bytes(_bytes(Image.fromarray(sixteen), "PNG"))
    (folder / "palette.png").write_bytes(_bytes(Image.fromarray(c).quantize(32), "PNG"))
    frames = [Image.fromarray(d).quantize(64), Image.fromarray(e).quantize(64)]
    (folder / "animated.gif").write_bytes(_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    (folder / "large.webp").write_bytes(_bytes(Image.fromarray(f).resize((300, 200)), "WEBP"))
    (folder / "truncated.jpg").write_bytes(encode(a, "JPEG")[:500])
    (folder / "zero.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<html><body>404</body></html>")
    (folder / "notes.txt").write_text("not counted: no image by its name")
    result = curate(
        world,
        *("build", "--source", folder, "--id", "id", "--out", tmp_path / "odd.h5", "--json", "--protect", "none"),
    )
    assert result.returncode == 0, result.stderr
    manifest = json.loads(result.stdout)["manifest"]
    assert manifest["stages"][0]["dropped"] == {"truncated or corrupt": 1, "empty": 1, "not an image": 1}
    assert manifest["rows"] == 5
    assert "asked for 300,000 rows, the corpus gives 5" in result.stderr


def _bytes(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "--source", "gone", "--id", "id"), "gone: no such file, folder or named set"),
        (("build", "--size", "many"), "'many' is not a count; write 20000, 20k, 300k or 1M"),
        (("build", "--source", "corpus", "--id", "id", "--embedder", "x"), "--embedder x: no such embedder"),
        (("inspect", "gone.h5"), "gone.h5: no such outlier set"),
        (("verify", "corpus/cups/page.jpg"), "page.jpg: cannot be read as HDF5"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(world, arguments, words):
    result = curate(world, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "count"),
    [("20000", 20_000), ("20k", 20_000), ("300K", 300_000), ("1M", 1_000_000), ("1.5k", 1_500), ("20_000", 20_000)],
)
def test_counts(text, count):
    assert commands.parse_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "-3", "1.0001k", "k", "3 bananas", "1e3", "9" * 400])
def test_what_is_no_count(text):
    with pytest.raises(InputError, match="is not a count"):
        commands.parse_count(text)


def test_what_is_no_number_of_bytes():
    assert commands.parse_bytes("4GiB", "--max-bytes") == 4 * 2**30
    for text in ("0.5B", "8", "GB", "9" * 400 + "B"):
        with pytest.raises(InputError, match=r"--max-bytes .*: write a number above zero with its unit"):
            commands.parse_bytes(text, "--max-bytes")


def test_one_row_and_one_shard_are_counted_as_one():
    assert rows_in_shards({"rows": 1, "shards": [{}]}) == "1 row in 1 shard"
    assert rows_in_shards({"rows": 1000, "shards": [{}, {}]}) == "1,000 rows in 2 shards"


def test_passwords_in_addresses_are_not_repeated(curate, tmp_path):
    ident = write_parquet(tmp_path / "id.parquet", pictures(4, seed=0), [0] * 4)
    for spec in ("https://jane:secret@example.org/a.parquet", "hf://jane:secret@example.org/a"):
        code, out, err = curate("build", "--source", spec, "--id", ident, "--out", tmp_path / "mini.h5")
        assert code == 2 and "jane" not in out + err and "...@example.org/a" in err
    assert without_password("hf://owner/name@main: no") == "hf://owner/name@main: no"


def test_square_brackets_in_names_are_printed(curate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = pictures(12, seed=5)
    (tmp_path / "x [" / "red]").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "x [" / "red]" / f"{name}[b].png").write_bytes(encode(images[0]))
    names = ["tabby cat, [/b]", "[red]cup"]
    write_parquet(tmp_path / "[u]corpus.parquet", images, [row % 2 for row in range(12)], names)
    np.save("id.npy", pictures(12, seed=6))
    shown = {}
    for command in (
        ("audit", "x ["),
        ("build", "--source", "[u]corpus.parquet", "--id", "id.npy", "--size", "9", "--out", "mini[b].h5"),
        ("build", "--source", "[u]corpus.parquet", "--id", "id.npy", "--size", "9", "--out", "other.h5", "--seed", "1"),
        ("inspect", "mini[b].h5"),
        ("diff", "mini[b].h5", "other.h5"),
        ("exclusions", "cifar10", "--corpus", "[u]corpus.parquet"),
    ):
        code, shown[command[0]], err = curate(*command)
        assert code in (0, 1), err
    assert "x [/red]/a[b].png" in shown["audit"]
    assert "[u]corpus.parquet" in shown["inspect"] and "mini[b]-00000-of-00001.h5" in shown["inspect"]
    assert "mini[b].h5" in shown["diff"]
    assert "tabby cat, [/b]" in shown["exclusions"]
    assert "tinyimages-alt: " in curate("sources")[1]


def test_square_brackets_in_names_are_shown_beside_a_bar():
    shown = Console(file=io.StringIO(), force_terminal=True, width=200)
    with progress_bar("images", shown) as progress:
        progress.add_task("read x [/red]", total=2, note="[b]corpus [/i]")
    assert "read x [/red]" in shown.file.getvalue() and "[b]corpus [/i]" in shown.file.getvalue()
