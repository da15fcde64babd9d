"""Sets made again from their manifests: the same bytes, or a refusal that says what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import pictures, write_parquet
from rebuilt_sets import SMALL, files, refusal, write_document

from curate.build import build
from curate.config import BuildConfig
from curate.rebuilding.rebuild import MARKER, rebuild
from srood.outliers import read_manifest

# ---- the same bytes -------------------------------------------------------------------------------------------------


def test_every_byte_comes_again_from_the_manifest_alone(alone, recorded_set, recorded_world, tmp_path):
    given = {"embedder": f"checkpoint:{recorded_world / 'classifier.safetensors'}", "look_in": [recorded_world]}
    result = rebuild(str(alone), tmp_path / "again/mini.h5", **given, workers=3)
    assert files(tmp_path / "again") == files(recorded_set.parent)
    assert result.agreement.lines() == ["agrees byte for byte: 3 shards, 70 rows"]
    assert {entry.role for entry in result.found} == {
        *("source", "ID set", "protected set", "embedder", "labels to exclude", "rows to leave out")
    }
    assert files(alone.parent) == {"mini.h5": recorded_set.read_bytes()}


def test_a_manifest_without_its_shards_is_completed_where_it_lies(alone, recorded_set, recorded_world, tmp_path):
    given = {"embedder": f"checkpoint:{recorded_world / 'classifier.safetensors'}", "look_in": [recorded_world]}
    before = alone.stat()
    result = rebuild(str(alone), **given)
    assert result.out == alone and result.agreement.bytes_agree
    assert files(alone.parent) == files(recorded_set.parent)
    assert sorted(path.name for path in alone.parent.iterdir()) == sorted(files(recorded_set.parent))
    assert (alone.stat().st_ino, alone.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "is the set itself, and whole" in refusal(alone, out=alone, overwrite=True, **given)


def test_the_default_place_is_manifests_and_another_set_there_stays(alone, plain_set, recorded_set, recorded_world):
    shutil.copytree(recorded_set.parent, "manifests")
    assert "exists with other content; give --overwrite or another --out" in refusal(
        plain_set, look_in=[recorded_world]
    )
    assert files(Path("manifests")) == files(recorded_set.parent)
    result = rebuild(str(plain_set), look_in=[recorded_world], overwrite=True)
    assert result.out == Path("manifests/mini.h5")
    assert files(Path("manifests")) == files(plain_set.parent)


def test_a_lost_shard_comes_again(plain_set, recorded_world, tmp_path):
    folder = Path(shutil.copytree(plain_set.parent, tmp_path / "set"))
    (folder / "mini-00001-of-00002.h5").unlink()
    rebuild(str(folder / "mini.h5"), out=folder / "mini.h5", look_in=[recorded_world])
    assert files(folder) == files(plain_set.parent)


def test_settings_that_only_python_takes_come_from_the_manifest(plain_set, recorded_world, tmp_path, monkeypatch):
    monkeypatch.chdir(recorded_world)  # where local files are looked for too
    rebuild(str(plain_set), tmp_path / "again/other.h5")
    config = read_manifest(tmp_path / "again/other.h5")["config"]
    assert (config["batch_rows"], config["shard_rows"], config["calibration_images"]) == (64, 30, 30)
    shards = [(tmp_path / "again" / f"other-0000{n}-of-00002.h5").read_bytes() for n in range(2)]
    assert shards == [(plain_set.parent / f"mini-0000{n}-of-00002.h5").read_bytes() for n in range(2)]


def test_of_files_with_one_name_the_one_that_was_read_is_taken(plain_set, recorded_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recorded_world / "id", tmp_path / "wrong/id")
    write_parquet(tmp_path / "wrong/corpus.parquet", pictures(9, seed=8), [0] * 9, ["x"])
    write_parquet(tmp_path / "wrong/id/test.parquet", pictures(9, seed=7), [0] * 9, ["a"])
    result = rebuild(str(plain_set), tmp_path / "again/mini.h5", look_in=[tmp_path / "wrong", recorded_world])
    assert result.agreement.bytes_agree and not result.agreement.manifest


def test_sets_made_before_the_manifest_named_the_id_images(plain_set, recorded_world, tmp_path):
    document = read_manifest(plain_set)
    del document["id_filter"]["id_sets"]
    for entry in document["leak_certificate"]["protected"]:
        del entry["revision"]
    index = write_document(tmp_path / "old/mini.h5", document)
    result = rebuild(str(index), tmp_path / "again/mini.h5", look_in=[recorded_world])
    assert result.agreement.bytes_agree
    assert result.agreement.manifest == ("id_filter", "leak_certificate")
    document["leak_certificate"]["protected"][1]["fingerprint"] = "0" * 64
    index = write_document(tmp_path / "old/mini.h5", document)
    assert "ID set test.parquet: its rows are not those that were read" in refusal(index, look_in=[recorded_world])


def test_sets_made_before_the_manifest_named_the_limits_of_decoding(plain_set, recorded_world, tmp_path):
    document = read_manifest(plain_set)
    assert (document["config"].pop("max_pixels"), document["config"].pop("max_bytes")) == (89_478_485, 64 << 20)
    index = write_document(tmp_path / "old/mini.h5", document)
    result = rebuild(str(index), tmp_path / "again/mini.h5", look_in=[recorded_world])
    assert result.agreement.bytes_agree
    assert result.agreement.manifest == ("config",)


def test_a_model_of_timm_is_named_by_the_manifest(recorded_world, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    original = timm.create_model

    def create(name: str, pretrained: bool, **more: Any):
        torch.manual_seed(0)  # in place of the weights that would be downloaded
        return original(name, **more)

    monkeypatch.setattr(timm, "create_model", create)
    source, ident, out = (str(recorded_world / "corpus.parquet"),), str(recorded_world / "id"), tmp_path / "set/mini.h5"
    build(BuildConfig(source, 20, ident, out, 16, embedder="timm:test_resnet", **SMALL))
    again = tmp_path / "again/mini.h5"
    assert rebuild(str(out), again, look_in=[recorded_world]).agreement.bytes_agree
    assert files(again.parent) == files(out.parent)
    other = f"checkpoint:{recorded_world / 'classifier.safetensors'}"
    message = refusal(out, out=again, look_in=[recorded_world], embedder=other)
    assert f"embedder {other}: timm:test_resnet was used; leave --embedder out" in message


def test_nothing_protected_still_names_its_id_images(recorded_world, tmp_path):
    out = tmp_path / "set/mini.h5"
    build(
        BuildConfig(
            (str(recorded_world / "corpus.parquet"),), 20, str(recorded_world / "id"), out, protect=("none",), **SMALL
        )
    )
    assert [entry["name"] for entry in read_manifest(out)["id_filter"]["id_sets"]] == ["train.parquet", "test.parquet"]
    shutil.copytree(recorded_world, tmp_path / "altered")
    shutil.copy(tmp_path / "altered/id/test.parquet", tmp_path / "altered/id/train.parquet")
    again = tmp_path / "again/mini.h5"
    assert "ID set train.parquet: its rows are not" in refusal(out, out=again, look_in=[tmp_path / "altered"])
    assert rebuild(str(out), again, look_in=[recorded_world]).agreement.bytes_agree
    assert files(again.parent) == files(out.parent)


# ---- what differs afterwards ----------------------------------------------------------------------------------------


def test_other_versions_are_a_note_and_the_shards_agree(plain_set, recorded_world, tmp_path):
    document = read_manifest(plain_set)
    here = document["versions"]["h5py"]
    document["versions"]["h5py"] = "0.9"
    index = write_document(tmp_path / "index/mini.h5", document)
    result = rebuild(str(index), tmp_path / "again/mini.h5", look_in=[recorded_world])
    assert result.notes[0] == f"software versions differ: h5py {here} here, 0.9 recorded"
    assert result.agreement.lines() == [
        "agrees byte for byte: 2 shards, 40 rows",
        f"the manifest differs in versions (h5py {here} here, 0.9 recorded)",
    ]
    assert files(tmp_path / "again") == files(plain_set.parent)


def test_shards_that_come_out_otherwise_are_left_beside_and_the_manifest_stays(
    plain_set, recorded_world, tmp_path, curate
):
    document = read_manifest(plain_set)
    document["shards"][1]["sha256"] = "0" * 64
    index = write_document(tmp_path / "index/mini.h5", document)
    before = index.read_bytes()
    code, out, err = curate("rebuild", index, "--look-in", recorded_world)
    assert code == 1
    made = tmp_path / "index/mini.h5.rebuilt/mini.h5"
    assert out.splitlines() == [
        "does not agree: 1 of 2 shards differs",
        "the recorded rows are not at hand to say which of them differ",
        f"the set is {made}",
    ]
    assert f"note: {index} is left as it is" in err
    assert index.read_bytes() == before
    assert files(made.parent) == {**files(plain_set.parent), MARKER: b""}


def test_the_command_says_what_agrees_and_what_would_be_read(plain_set, recorded_world, tmp_path, curate):
    out = tmp_path / "again/mini.h5"
    code, printed, _ = curate("rebuild", plain_set, "--out", out, "--look-in", recorded_world, "--dry-run")
    assert code == 0 and "dry run: nothing was built; every input is what was read" in printed
    assert not out.parent.exists()
    code, printed, _ = curate("rebuild", plain_set, "--out", out, "--look-in", tmp_path, "--dry-run", "--json")
    assert code == 1
    shown = json.loads(printed)
    assert shown["out"] is None and shown["agreement"] is None
    assert len(shown["problems"]) == 2 and "corpus.parquet: is not in the working folder" in shown["problems"][0]
    code, printed, _ = curate("rebuild", plain_set, "--out", out, "--look-in", recorded_world, "--json")
    shown = json.loads(printed)
    assert code == 0 and shown["out"] == str(out) and shown["agreement"]["bytes_agree"] is True
    fingerprints = {entry["name"]: entry["fingerprint"] for entry in shown["inputs"]}
    assert fingerprints["corpus.parquet"] == read_manifest(plain_set)["sources"][0]["fingerprint"]
    code, _, err = curate("rebuild", plain_set, "--out", out, "--look-in", tmp_path)
    assert code == 2 and err.startswith(f"error: {plain_set}: cannot be made again from what is here: source")


# ---- sets made from sets --------------------------------------------------------------------------------------------


def test_a_set_made_from_sets_is_made_again_with_its_parents(plain_set, recorded_world, tmp_path, monkeypatch, curate):
    monkeypatch.chdir(tmp_path)
    part, other, both = (tmp_path / name / f"{name}.h5" for name in ("part", "other", "both"))
    source, ident = (str(recorded_world / "corpus.parquet"),), str(recorded_world / "id")
    build(BuildConfig(source, 30, ident, other, 16, seed=9, exclude_labels="none", **SMALL))
    for arguments in (("select", plain_set, "--size", 25, "--out", part), ("merge", part, other, "--out", both)):
        code, _, err = curate(*arguments)
        assert code == 0, err
    index = tmp_path / "index/both.h5"
    index.parent.mkdir()
    shutil.copy(both, index)

    # both builds, of which one is two steps away, lack the same inputs; each is named once
    message = refusal(index, look_in=[tmp_path])
    assert message.count("source corpus.parquet: is not in") == message.count("ID set id: is not in") == 1
    result = rebuild(str(index), look_in=[recorded_world])
    assert result.agreement.lines()[0].startswith("agrees byte for byte")
    assert files(index.parent) == files(both.parent)
    assert sorted(path.name for path in index.parent.iterdir()) == sorted(files(both.parent))
    # parents that are at hand are not made again: nothing else need be there
    again = tmp_path / "again/both.h5"
    result = rebuild(str(both), again, look_in=[part.parent, other.parent])
    assert {entry.role for entry in result.found} == {"outlier set"}
    assert files(again.parent) == files(both.parent)
    assert "already holds this set" in rebuild(str(both), again, look_in=[part.parent, other.parent]).notes[-1]
    assert "exists with other content" in refusal(both, out=plain_set, look_in=[part.parent, other.parent])
    assert files(plain_set.parent).keys() == {
        "mini.h5",
        "mini-evidence.h5",
        *(f"mini-0000{n}-of-00002.h5" for n in (0, 1)),
    }
