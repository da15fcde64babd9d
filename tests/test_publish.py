"""`curate publish` against a Hub on this machine, with the real client; what was uploaded is read back through it."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hub_server import HubServer
from published_sets import LABELS, contents, download, hub_environment, make_built, python
from small_sets import rewrite

from curate.publishing.publish import PublishConfig, prepare, publish
from srood import hub_upload
from srood.errors import InputError
from srood.outlier_sources import local_manifest
from srood.outliers import OutlierSet, verify

FILES = {
    *("README.md", "LICENSES.md", "croissant.json", "contact-sheet.png", "manifest.json", "hdf5/mini.h5"),
    *(f"data/train-{number:05d}-of-00003.parquet" for number in range(3)),
    *(f"hdf5/mini-{number:05d}-of-00003.h5" for number in range(3)),
}
PIXELS = """
import hashlib, sys
from datasets import load_dataset
import numpy as np
rows = load_dataset(sys.argv[1], split="train", revision=sys.argv[2])
names = rows.features["label"].names
for row in rows:
    digest = hashlib.sha256(np.asarray(row["image"]).tobytes()).hexdigest()
    print(digest, row["key"], names[row["label"]])
"""


@pytest.fixture
def made(built_set, tmp_path) -> Path:
    """A copy of the set that a test may change."""
    return Path(shutil.copytree(built_set.parent, tmp_path / "made"), "mini.h5")


def rows_of(manifest: Path) -> list[tuple[str, str, int]]:
    """Hash of the pixels, key and label of each row, read with plain h5py."""
    found = []
    for shard in sorted(manifest.parent.glob("mini-0*.h5")):
        with h5py.File(shard) as file:
            for image, key, label in zip(file["image"][:], file["key"][:], file["label"][:], strict=True):
                found.append((hashlib.sha256(image.tobytes()).hexdigest(), key.decode(), int(label)))
    return found


def test_what_is_published_is_the_set(writable_hub, built_set, tmp_path):
    pushed, files = publish(PublishConfig(built_set, "owner/things"))
    back = download(tmp_path / "back")
    assert set(back) == set(files) == FILES
    assert {name: len(data) for name, data in back.items()} == files
    for name in FILES:
        if name.startswith("hdf5/"):
            assert back[name] == (built_set.parent / name.removeprefix("hdf5/")).read_bytes(), name
    with h5py.File(built_set) as file:
        assert json.loads(back["manifest.json"]) == json.loads(file["manifest"][()])
    repo = writable_hub.repos["owner/things"]
    assert pushed.changed and pushed.commit == repo.refs["main"] and len(repo.commits) == 2
    assert repo.messages[pushed.commit] == "mini.h5: 90 rows"
    assert pushed.url == f"{writable_hub.endpoint}/datasets/owner/things"
    assert {path.name for path in built_set.parent.iterdir()} == {
        *("mini.h5", "mini-evidence.h5"), *(f"mini-{number:05d}-of-00003.h5" for number in range(3)),
    }  # fmt: skip


def test_datasets_loads_the_same_pixels(writable_hub, built_set, tmp_path):
    pushed, _ = publish(PublishConfig(built_set, "owner/things"))
    printed = python(PIXELS, hub_environment(writable_hub, tmp_path / "hf2"), "owner/things", pushed.commit)
    expected = [f"{digest} {key} {LABELS[label]}" for digest, key, label in rows_of(built_set)]
    assert printed.splitlines() == expected


def test_the_same_set_again_changes_nothing(writable_hub, built_set, tmp_path, curate):
    first, _ = publish(PublishConfig(built_set, "owner/things"))
    before = download(tmp_path / "before")
    writable_hub.requests.clear()
    code, out, _ = curate("publish", built_set, "owner/things")
    assert code == 0 and f"nothing changed since commit {first.commit}\n" in out
    assert len(writable_hub.repos["owner/things"].commits) == 2
    assert not [r for r in writable_hub.requests if r.method == "PUT" or "/commit/" in r.path]
    assert download(tmp_path / "after") == before


def test_a_dry_run_writes_what_is_uploaded_and_asks_nothing_of_the_network(
    writable_hub, built_set, tmp_path, monkeypatch, curate
):
    publish(PublishConfig(built_set, "owner/things"))
    uploaded = download(tmp_path / "back")
    count = len(writable_hub.requests)

    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = curate("publish", built_set, "owner/things", "--dry-run", tmp_path / "dry")
    assert (code, err) == (0, "")
    assert contents(tmp_path / "dry") == uploaded
    assert len(writable_hub.requests) == count
    for name, data in uploaded.items():
        assert f"{len(data):>13,} {name}\n" in out
    code, _, err = curate("publish", built_set, "owner/things", "--dry-run", tmp_path / "dry")
    assert (code, err) == (2, f"error: --dry-run {tmp_path / 'dry'}: is not empty; choose another folder\n")


def test_a_smaller_set_replaces_a_larger_one_and_other_files_stay(writable_hub, built_set, made, tmp_path):
    from published_sets import config

    from curate.build import build

    publish(PublishConfig(built_set, "owner/things"))
    repo = writable_hub.repos["owner/things"]
    (repo.commits[repo.refs["main"]] / "NOTES.md").write_text("mine")  # as if added on the Hub
    root = built_set.parent.parent
    small = build(config(root, made, size=40, source_license="cc-by-4.0", overwrite=True)).out
    publish(PublishConfig(small, "owner/things"))
    assert set(download(tmp_path / "back")) == {
        *("README.md", "LICENSES.md", "croissant.json", "contact-sheet.png", "manifest.json", "NOTES.md"),
        *("hdf5/mini.h5", "hdf5/mini-00000-of-00001.h5", "data/train-00000-of-00001.parquet"),
    }
    assert OutlierSet.open(local_manifest("hf://owner/things")).num_rows == 40


def test_branch_message_and_visibility(writable_hub, built_set, tmp_path):
    publish(PublishConfig(built_set, "owner/things", private=True, message="first"))
    repo = writable_hub.repos["owner/things"]
    assert repo.private and repo.messages[repo.refs["main"]] == "first"
    second, _ = publish(PublishConfig(built_set, "owner/things", revision="v2"))
    assert repo.refs["v2"] == second.commit != repo.refs["main"]
    card = download(tmp_path / "back", revision="v2")["README.md"].decode()
    assert 'revision="v2"' in card and "hf://owner/things@v2" in card
    publish(PublishConfig(built_set, "owner/open"))
    with pytest.raises(InputError, match="^owner/open: is public, and so would be what is pushed"):
        publish(PublishConfig(built_set, "owner/open", private=True, message="again"))


def test_a_repository_that_holds_something_else_is_left_alone(writable_hub, built_set, tmp_path):
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "data" / "train-00000-of-00009.parquet").write_bytes(b"years of work")
    writable_hub.add("owner/other", other)
    with pytest.raises(InputError, match=r"^owner/other: holds something else \(data/train-00000-of-00009.parquet\); "):
        publish(PublishConfig(built_set, "owner/other"))
    assert len(writable_hub.repos["owner/other"].commits) == 1
    publish(PublishConfig(built_set, "owner/other", overwrite=True))
    assert set(download(tmp_path / "back", "owner/other")) == FILES


def test_many_files_go_up_in_several_commits_the_manifest_in_the_last(writable_hub, built_set, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_upload, "COMMIT_FILES", 4)
    pushed, _ = publish(PublishConfig(built_set, "owner/things"))
    repo = writable_hub.repos["owner/things"]
    assert list(repo.messages.values()) == [
        "mini.h5: 90 rows (part 1 of 3)", "mini.h5: 90 rows (part 2 of 3)", "mini.h5: 90 rows",
    ]  # fmt: skip
    before_last = list(repo.commits.values())[-2]
    there = set(contents(before_last)) - {".gitattributes"}
    assert there == FILES - {"README.md", "manifest.json", "croissant.json", "hdf5/mini.h5"}
    assert set(download(tmp_path / "back")) == FILES
    again, _ = publish(PublishConfig(built_set, "owner/things"))
    assert not again.changed and again.commit == pushed.commit


@pytest.mark.parametrize("limit", [4, 256])
def test_an_interrupted_publish_goes_on_and_sends_nothing_twice(writable_hub, built_set, tmp_path, monkeypatch, limit):
    import time

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hub_upload, "COMMIT_FILES", limit)
    last = hashlib.sha256((built_set.parent / "mini-00002-of-00003.h5").read_bytes()).hexdigest()
    writable_hub.fail_next(None, times=99, path=f"/lfs/{last}")
    with pytest.raises(InputError, match="^owner/things: the Hub cannot be reached"):
        publish(PublishConfig(built_set, "owner/things"))
    with pytest.raises(InputError):
        local_manifest("hf://owner/things")  # no half of a set can be read
    sent = puts(writable_hub)
    assert len(sent) >= 2 and not any(last in path for path in sent)
    writable_hub.plan_nothing()
    writable_hub.requests.clear()
    publish(PublishConfig(built_set, "owner/things"))
    assert not sent & puts(writable_hub)
    assert set(download(tmp_path / "back")) == FILES


def test_a_publish_that_was_killed_goes_on(built_set, token, tmp_path):
    last = hashlib.sha256((built_set.parent / "mini-00002-of-00003.h5").read_bytes()).hexdigest()
    command = [sys.executable, "-m", "curate", "publish", str(built_set), "owner/things"]
    with HubServer() as server:
        server.writers[token] = ["owner"]
        environment = hub_environment(server, tmp_path / "hf", HF_TOKEN=token)
        server.fail_next(None, times=99, path=f"/lfs/{last}")  # the client tries that one again for 23 seconds
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        expected = sum(server.is_lfs(name) for name in FILES) - 1
        deadline = time.monotonic() + 60
        while len(sent := puts(server)) < expected and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert len(sent) == expected and "owner/things" in server.repos
        server.plan_nothing()
        server.requests.clear()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        assert puts(server) == {f"/lfs/{last}"}
        repo = server.repos["owner/things"]
        assert set(repo.files(repo.refs["main"])) - {".gitattributes"} == FILES
    assert not [path for path in built_set.parent.iterdir() if "publish" in path.name]


def puts(server: HubServer) -> set[str]:
    return {r.path for r in server.requests if r.method == "PUT" and r.status == 200}


def test_a_set_that_does_not_verify_is_refused(writable_hub, made, curate):
    shard = made.parent / "mini-00001-of-00003.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert len(verify(made)) >= 1
    code, out, err = curate("publish", made, "owner/things")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {shard}: was altered") and "a set that does not verify is not published" in err
    assert not writable_hub.requests


def test_a_process_of_its_own_with_the_stored_login(built_set, token, tmp_path):
    with HubServer() as server:
        server.writers[token] = ["owner"]
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf/token").write_text(token)
        environment = hub_environment(server, tmp_path / "hf")
        for command in (
            ["publish", built_set, "owner/things", "--private"],
            ["pull", "owner/things", "--out", tmp_path],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "curate", *map(str, command)], env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert token not in done.stdout + done.stderr
        assert server.repos["owner/things"].private
    assert OutlierSet.open(tmp_path / "mini.h5").fingerprint == OutlierSet.open(built_set).fingerprint


def test_two_machines_prepare_the_same_bytes(built_set, tmp_path):
    again = make_built(tmp_path / "elsewhere")
    prepare(PublishConfig(built_set, "owner/things"), tmp_path / "a")
    prepare(PublishConfig(again, "owner/things"), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert np.array_equal(OutlierSet.open(again).read_images(), OutlierSet.open(built_set).read_images())


def test_a_repository_of_another_set_is_left_alone(writable_hub, built_set, made, tmp_path):
    publish(PublishConfig(built_set, "owner/things"))
    before = download(tmp_path / "before")
    from published_sets import config

    from curate.build import build

    small = build(config(built_set.parent.parent, made.with_name("small.h5"), size=20, source_license="mit")).out
    with pytest.raises(
        InputError, match=r"^owner/things: holds something else \(.*; name another repository, or give --o"
    ):
        publish(PublishConfig(small, "owner/things"))
    assert download(tmp_path / "after") == before
    # nor is a folder hdf5 alone the sign of a set
    for name in ("hdf5/physics.h5", "data/train-00000-of-00009.parquet"):
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "other" / name).write_bytes(b"years of work")
    writable_hub.add("owner/physics", tmp_path / "other")
    with pytest.raises(InputError, match=r"^owner/physics: holds something else"):
        publish(PublishConfig(built_set, "owner/physics"))


def test_a_dry_run_shares_no_file_with_the_set(made, tmp_path):
    prepare(PublishConfig(made, "owner/things"), tmp_path / "dry")
    for path in (tmp_path / "dry" / "hdf5").iterdir():
        path.write_bytes(b"")
    assert verify(made) == []


def test_what_the_user_put_beside_the_set_stays(writable_hub, made):
    mine = made.with_name("mini.h5.publish") / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    publish(PublishConfig(made, "owner/things"))
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        ("", {}, ".: no such outlier set"),
        ("renamed.h5", {}, "its shards are not named after it (mini-00000-of-00003.h5, ...)"),
        ("mini.h5", {"revision": "feature/x"}, "--revision feature/x: hf:// addresses have no branches with a slash"),
    ],
)
def test_what_cannot_be_published(writable_hub, made, monkeypatch, file, options, expected):
    monkeypatch.chdir(made.parent)
    shutil.copy("mini.h5", "renamed.h5")
    with pytest.raises(InputError) as caught:
        publish(PublishConfig(Path(file), "owner/things", **options))
    assert expected in str(caught.value)
    assert not writable_hub.requests


def test_a_name_that_the_hub_would_not_show_as_a_set(writable_hub, built_set, tmp_path):
    path = rewrite(built_set, tmp_path / "x-evidence.h5", lambda columns: columns)
    assert verify(path) == []
    with pytest.raises(InputError, match=r"x-evidence\.h5: is named as a shard or evidence is.*curate rebuild"):
        publish(PublishConfig(path, "owner/things"))
    assert not writable_hub.requests


def test_no_name_and_password_of_a_mirror_is_published(built_set, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://user:s3cret@mirror.local")
    prepare(PublishConfig(built_set, "owner/things"), tmp_path / "dry")
    assert not [name for name, data in contents(tmp_path / "dry").items() if b"s3cret" in data]
    assert b"https://mirror.local/datasets/owner/things" in contents(tmp_path / "dry")["croissant.json"]
