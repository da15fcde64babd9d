"""Sets that cannot be made again from what is here: every difference is said before any work."""

from __future__ import annotations

import shutil

import pytest
from pictures import pictures, write_parquet
from rebuilt_sets import files, refusal, weights, write_document

from srood.hashes import file_sha256
from srood.outliers import read_manifest


def test_every_input_that_is_not_what_was_read_is_named_before_any_work(alone, recorded_set, recorded_world, tmp_path):
    other = shutil.copytree(recorded_world, tmp_path / "other")
    write_parquet(other / "corpus.parquet", pictures(200, seed=2), [i % 4 for i in range(200)], list("abcd"))
    shutil.copy(other / "id/test.parquet", other / "ood.parquet")
    (other / "rows.txt").write_text("1\n5\n")
    wrong = weights(tmp_path / "wrong.safetensors", seed=1)
    message = refusal(alone, look_in=[other], embedder=f"checkpoint:{wrong}")
    recorded = read_manifest(recorded_set)
    source = recorded["sources"][0]["fingerprint"][:12]
    assert "source corpus.parquet: its rows are not those that were read (fingerprint " in message
    assert f"recorded {source}...)" in message
    assert "protected set ood.parquet: its rows are not" in message
    hashes = [file_sha256(path)[:12] for path in (wrong, recorded_world / "classifier.safetensors")]
    assert f"is not the one that was used (fingerprint {hashes[0]}..., recorded {hashes[1]}...)" in message
    assert "ID set" not in message
    assert files(alone.parent) == {"mini.h5": recorded_set.read_bytes()}
    assert list(alone.parent.iterdir()) == [alone]

    shutil.copy(recorded_world / "corpus.parquet", other)
    assert "--exclude-indices rows.txt: is another list" in refusal(alone, look_in=[other])
    (other / "rows.txt").write_text((recorded_world / "rows.txt").read_text())
    shutil.copy(recorded_world / "ood.parquet", other)
    (other / "exclude.txt").write_text("car\ntabby cat\n")
    given = {"look_in": [other], "embedder": f"checkpoint:{recorded_world / 'classifier.safetensors'}"}
    assert "exclude.txt: 1 labels more and 0 fewer than were excluded (car)" in refusal(alone, **given)


@pytest.mark.parametrize("name", ["{world}/exclude.txt", "../world/exclude.txt", ".."])
def test_a_manifest_does_not_lead_out_of_the_folders(alone, recorded_world, tmp_path, name):
    document = read_manifest(alone)
    document["config"]["exclude_labels"] = name.format(world=recorded_world)
    index = write_document(tmp_path / "index/mini.h5", document)
    (tmp_path / "world").symlink_to(recorded_world)
    recorded = document["config"]["exclude_labels"]
    assert f"--exclude-labels {recorded}: is not in the working folder" in refusal(index, look_in=[recorded_world])


def test_what_is_not_there_is_named_with_the_folders(alone, tmp_path):
    message = refusal(alone, look_in=[tmp_path])
    for what in ("source corpus.parquet", "ID set id", "protected set ood.parquet", "--exclude-labels exclude.txt"):
        assert f"{what}: is not in the working folder, {tmp_path}; give --look-in the folder that holds it" in message
    fingerprint = read_manifest(alone)["id_filter"]["embedder_fingerprint"][:12]
    assert f"embedder: checkpoint weights of fingerprint {fingerprint}... were used" in message
    assert "there is no such folder" in refusal(alone, look_in=[tmp_path / "none"])


def test_an_embedder_of_another_kind_is_refused(plain_set, recorded_world, tmp_path):
    given = f"checkpoint:{recorded_world / 'classifier.safetensors'}"
    message = refusal(plain_set, out=tmp_path / "a.h5", look_in=[recorded_world], embedder=given)
    assert f"embedder {given}: thumbnail was used; leave --embedder out" in message


def test_a_limit_that_this_version_has_changed_is_refused(plain_set, recorded_world, tmp_path):
    document = read_manifest(plain_set)
    document["config"]["quality"]["near_constant_below"] = 5.0
    document["resampling"] = "nearest"
    index = write_document(tmp_path / "mini.h5", document)
    message = refusal(index, look_in=[recorded_world])
    assert "setting quality: is {'blank_below': 1.0, 'near_constant_below': 4.0" in message
    assert "setting resampling: is " in message and "recorded 'nearest'" in message


def test_a_manifest_with_a_source_without_a_name(plain_set, tmp_path):
    document = read_manifest(plain_set)
    del document["sources"][0]["name"]
    index = write_document(tmp_path / "mini.h5", document)
    assert "does not say how the set was made: it lacks sources.name" in refusal(index, out=tmp_path / "a.h5")


def test_a_manifest_that_does_not_say_how(tmp_path):
    base = {"format": "srood-outliers", "schema_version": 1, "rows": 0, "shards": [], "config": {"image_size": 32}}
    index, out = write_document(tmp_path / "mini.h5", base), tmp_path / "a.h5"
    assert "does not say how the set was made: it lacks source, size, id, embedder" in refusal(index, out=out)
    index = write_document(tmp_path / "mini.h5", {**base, "derived": {"operation": "select", "parents": [{}]}})
    assert "(manifest.derived.parents[0] has no file)" in refusal(index, out=out)
