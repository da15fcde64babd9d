"""Sets made again from their manifests: the same bytes, or a refusal that says what differs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import pictures, write_parquet
from rebuilt_sets import SMALL, files, make_built, make_plain, make_world, refusal, write_document

from curate.build import build
from curate.config import BuildConfig
from curate.rebuilding.rebuild import rebuild
from srood.outliers import read_manifest


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def built(world, tmp_path_factory) -> Path:
    return make_built(world, tmp_path_factory.mktemp("built") / "mini.h5")


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory) -> Path:
    return make_plain(world, tmp_path_factory.mktemp("plain") / "mini.h5")


@pytest.fixture
def alone(built, tmp_path, monkeypatch) -> Path:
    """The manifest without its shards, and a working folder with nothing in it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "index").mkdir()
    return Path(shutil.copy(built, tmp_path / "index/mini.h5"))


@pytest.fixture
def curate(monkeypatch, capfd):
    """Runs `curate` in this process; returns (exit code, standard output, standard error)."""
    from curate import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["curate", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capfd.readouterr())  # type: ignore[return-value]

    return call


# ---- the same bytes -------------------------------------------------------------------------------------------------


def test_every_byte_comes_again_from_the_manifest_alone(alone, built, world, tmp_path):
    given = {"embedder": f"checkpoint:{world / 'classifier.safetensors'}", "look_in": [world]}
    result = rebuild(str(alone), tmp_path / "again/mini.h5", **given, workers=3)
    assert files(tmp_path / "again") == files(built.parent)
    assert result.agreement.lines() == ["agrees byte for byte: 3 shards, 70 rows"]
    assert {entry.role for entry in result.found} == {
        *("source", "ID set", "protected set", "embedder", "labels to exclude", "rows to leave out")
    }
    assert files(alone.parent) == {"mini.h5": built.read_bytes()}


def test_a_manifest_without_its_shards_is_completed_where_it_lies(alone, built, world, tmp_path):
    given = {"embedder": f"checkpoint:{world / 'classifier.safetensors'}", "look_in": [world]}
    before = alone.stat()
    result = rebuild(str(alone), **given)
    assert result.out == alone and result.agreement.bytes_agree
    assert files(alone.parent) == files(built.parent)
    assert sorted(path.name for path in alone.parent.iterdir()) == sorted(files(built.parent))
    assert (alone.stat().st_ino, alone.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "is the set itself, and whole" in refusal(alone, out=alone, overwrite=True, **given)


def test_the_default_place_is_manifests_and_another_set_there_stays(alone, plain, built, world):
    shutil.copytree(built.parent, "manifests")
    assert "exists with other content; give --overwrite or another --out" in refusal(plain, look_in=[world])
    assert files(Path("manifests")) == files(built.parent)
    result = rebuild(str(plain), look_in=[world], overwrite=True)
    assert result.out == Path("manifests/mini.h5")
    assert files(Path("manifests")) == files(plain.parent)


def test_a_lost_shard_comes_again(plain, world, tmp_path):
    folder = Path(shutil.copytree(plain.parent, tmp_path / "set"))
    (folder / "mini-00001-of-00002.h5").unlink()
    rebuild(str(folder / "mini.h5"), out=folder / "mini.h5", look_in=[world])
    assert files(folder) == files(plain.parent)


def test_settings_that_only_python_takes_come_from_the_manifest(plain, world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)  # where local files are looked for too
    rebuild(str(plain), tmp_path / "again/other.h5")
    config = read_manifest(tmp_path / "again/other.h5")["config"]
    assert (config["batch_rows"], config["shard_rows"], config["calibration_images"]) == (64, 30, 30)
    shards = [(tmp_path / "again" / f"other-0000{n}-of-00002.h5").read_bytes() for n in range(2)]
    assert shards == [(plain.parent / f"mini-0000{n}-of-00002.h5").read_bytes() for n in range(2)]


def test_of_files_with_one_name_the_one_that_was_read_is_taken(plain, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world / "id", tmp_path / "wrong/id")
    write_parquet(tmp_path / "wrong/corpus.parquet", pictures(9, seed=8), [0] * 9, ["x"])
    write_parquet(tmp_path / "wrong/id/test.parquet", pictures(9, seed=7), [0] * 9, ["a"])
    result = rebuild(str(plain), tmp_path / "again/mini.h5", look_in=[tmp_path / "wrong", world])
    assert result.agreement.bytes_agree and not result.agreement.manifest


def test_sets_made_before_the_manifest_named_the_id_images(plain, world, tmp_path):
    document = read_manifest(plain)
    del document["id_filter"]["id_sets"]
    for entry in document["leak_certificate"]["protected"]:
        del entry["revision"]
    index = write_document(tmp_path / "old/mini.h5", document)
    result = rebuild(str(index), tmp_path / "again/mini.h5", look_in=[world])
    assert result.agreement.bytes_agree
    assert result.agreement.manifest == ("id_filter", "leak_certificate")
    document["leak_certificate"]["protected"][1]["fingerprint"] = "0" * 64
    index = write_document(tmp_path / "old/mini.h5", document)
    assert "ID set test.parquet: its rows are not those that were read" in refusal(index, look_in=[world])


def test_a_model_of_timm_is_named_by_the_manifest(world, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    original = timm.create_model

    def create(name: str, pretrained: bool, **more: Any):
        torch.manual_seed(0)  # in place of the weights that would be downloaded
        return original(name, **more)

    monkeypatch.setattr(timm, "create_model", create)
    source, ident, out = (str(world / "corpus.parquet"),), str(world / "id"), tmp_path / "set/mini.h5"
    build(BuildConfig(source, 20, ident, out, 16, embedder="timm:test_resnet", **SMALL))
    again = tmp_path / "again/mini.h5"
    assert rebuild(str(out), again, look_in=[world]).agreement.bytes_agree
    assert files(again.parent) == files(out.parent)
    other = f"checkpoint:{world / 'classifier.safetensors'}"
    message = refusal(out, out=again, look_in=[world], embedder=other)
    assert f"embedder {other}: timm:test_resnet was used; leave --embedder out" in message


def test_nothing_protected_still_names_its_id_images(world, tmp_path):
    out = tmp_path / "set/mini.h5"
    build(BuildConfig((str(world / "corpus.parquet"),), 20, str(world / "id"), out, protect=("none",), **SMALL))
    assert [entry["name"] for entry in read_manifest(out)["id_filter"]["id_sets"]] == ["train.parquet", "test.parquet"]
    shutil.copytree(world, tmp_path / "altered")
    shutil.copy(tmp_path / "altered/id/test.parquet", tmp_path / "altered/id/train.parquet")
    again = tmp_path / "again/mini.h5"
    assert "ID set train.parquet: its rows are not" in refusal(out, out=again, look_in=[tmp_path / "altered"])
    assert rebuild(str(out), again, look_in=[world]).agreement.bytes_agree
    assert files(again.parent) == files(out.parent)


# ---- what differs afterwards ----------------------------------------------------------------------------------------


def test_other_versions_are_a_note_and_the_shards_agree(plain, world, tmp_path):
    document = read_manifest(plain)
    here = document["versions"]["h5py"]
    document["versions"]["h5py"] = "0.9"
    index = write_document(tmp_path / "index/mini.h5", document)
    result = rebuild(str(index), tmp_path / "again/mini.h5", look_in=[world])
    assert result.notes[0] == f"software versions differ: h5py {here} here, 0.9 recorded"
    assert result.agreement.lines() == [
        "agrees byte for byte: 2 shards, 40 rows",
        f"the manifest differs in versions (h5py {here} here, 0.9 recorded)",
    ]
    assert files(tmp_path / "again") == files(plain.parent)


def test_shards_that_come_out_otherwise_are_left_beside_and_the_manifest_stays(plain, world, tmp_path, curate):
    document = read_manifest(plain)
    document["shards"][1]["sha256"] = "0" * 64
    index = write_document(tmp_path / "index/mini.h5", document)
    before = index.read_bytes()
    code, out, err = curate("rebuild", index, "--look-in", world)
    assert code == 1
    made = tmp_path / "index/mini.h5.rebuilt/mini.h5"
    assert out.splitlines() == [
        "does not agree: 1 of 2 shards differs",
        "the recorded rows are not at hand to say which of them differ",
        f"the set is {made}",
    ]
    assert f"note: {index} is left as it is" in err
    assert index.read_bytes() == before
    assert files(made.parent) == files(plain.parent)


def test_the_command_says_what_agrees_and_what_would_be_read(plain, world, tmp_path, curate):
    out = tmp_path / "again/mini.h5"
    code, printed, _ = curate("rebuild", plain, "--out", out, "--look-in", world, "--dry-run")
    assert code == 0 and "dry run: nothing was built; every input is what was read" in printed
    assert not out.parent.exists()
    code, printed, _ = curate("rebuild", plain, "--out", out, "--look-in", tmp_path, "--dry-run", "--json")
    assert code == 1
    shown = json.loads(printed)
    assert shown["out"] is None and shown["agreement"] is None
    assert len(shown["problems"]) == 2 and "corpus.parquet: is not in the working folder" in shown["problems"][0]
    code, printed, _ = curate("rebuild", plain, "--out", out, "--look-in", world, "--json")
    shown = json.loads(printed)
    assert code == 0 and shown["out"] == str(out) and shown["agreement"]["bytes_agree"] is True
    fingerprints = {entry["name"]: entry["fingerprint"] for entry in shown["inputs"]}
    assert fingerprints["corpus.parquet"] == read_manifest(plain)["sources"][0]["fingerprint"]
    code, _, err = curate("rebuild", plain, "--out", out, "--look-in", tmp_path)
    assert code == 2 and err.startswith(f"error: {plain}: cannot be made again from what is here: source")


# ---- sets made from sets --------------------------------------------------------------------------------------------


def test_a_set_made_from_sets_is_made_again_with_its_parents(plain, world, tmp_path, monkeypatch, curate):
    monkeypatch.chdir(tmp_path)
    part, other, both = (tmp_path / name / f"{name}.h5" for name in ("part", "other", "both"))
    source, ident = (str(world / "corpus.parquet"),), str(world / "id")
    build(BuildConfig(source, 30, ident, other, 16, seed=9, exclude_labels="none", **SMALL))
    for arguments in (("select", plain, "--size", 25, "--out", part), ("merge", part, other, "--out", both)):
        code, _, err = curate(*arguments)
        assert code == 0, err
    index = tmp_path / "index/both.h5"
    index.parent.mkdir()
    shutil.copy(both, index)

    # both builds, of which one is two steps away, lack the same inputs; each is named once
    message = refusal(index, look_in=[tmp_path])
    assert message.count("source corpus.parquet: is not in") == message.count("ID set id: is not in") == 1
    result = rebuild(str(index), look_in=[world])
    assert result.agreement.lines()[0].startswith("agrees byte for byte")
    assert files(index.parent) == files(both.parent)
    assert sorted(path.name for path in index.parent.iterdir()) == sorted(files(both.parent))
    # parents that are at hand are not made again: nothing else need be there
    again = tmp_path / "again/both.h5"
    result = rebuild(str(both), again, look_in=[part.parent, other.parent])
    assert {entry.role for entry in result.found} == {"outlier set"}
    assert files(again.parent) == files(both.parent)
    assert "already holds this set" in rebuild(str(both), again, look_in=[part.parent, other.parent]).notes[-1]
    assert "exists with other content" in refusal(both, out=plain, look_in=[part.parent, other.parent])
    assert files(plain.parent).keys() == {"mini.h5", "mini-evidence.h5", *(f"mini-0000{n}-of-00002.h5" for n in (0, 1))}
