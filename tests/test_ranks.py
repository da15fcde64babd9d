"""A build in parts: joined, they are byte for byte the set of one run, whatever lies across parts."""

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
import pytest
from planted_corpus import FIRST, config, files, make_world

from curate.build import build
from curate.cli import app
from curate.commands import building as commands
from curate.commands.deriving import merge
from curate.config import BuildConfig
from curate.ranks import build_part, join, part_folder, share
from srood.errors import InputError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("ranks"))


def parts(settings: BuildConfig, ranks: int) -> list[Path]:
    return [build_part(settings, rank, ranks).folder for rank in range(ranks)]


@pytest.fixture(scope="module")
def single(world, tmp_path_factory):
    return build(config(world, tmp_path_factory.mktemp("single") / "mini.h5"))


@pytest.fixture(scope="module")
def three(world, tmp_path_factory) -> list[Path]:
    return parts(config(world, tmp_path_factory.mktemp("three") / "mini.h5"), 3)


def test_shares_are_consecutive_whole_and_even():
    for batches, ranks in ((12, 3), (12, 5), (3, 8), (0, 2)):
        shares = [share(batches, rank, ranks) for rank in range(ranks)]
        assert [number for mine in shares for number in mine] == list(range(batches))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_planted_repeats_are_counted_at_the_stage_they_belong_to(single):
    dropped = {entry["stage"]: entry["dropped"] for entry in single.manifest["stages"]}
    # rows 90-95 and 300-305, 310-315 (first seen as rows 40-45), and 8; the two blank rows go before
    assert dropped["exact duplicates"] == {"same pixels as an earlier row": 12 + 6 + 1}
    assert dropped["quality"] == {"blank": 2}
    # rows 40-45 but 42, which is excluded by its label, and the six mirrored ones; no row of 310-315
    assert sum(dropped["leaks"].values()) == 5 + 6 and dropped["leaks"]["exact copy"] == 5
    # rows 151, 153, 155: of the other pairs one or both are of an excluded label
    assert dropped["near-duplicates"] == {"repeats an earlier row": 3}
    assert dropped["ID-class neighbours"] and dropped["sample"]


def test_a_rank_alone_does_not_see_them(single, three):
    """What the join decides: digests that are in parts of several ranks."""
    digests = []
    for folder in three:
        batches = [np.load(path) for path in sorted(folder.glob("batch-*.npz"))]
        digests.append({digest for batch in batches for digest in batch["digest"].tolist() if digest})
    across = sum(map(len, digests)) - len(set.union(*digests))
    assert across == 6 + 6  # rows 300-305 and 310-315; rows 90-95 and 8 repeat rows of their own rank


@pytest.mark.parametrize("ranks", [1, 3])
def test_joined_parts_are_the_set_of_one_run(single, three, world, tmp_path, ranks):
    folders = three if ranks == 3 else parts(config(world, tmp_path / "p" / "mini.h5"), ranks)
    result = join(folders[::-1], tmp_path / "out" / "mini.h5")
    assert files(tmp_path / "out") == files(single.out.parent)
    assert len(files(tmp_path / "out")) == 5  # manifest, evidence, three shards: the evidence is the same too
    assert result.notes == single.notes
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []
    assert "already holds this set" in join(folders, tmp_path / "out" / "mini.h5").notes[0]


def test_so_they_are_with_a_classifier_clusters_and_nothing_protected(world, tmp_path):
    changes = {"embedder": f"checkpoint:{world / 'm.safetensors'}", "sample": "clusters", "protect": ("none",)}
    changes |= {"source": (str(world / "first.parquet"),), "batch_rows": 90}  # rows 90-95 are in the second part
    settings = config(world, tmp_path / "one" / "mini.h5", **changes)
    build(settings)
    folders = parts(replace(settings, out=tmp_path / "parts" / "mini.h5"), 2)
    join(folders, tmp_path / "joined" / "mini.h5")
    assert files(tmp_path / "joined") == files(tmp_path / "one")


def test_a_killed_rank_goes_on_when_run_again(single, three, world, tmp_path):
    settings = config(world, tmp_path / "mini.h5")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests'); import test_ranks as t; "
        "from curate.ranks import build_part; world, out = map(Path, sys.argv[1:]); "
        "build_part(t.config(world, out), 1, 3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(world), str(settings.out)], cwd=ROOT)
    work = tmp_path / "mini.part-00001-of-00003.work"
    while process.poll() is None and not list(work.glob("batch-*.npz")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    with pytest.raises(InputError, match=r"mini.part-00001-of-00003.work: this rank is not done.*--rank 1 --world-siz"):
        join([three[0], work, three[2]], tmp_path / "mini.h5")
    done = {path.name: path.stat().st_mtime_ns for path in work.glob("batch-*.npz")}
    os.truncate(work / max(done), 1000)  # as a crash of the machine may leave it: it is measured again
    del done[max(done)]
    part = build_part(settings, 1, 3)
    assert part.notes == ("went on with the batches of an interrupted rank",)
    assert len(done) < len(part.batches) == 4
    assert {name: (part.folder / name).stat().st_mtime_ns for name in done} == done
    assert not work.exists()
    join([three[0], part.folder, three[2]], tmp_path / "out" / "mini.h5")
    assert files(tmp_path / "out") == files(single.out.parent)


def test_the_commands_do_the_same_and_a_rank_may_have_nothing_to_do(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source, ident = str(world / "first.parquet"), str(world / "id")
    settings = BuildConfig((source,), 90, ident, Path("mini.h5"), exclude_labels="none")
    build(replace(settings, out=Path("one/mini.h5")))
    first = build_part(settings, 0, 2)  # the corpus is one batch, which is the other rank's
    assert (str(first.folder), len(first.batches), first.rows) == ("mini.part-00000-of-00002", 0, 0)
    options = ["--source", source, "--id", ident, "--size", "90", "--exclude-labels", "none", "--out", "mini.h5"]
    app(["build", *options, "--rank", "1", "--world-size", "2", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == {"out": "mini.part-00001-of-00002", "batches": 1, "rows": FIRST}
    app(["build", *options, "--rank", "1", "--world-size", "2"], standalone_mode=False)
    assert capsys.readouterr().out == f"wrote mini.part-00001-of-00002: {FIRST} rows of the corpus in 1 batches\n"
    parts = ["mini.part-00000-of-00002/", "mini.part-00001-of-00002"]
    app(["merge", *parts, "--out", "joined/mini.h5"], standalone_mode=False)
    assert "wrote joined/mini.h5: 90 rows" in capsys.readouterr().out
    assert files(tmp_path / "joined") == files(tmp_path / "one")


def test_options_and_sets_that_do_not_go_with_parts_are_refused(three, single, tmp_path):
    names, out = list(map(str, three)), tmp_path / "mini.h5"
    for options in ({"rank": 0}, {"world_size": 2}):
        with pytest.raises(InputError, match="--rank and --world-size: give both, or neither"):
            commands.build(out=out, size="90", **options)
    for options in ({"seed": 0}, {"keep_near_duplicates": True}):
        with pytest.raises(InputError, match="parts are joined by the options they were built with"):
            merge(names, out, **options)
    with pytest.raises(InputError, match="name all its parts and no sets"):
        merge([*names, str(single.out)], out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rank", "ranks", "changes", "words"),
    [
        (3, 3, {}, "--rank 3: ranks of --world-size 3 run from 0 to 2"),
        (-1, 3, {}, "--rank -1: ranks"),
        (0, 0, {}, "--world-size 0"),
        (0, 3, {"dry_run": True}, "--dry-run: a part says nothing of the set"),
        (0, 3, {"size": 0}, "--size 0: must be at least 1"),
    ],
)
def test_a_rank_that_cannot_be_built_leaves_nothing(world, tmp_path, rank, ranks, changes, words):
    with pytest.raises(InputError, match=words):
        build_part(config(world, tmp_path / "mini.h5", **changes), rank, ranks)
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_not_made_twice_nor_replaced_unasked(world, tmp_path):
    settings = config(world, tmp_path / "mini.h5")
    part = build_part(settings, 2, 6)
    before = {path.name: path.stat().st_mtime_ns for path in part.folder.iterdir()}
    assert "already holds this part" in build_part(settings, 2, 6).notes[0]
    with pytest.raises(InputError, match=r"mini.part-00002-of-00006: exists with other content; give --overwrite"):
        build_part(replace(settings, seed=5), 2, 6)
    assert {path.name: path.stat().st_mtime_ns for path in part.folder.iterdir()} == before
    assert build_part(replace(settings, seed=5, overwrite=True), 2, 6).notes == ()
    assert json.loads((part.folder / "part.json").read_text())["recorded"]["seed"] == 5


def edited(folder: Path, to: Path, **changes) -> Path:
    """A copy of a part that says something else of itself."""
    shutil.copytree(folder, to)
    said = json.loads((to / "part.json").read_text())
    (to / "part.json").write_text(json.dumps({**said, **changes}))
    return to


def test_parts_that_are_not_all_those_of_one_build_are_refused(three, world, tmp_path):
    first, second, third = three
    versions = json.loads((first / "part.json").read_text())["versions"]
    other = build_part(config(world, tmp_path / "other.h5", size=140), 1, 3).folder
    newer = edited(second, tmp_path / "n.part-00001-of-00003", versions={**versions, "numpy": "9.9"})
    copy = edited(second, tmp_path / "c.part-00001-of-00003")
    of_two = edited(second, tmp_path / "t.part-00001-of-00002", ranks=2)
    (tmp_path / "e.part-00001-of-00003").mkdir()
    for folders, words in (
        ([first, third], r"three\d*/mini.part-00000-of-00003: of 3 parts, rank 1 is missing; run it with --rank 1"),
        ([first, second, copy, third], r"c.part-00001-of-00003: is part 1, and so is .*mini.part-00001-of-00003"),
        ([first, other, third], r"other.part-00001-of-00003: is of another build than .*\(size 150 and 140\)"),
        ([first, newer, third], r"n.part-00001-of-00003: was made with other software .*numpy .* and 9.9"),
        ([first, of_two, third], r"t.part-00001-of-00002: is of 2 parts, .* of 3"),
        ([first, tmp_path / "e.part-00001-of-00003", third], r"e.part-00001-of-00003: is no part of a build"),
        ([first, tmp_path / "gone.part-00001-of-00003", third], r"gone.part-00001-of-00003: is no part"),
    ):
        with pytest.raises(InputError, match=words) as error:
            join(folders, tmp_path / "out" / "mini.h5")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_software_and_inputs_must_still_be_those_of_the_parts(world, tmp_path):
    corpus = shutil.copy(world / "second.parquet", tmp_path / "corpus.parquet")
    settings = config(world, tmp_path / "mini.h5", source=(str(corpus),), exclude_labels="none", size=20)
    folders = parts(settings, 1)
    versions = json.loads((folders[0] / "part.json").read_text())["versions"]
    old = edited(folders[0], tmp_path / "old.part-00000-of-00001", versions={**versions, "h5py": "2.0"})
    with pytest.raises(InputError, match=r"was made with other software \(h5py 2.0 and .* here\)"):
        join([old], tmp_path / "mini.h5")
    shutil.copy(world / "first.parquet", corpus)
    with pytest.raises(InputError, match="the images or files that its options name are others now"):
        join(folders, tmp_path / "mini.h5")
    assert not (tmp_path / "mini.h5").exists()


def test_a_damaged_or_missing_batch_is_named(three, tmp_path):
    copies = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in three]
    batch = sorted(copies[1].glob("batch-*.npz"))[1]
    whole = batch.read_bytes()
    batch.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(InputError, match=rf"{batch.name}: is missing or damaged; .* run rank 1 again"):
        join(copies, tmp_path / "mini.h5")
    batch.unlink()
    with pytest.raises(InputError, match=rf"{batch.name}: is missing or damaged"):
        join(copies, tmp_path / "mini.h5")
    batch.write_bytes(whole)
    assert join(copies, tmp_path / "mini.h5").written  # goes on where it stopped


def test_machines_that_compute_otherwise_are_told_of(three, tmp_path):
    other = edited(three[2], tmp_path / "mini.part-00002-of-00003", reference="otherwise")
    result = join([three[0], three[1], other], tmp_path / "mini.h5")
    assert any(note.startswith("rank 2: embeddings of the ID set are not bit for bit") for note in result.notes)


def test_names_of_parts(tmp_path):
    assert part_folder(tmp_path / "mini.h5", 2, 8) == tmp_path / "mini.part-00002-of-00008"
