"""Sets made again from their manifests: the same bytes, or a refusal that says what differs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pictures import pictures, write_parquet

from curate.build import build
from curate.config import BuildConfig
from curate.rebuild import rebuild
from srood.errors import InputError
from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights
from srood.outliers import file_sha256, read_manifest

SMALL: dict[str, Any] = {"batch_rows": 64, "shard_rows": 30, "calibration_images": 30, "workers": 1}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def write_document(path: Path, document: dict[str, Any]) -> Path:
    """A manifest with this document, and nothing beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["manifest"] = np.bytes_(json.dumps(document))
    return path


def refusal(spec: object, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        rebuild(str(spec), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    info = WeightsInfo("resnet20", None, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), image_size=16)
    save_weights(path, build_model("resnet20", 2).state_dict(), info)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """An ID set, a corpus, a set to protect, a list of rows and a list of labels to leave out, and a classifier."""
    root = tmp_path_factory.mktemp("world")
    ident = pictures(140, seed=1)
    write_parquet(root / "id/train.parquet", ident[:100], [i % 2 for i in range(100)], ["a", "b"])
    write_parquet(root / "id/test.parquet", ident[100:], [i % 2 for i in range(40)], ["a", "b"])
    write_parquet(root / "ood.parquet", pictures(20, seed=3), [0] * 20, ["x"])
    corpus = pictures(200, seed=2)
    corpus[100:105] = ident[:5]
    write_parquet(root / "corpus.parquet", corpus, [i % 4 for i in range(200)], ["house", "tree", "tabby cat", "car"])
    (root / "exclude.txt").write_text("tabby cat\n")
    (root / "rows.txt").write_text("1\n5\n9\n")
    weights(root / "classifier.safetensors", seed=0)
    return root


@pytest.fixture(scope="module")
def built(world, tmp_path_factory) -> Path:
    """A set with every setting that is not the default."""
    out = tmp_path_factory.mktemp("built") / "mini.h5"
    config = BuildConfig(
        source=(str(world / "corpus.parquet"),),
        id=str(world / "id"),
        size=70,
        out=out,
        image_size=16,
        seed=3,
        embedder=f"checkpoint:{world / 'classifier.safetensors'}",
        exclude_labels=str(world / "exclude.txt"),
        protect=(str(world / "ood.parquet"),),
        exclude_indices=world / "rows.txt",
        exclude_indices_base=1,
        source_license="CC0-1.0",
        quality="none",
        max_upscale=4.0,
        sample="clusters",
        clusters=5,
        id_recall=0.3,
        **SMALL,
    )
    return build(config).out


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory) -> Path:
    """A set by thumbnails, with little to find again."""
    out = tmp_path_factory.mktemp("plain") / "mini.h5"
    return build(BuildConfig((str(world / "corpus.parquet"),), 40, str(world / "id"), out, 16, **SMALL)).out


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


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_every_input_that_is_not_what_was_read_is_named_before_any_work(alone, built, world, tmp_path):
    other = shutil.copytree(world, tmp_path / "other")
    write_parquet(other / "corpus.parquet", pictures(200, seed=2), [i % 4 for i in range(200)], list("abcd"))
    shutil.copy(other / "id/test.parquet", other / "ood.parquet")
    (other / "rows.txt").write_text("1\n5\n")
    wrong = weights(tmp_path / "wrong.safetensors", seed=1)
    message = refusal(alone, look_in=[other], embedder=f"checkpoint:{wrong}")
    recorded = read_manifest(built)
    source = recorded["sources"][0]["fingerprint"][:12]
    assert "source corpus.parquet: its rows are not those that were read (fingerprint " in message
    assert f"recorded {source}...)" in message
    assert "protected set ood.parquet: its rows are not" in message
    hashes = [file_sha256(path)[:12] for path in (wrong, world / "classifier.safetensors")]
    assert f"is not the one that was used (fingerprint {hashes[0]}..., recorded {hashes[1]}...)" in message
    assert "ID set" not in message
    assert files(alone.parent) == {"mini.h5": built.read_bytes()}
    assert list(alone.parent.iterdir()) == [alone]

    shutil.copy(world / "corpus.parquet", other)
    assert "--exclude-indices rows.txt: is another list" in refusal(alone, look_in=[other])
    (other / "rows.txt").write_text((world / "rows.txt").read_text())
    shutil.copy(world / "ood.parquet", other)
    (other / "exclude.txt").write_text("car\ntabby cat\n")
    given = {"look_in": [other], "embedder": f"checkpoint:{world / 'classifier.safetensors'}"}
    assert "exclude.txt: 1 labels more and 0 fewer than were excluded (car)" in refusal(alone, **given)


@pytest.mark.parametrize("name", ["{world}/exclude.txt", "../world/exclude.txt", ".."])
def test_a_manifest_does_not_lead_out_of_the_folders(alone, world, tmp_path, name):
    document = read_manifest(alone)
    document["config"]["exclude_labels"] = name.format(world=world)
    index = write_document(tmp_path / "index/mini.h5", document)
    (tmp_path / "world").symlink_to(world)
    recorded = document["config"]["exclude_labels"]
    assert f"--exclude-labels {recorded}: is not in the working folder" in refusal(index, look_in=[world])


def test_what_is_not_there_is_named_with_the_folders(alone, tmp_path):
    message = refusal(alone, look_in=[tmp_path])
    for what in ("source corpus.parquet", "ID set id", "protected set ood.parquet", "--exclude-labels exclude.txt"):
        assert f"{what}: is not in the working folder, {tmp_path}; give --look-in the folder that holds it" in message
    fingerprint = read_manifest(alone)["id_filter"]["embedder_fingerprint"][:12]
    assert f"embedder: checkpoint weights of fingerprint {fingerprint}... were used" in message
    assert "there is no such folder" in refusal(alone, look_in=[tmp_path / "none"])


def test_an_embedder_of_another_kind_is_refused(plain, world, tmp_path):
    given = f"checkpoint:{world / 'classifier.safetensors'}"
    message = refusal(plain, out=tmp_path / "a.h5", look_in=[world], embedder=given)
    assert f"embedder {given}: thumbnail was used; leave --embedder out" in message


def test_a_limit_that_this_version_has_changed_is_refused(plain, world, tmp_path):
    document = read_manifest(plain)
    document["config"]["quality"]["near_constant_below"] = 5.0
    document["resampling"] = "nearest"
    index = write_document(tmp_path / "mini.h5", document)
    message = refusal(index, look_in=[world])
    assert "setting quality: is {'blank_below': 1.0, 'near_constant_below': 4.0" in message
    assert "setting resampling: is " in message and "recorded 'nearest'" in message


def test_a_manifest_that_does_not_say_how(tmp_path):
    base = {"format": "srood-outliers", "schema_version": 1, "rows": 1, "shards": [], "config": {"image_size": 32}}
    index, out = write_document(tmp_path / "mini.h5", base), tmp_path / "a.h5"
    assert "does not say how the set was made: it lacks source, size, id, embedder" in refusal(index, out=out)
    index = write_document(tmp_path / "mini.h5", {**base, "derived": {"operation": "select", "parents": [{}]}})
    assert "does not say which sets it was made from" in refusal(index, out=out)


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
