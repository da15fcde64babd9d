"""Outlier sets on a Hub on this machine, read with the real client."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import huggingface_hub
import numpy as np
import pytest
import torch
from digits_images import noise_columns, write_digits, write_noise
from hub_server import HubServer, point_client_at

from srood.errors import InputError
from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights
from srood.outlier_sources import is_remote, local_manifest, pinned
from srood.outliers import OutlierSet, write_set
from train.config import TuneConfig, read_config
from train.tune import resume, tune

TOKEN = "hf_thisIsTheUsersSecretToken"


def write_shards(folder: Path, name: str = "mini", seed: int = 0) -> Path:
    """A set of 50 rows in two shards, with evidence, in a folder of its own."""
    rng = np.random.default_rng(seed)

    def columns(rows: int) -> dict[str, np.ndarray]:
        return noise_columns(rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8))

    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    evidence = {"similarity": np.arange(5.0)}
    config = {"config": {"image_size": 32}}
    written = write_set(folder / f"{name}.h5", iter([columns(30), columns(20)]), 2, config, scratch, evidence)
    scratch.rmdir()
    return written


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("set"))


@pytest.fixture
def repo(made, tmp_path) -> Path:
    """A folder to serve, with what else a dataset repository holds."""
    folder = Path(shutil.copytree(made.parent, tmp_path / "repo"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def server(tmp_path, repo, monkeypatch):
    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        running.add("owner/set", repo)
        yield running


def files_asked_for(server: HubServer) -> list[str]:
    return [r.path.rpartition("/")[2] for r in server.requests if "/resolve/" in r.path and r.method == "GET"]


def error_of(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        local_manifest(spec)
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)
    return str(caught.value)


def test_a_path_is_returned_as_it_is(server, tmp_path):
    for path in ("manifests/mini.h5", str(tmp_path / "none.h5"), "C:/sets/mini.h5"):
        assert not is_remote(path)
        assert local_manifest(path) == Path(path)
        assert pinned(path) == path
    assert not server.requests


def test_a_set_on_the_hub_is_the_set_that_was_put_there(server, made, tmp_path):
    path = local_manifest("hf://owner/set")
    found, expected = OutlierSet.open(path), OutlierSet.open(made)
    assert found.fingerprint == expected.fingerprint
    rows = [49, 0, 30, 29]
    assert np.array_equal(found.read_images(rows), expected.read_images()[rows])
    assert path.parent.name == server.repos["owner/set"].refs["main"]
    assert {p.name for p in path.parent.iterdir()} == {"mini.h5", "mini-00000-of-00002.h5", "mini-00001-of-00002.h5"}
    assert path.is_relative_to(tmp_path / "hf/hub/datasets--owner--set")
    assert "mini-evidence.h5" not in files_asked_for(server)


def test_a_set_in_one_shard_from_another_host(tmp_path, monkeypatch):
    manifest = write_noise(tmp_path / "noise")
    with HubServer(cdn=True) as server:
        point_client_at(server, tmp_path / "hf", monkeypatch)
        server.add("owner/noise", manifest.parent)
        found = OutlierSet.open(local_manifest("hf://owner/noise@main"))
    assert np.array_equal(found.read_images(), OutlierSet.open(manifest).read_images())


def test_what_was_downloaded_is_read_again_without_a_network(server, made, monkeypatch):
    address = pinned("hf://owner/set")
    path = local_manifest("hf://owner/set")
    server.requests.clear()
    assert local_manifest(address) == path
    assert not server.requests
    assert local_manifest("hf://owner/set") == path
    assert not files_asked_for(server)
    server.stop()
    for spec in ("hf://owner/set", address):
        assert local_manifest(spec) == path
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for spec in ("hf://owner/set", address):
        assert local_manifest(spec) == path
    assert OutlierSet.open(path).fingerprint == OutlierSet.open(made).fingerprint


def test_a_pinned_address_stays_when_the_branch_moves(server, made, tmp_path):
    first = server.repos["owner/set"].refs["main"]
    address = pinned("hf://owner/set")
    assert address == f"hf://owner/set@{first}/mini.h5"
    assert pinned(address) == address
    other = write_shards(tmp_path / "other", seed=1)
    server.add("owner/set", other.parent)
    assert OutlierSet.open(local_manifest(address)).fingerprint == OutlierSet.open(made).fingerprint
    assert OutlierSet.open(local_manifest("hf://owner/set")).fingerprint == OutlierSet.open(other).fingerprint


def test_one_of_several_sets_is_named(server, repo, made):
    write_shards(repo / "small", "tiny", seed=2)
    server.add("owner/set", repo, branch="refs/pr/1")
    commit = server.repos["owner/set"].refs["refs/pr/1"]
    message = f"hf://owner/set@{commit}: holds several outlier sets (mini.h5, small/tiny.h5); name one, as in"
    assert error_of("hf://owner/set@refs/pr/1") == f"{message} hf://owner/set@{commit}/mini.h5"
    inner = local_manifest("hf://owner/set@refs/pr/1/small/tiny.h5")
    assert local_manifest("hf://owner/set@refs/pr/1/tiny.h5") == inner  # without its folder, where one has the name
    assert OutlierSet.open(inner).fingerprint == OutlierSet.open(repo / "small/tiny.h5").fingerprint
    assert OutlierSet.open(local_manifest(f"hf://owner/set@{commit}/mini.h5")).path.name == "mini.h5"
    assert error_of(f"hf://owner/set@{commit}/big.h5") == (
        f"hf://owner/set@{commit}: holds no big.h5; it has mini.h5, small/tiny.h5"
    )
    write_shards(repo / "more", "tiny", seed=3)
    server.add("owner/set", repo, branch="refs/pr/2")
    assert "holds several outlier sets (mini.h5, more/tiny.h5, small/tiny.h5)" in error_of(
        "hf://owner/set@refs/pr/2/tiny.h5"
    )


def test_no_set_in_the_repository(server, repo):
    for path in repo.glob("*.h5"):
        if path.name != "mini-00000-of-00002.h5":
            path.unlink()
    commit = server.repos["owner/set"].refs["main"]
    assert error_of("hf://owner/set") == f"hf://owner/set@{commit}: holds no manifest of an outlier set (a .h5 file)"
    message = error_of("hf://owner/set/mini-00000-of-00002.h5")
    assert "is not the manifest of an outlier set (it looks like a shard" in message


@pytest.mark.parametrize("spec", ["hf://set", "hf://owner/set:test", "hf://owner/set@main/mini.zip", "hf://owner/set/"])
def test_what_is_no_address(server, spec):
    message = error_of(spec)
    assert (
        message == f"{spec}: is not hf://owner/name[@revision][/mini.h5]" or "not the name of a repository" in message
    )
    assert not server.requests


def test_a_shard_that_is_missing_or_another_is_refused_before_any_is_downloaded(server, repo):
    shard = repo / "mini-00001-of-00002.h5"
    original = shard.read_bytes()
    commit = server.repos["owner/set"].refs["main"]
    shard.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    message = f"hf://owner/set@{commit}/{shard.name}: is not the shard that mini.h5 names; push the set again"
    assert error_of("hf://owner/set") == message
    shard.write_bytes(original + b" ")
    server.add("owner/set", repo)
    assert "is not the shard that mini.h5 names" in error_of("hf://owner/set")
    shard.unlink()
    server.add("owner/set", repo)
    assert error_of("hf://owner/set").endswith(f"the repository lacks its shard {shard.name}; push the set again")
    assert set(files_asked_for(server)) == {"mini.h5"}


def test_a_shard_that_was_altered_in_the_cache_is_refused(server):
    path = local_manifest("hf://owner/set")
    shard = path.parent / "mini-00001-of-00002.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"mini-00001-of-00002.h5: its copy in the cache is not what the Hub states"):
        OutlierSet.open(local_manifest("hf://owner/set"))


ENTRY = {"file": "mini-00000-of-00002.h5", "rows": 30, "bytes": 1, "sha256": "0"}


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ([{**ENTRY, "file": "../mini-00000-of-00002.h5"}], "names a file outside its folder"),
        ([{**ENTRY, "file": "/etc/passwd"}], "names a file outside its folder"),
        ([{**ENTRY, "file": ".."}, ENTRY], "names a file outside its folder"),
        ([{"file": "mini-00000-of-00002.h5"}], "its table of shards is damaged"),
        (["mini-00000-of-00002.h5"], "its table of shards is damaged"),
        (None, "its table of shards is damaged"),
    ],
)
def test_a_manifest_that_cannot_be_trusted(server, repo, shards, expected):
    document = {"format": "srood-outliers", "schema_version": 1, "rows": 1, "shards": shards}
    with h5py.File(repo / "mini.h5", "w") as file:
        file["manifest"] = np.bytes_(json.dumps(document))
    assert expected in error_of("hf://owner/set")
    assert set(files_asked_for(server)) == {"mini.h5"}


def test_a_download_that_was_cut_is_finished_the_next_time(server, made, monkeypatch):
    import time

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.fail_next(None, times=99, path="/resolve/.*mini-00001", sent=1000)
    assert "mini-00001-of-00002.h5: the Hub cannot be reached" in error_of("hf://owner/set")
    server.plan_nothing()
    assert OutlierSet.open(local_manifest("hf://owner/set")).fingerprint == OutlierSet.open(made).fingerprint


def test_what_cannot_be_had(server, repo, monkeypatch):
    assert error_of("hf://owner/other").startswith(
        "hf://owner/other@main: no such dataset repository, or it is private"
    )
    assert error_of("hf://owner/set@v9").startswith("hf://owner/set@v9: has no such revision")
    server.add("owner/hidden", repo, private=True)
    assert error_of("hf://owner/hidden").startswith(
        "hf://owner/hidden@main: no such dataset repository, or it is private"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.writers[TOKEN] = ["owner"]
    assert OutlierSet.open(local_manifest("hf://owner/hidden")).num_rows == 50
    server.add("owner/gated", repo, gated=True)
    assert "is gated; accept its terms" in error_of("hf://owner/gated")
    server.stop()
    assert error_of("hf://owner/third").startswith("hf://owner/third@main: the Hub cannot be reached (")


def test_training_from_the_hub_is_training_from_the_folder_and_stays_with_its_set(server, made, tmp_path, monkeypatch):
    id_set = write_digits(tmp_path / "digits", train=16)
    torch.manual_seed(0)
    start = tmp_path / "start.safetensors"
    info = WeightsInfo("resnet20", None, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    save_weights(start, build_model("resnet20", 10).state_dict(), info)
    settings = {"id": str(id_set), "model": "resnet20", "checkpoint": start, "batch_size": 8, "outlier_batch_size": 8}
    settings |= {"epochs": 1, "device": "cpu", "precision": "32-true", "checkpoint_every": 1}
    local = tune(TuneConfig(**settings, outliers=f"{made}:0.5"), tmp_path / "local")
    run = tune(TuneConfig(**settings, outliers="hf://owner/set:0.5"), tmp_path / "run")
    assert (run / "model.safetensors").read_bytes() == (local / "model.safetensors").read_bytes()
    commit = server.repos["owner/set"].refs["main"]
    address = f"hf://owner/set@{commit}/mini.h5"
    assert read_config(run).outliers == (f"{address}:0.5",)
    (recorded,) = json.loads((run / "run.json").read_text())["outliers"]
    expected = {"file": address, "fingerprint": OutlierSet.open(made).fingerprint, "rows": 50, "weight": 0.5}
    expected["read"] = "in memory"
    assert recorded == expected
    # the branch moves on; the run does not
    (run / "model.safetensors").unlink()
    server.add("owner/set", write_shards(tmp_path / "other", seed=1).parent)
    resume(run)
    assert (run / "model.safetensors").read_bytes() == (local / "model.safetensors").read_bytes()
