"""`curate pull` from a Hub on this machine: the set that was published, verified, in a folder of one's own."""

from __future__ import annotations

import json
import shutil

import pytest
from published_sets import contents

from curate.publishing.publish import PublishConfig, publish
from curate.publishing.pull import pull
from srood.errors import InputError
from srood.outliers import OutlierSet, verify


@pytest.fixture
def hub(writable_hub, built_set):
    """A Hub with the set in `owner/things`."""
    publish(PublishConfig(built_set, "owner/things"))
    writable_hub.requests.clear()
    return writable_hub


def test_what_is_pulled_is_the_set_that_was_published(hub, built_set, tmp_path, curate):
    out = tmp_path / "sets"
    code, printed, err = curate("pull", "owner/things", "--out", out)
    address = f"hf://owner/things@{hub.repos['owner/things'].refs['main']}/hdf5/mini.h5"
    assert (code, err) == (0, "")
    assert printed == f"wrote {out / 'mini.h5'}: 90 rows of {address}, verified\n"
    expected = contents(built_set.parent)
    expected.pop("mini-evidence.h5")
    assert contents(out) == expected
    assert verify(out / "mini.h5") == []
    code, printed, _ = curate("verify", out / "mini.h5")
    assert code == 0 and "90 rows in 3 shards agree with the manifest\nnote: mini-evidence.h5 is not there" in printed


def test_the_commands_that_only_read_take_an_address(hub, curate, tmp_path):
    code, out, _ = curate("inspect", "hf://owner/things")
    assert code == 0 and out.startswith("hf://owner/things: 90 rows of 32x32 RGB")
    assert not [r for r in hub.requests if "mini-0000" in r.path]  # the manifest alone
    code, out, _ = curate("verify", "hf://owner/things")
    assert code == 0 and out.startswith("hf://owner/things: 90 rows in 3 shards agree with the manifest")
    code, out, _ = curate("report", "hf://owner/things", "--out", tmp_path / "report.html")
    assert code == 0 and b"things.parquet" in (tmp_path / "report.html").read_bytes()


def test_pulled_again_nothing_is_written(hub, tmp_path, curate):
    first = pull("owner/things", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    code, printed, _ = curate("pull", "hf://owner/things", "--out", tmp_path, "--json")
    assert code == 0
    assert json.loads(printed) == {
        "out": str(tmp_path / "mini.h5"), "from": first.address, "rows": 90, "changed": False,
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_another_set_in_the_place_is_replaced_only_if_asked(hub, tmp_path):
    out = tmp_path / "sets"
    out.mkdir()
    (out / "mini.h5").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"mini.h5: exists with other content; give --overwrite or another --out"):
        pull("owner/things", out)
    assert contents(out) == {"mini.h5": b"mine"}
    assert pull("owner/things", out, overwrite=True).changed
    # a set that was damaged since is another one
    shard = out / "mini-00001-of-00003.h5"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="exists with other content"):
        pull("owner/things", out)
    pull("owner/things", out, overwrite=True)
    assert verify(out / "mini.h5") == []


def test_a_revision_stays(hub, built_set, tmp_path):
    commit = hub.repos["owner/things"].refs["main"]
    publish(PublishConfig(built_set, "owner/things", license="cc-by-sa-4.0"))
    assert hub.repos["owner/things"].refs["main"] != commit
    assert pull("owner/things", tmp_path, revision=commit).address.startswith(f"hf://owner/things@{commit}/")
    with pytest.raises(InputError, match="--revision v1: hf://owner/things@v2 names its own"):
        pull("hf://owner/things@v2", tmp_path, revision="v1")
    with pytest.raises(InputError, match="^hf://owner/things@v9: has no such revision"):
        pull("owner/things", tmp_path, revision="v9")


def test_bytes_that_are_not_the_manifests_never_arrive(hub, tmp_path):
    repo = hub.repos["owner/things"]
    shard = repo.commits[repo.refs["main"]] / "hdf5" / "mini-00000-of-00003.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()  # it may be a link
    shard.write_bytes(data)
    with pytest.raises(InputError, match="is not the shard that hdf5/mini.h5 names"):
        pull("owner/things", tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


def test_bytes_that_were_altered_in_the_cache_never_arrive(hub, tmp_path):
    pull("owner/things", tmp_path / "first")
    (cached,) = (tmp_path / "hf").rglob("snapshots/*/hdf5/mini-00002-of-00003.h5")
    target = cached.resolve()
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    with pytest.raises(InputError, match=r"mini-00002-of-00003.h5: its copy in the cache is not what the Hub states"):
        pull("owner/things", tmp_path / "second")
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "the Hub refuses access (HTTP 401)"),
        (403, "the Hub refuses access (HTTP 403)"),
        (409, "the Hub fails (HTTP 409)"),
        (429, "the Hub limits the rate of requests (HTTP 429)"),
        (500, "the Hub fails (HTTP 500)"),
        (None, "the Hub cannot be reached ("),
    ],
)
@pytest.mark.parametrize("path", ["/api/datasets/", "/resolve/.*mini-00001"])
def test_a_failure_is_one_clear_line_and_leaves_nothing(hub, slept, curate, tmp_path, token, status, path, expected):
    hub.fail_next(status, times=99, path=path)
    code, out, err = curate("pull", "owner/things", "--out", tmp_path / "sets")
    *_, line = err.strip().splitlines()
    assert (code, out) == (2, "") and line.startswith("error: hf://owner/things@") and expected in line
    assert token not in err and "Traceback" not in err
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (500, {}), (None, {})])
@pytest.mark.parametrize("path", ["/api/datasets/", "/resolve/.*mini-00001"])
def test_a_short_failure_is_tried_again(hub, slept, built_set, tmp_path, status, headers, path):
    hub.fail_next(status, path=path, headers=headers)
    found = pull("owner/things", tmp_path)
    assert OutlierSet.open(found.path).fingerprint == OutlierSet.open(built_set).fingerprint
    assert sum(slept) > 0


def test_no_file_of_another_set_is_replaced(hub, built_set, tmp_path):
    """Not even by a manifest that was renamed, or made by hand."""
    repo = hub.repos["owner/things"]
    folder = repo.commits[repo.refs["main"]] / "hdf5"
    (folder / "mini.h5").rename(folder / "big.h5")
    hub.add("owner/things", folder.parent, "f" * 40)
    mine = shutil.copytree(built_set.parent, tmp_path / "mine")
    before = contents(mine)
    with pytest.raises(InputError, match="its shards are not named after it"):
        pull("owner/things", mine, overwrite=True)
    assert contents(mine) == before
    (mine / "mini.h5").unlink()  # shards alone are not replaced either
    publish(PublishConfig(built_set, "owner/again"))
    with pytest.raises(InputError, match="mini-00000-of-00003.h5: exists with other content"):
        pull("owner/again", mine)
    for name in ("mini-00000-of-00003.h5", "mini-00001-of-00003.h5", "mini-00002-of-00003.h5"):
        (mine / name).unlink()
    before = contents(mine)
    assert "mini-evidence.h5" in before  # nor the evidence, which is not pulled
    with pytest.raises(InputError, match="mini-evidence.h5: exists with other content"):
        pull("owner/again", mine)
    assert contents(mine) == before
