import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer, point_client_at
from PIL import Image

from srood import datasets, hub, hub_errors, splits
from srood.errors import InputError

COMMIT = "5a77092c28e51558c5586e9c5eb71a7e17a5e43f"
TOKEN = "hf_thisIsTheUsersSecretToken"
QUICK = 10.0  # seconds, a third of what the patient retries take: an error takes no longer on a busy machine either


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, pixels, labels, names=None, image="image", label="label"):
    """A file as `datasets` writes it: images as bytes and path, class names in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array([{"bytes": png(p), "path": None} for p in pixels], kind), label: labels})
    if names:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=30)
    assert path.stat().st_size > 3 * 65536  # so that what is read of a footer is a small part of it


@pytest.fixture(scope="session")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, pixels):
    """A repository in the Hub's usual layout: train in two files, test in one."""
    root = tmp_path_factory.mktemp("repo")
    labels = [i % 3 for i in range(200)]
    names = ["n01", "n02", "n03"]
    write_parquet(root / "data/train-00000-of-00002.parquet", pixels[:70], labels[:70], names)
    write_parquet(root / "data/train-00001-of-00002.parquet", pixels[70:130], labels[70:130], names)
    write_parquet(root / "data/test-00000-of-00001.parquet", pixels[130:], labels[130:], names)
    (root / "README.md").write_text("---\nlicense: mit\n---\n")
    return root


@pytest.fixture
def server(tmp_path, folder, monkeypatch):
    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        running.add("owner/repo", folder, license="mit")
        yield running


def error_of(spec):
    """The message of a spec that does not resolve, and the seconds it took."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        datasets.resolve(spec).num_rows()
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    return message, time.monotonic() - started


def test_a_split_on_the_hub_is_the_parquet_files_that_it_serves(server, pixels):
    source = datasets.resolve("hf://owner/repo:train")
    commit = server.repos["owner/repo"].refs["main"]
    assert source.revision == commit
    assert source.spec == f"hf://owner/repo@{commit}:train"
    assert (source.license, source.class_names) == ("mit", ("n01", "n02", "n03"))
    rows = list(source.rows())
    assert [row.data for row in rows] == [png(p) for p in pixels[:130]]
    assert [row.label for row in rows] == [i % 3 for i in range(130)]
    assert [row.key for row in rows] == [f"owner/repo:train#{i}" for i in range(130)]
    loaded = datasets.load_images(source.spec)
    assert np.array_equal(loaded.images, pixels[:130])


def test_resolving_and_counting_and_fingerprinting_download_no_file(server, folder):
    source = datasets.resolve("hf://owner/repo:train")
    for _ in range(3):
        assert source.num_rows() == 130
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("data/train*"))]
    assert source.fingerprint() == hashlib.sha256("".join(digests).encode()).hexdigest()
    file_requests = [r for r in server.requests if "/resolve/" in r.path]
    assert len(file_requests) == 2  # a footer each, once
    for request in file_requests:
        assert request.range is not None and request.status == 206
        assert request.sent <= 65536 < (folder / request.path.partition(f"{source.revision}/")[2]).stat().st_size / 3
    assert not list(Path(os.path.dirname(hub._stored_at("a/b", "c"))).parents[1].glob("hub/**/*.parquet"))


def test_rows_from_a_later_file_do_not_download_the_earlier_one(server, pixels):
    rows = list(datasets.resolve("hf://owner/repo:train").rows(100))
    assert [row.data for row in rows] == [png(p) for p in pixels[100:130]]
    downloads = {r.path.rpartition("/")[2] for r in server.requests if "/resolve/" in r.path and r.range is None}
    assert downloads == {"train-00001-of-00002.parquet"}


@pytest.mark.parametrize(
    ("spec", "repo", "commit", "file", "image", "label"),
    [
        (
            "tiny-imagenet:corpus",
            "zh-plus/tiny-imagenet",
            COMMIT,
            "data/train-00000-of-00001-x.parquet",
            "image",
            "label",
        ),
        (
            "cifar10:test",
            "uoft-cs/cifar10",
            "0b2714987fa478483af9968de7c934580d0bb9a2",
            "plain_text/test-00000-of-00001.parquet",
            "img",
            "label",
        ),
        (
            "cifar100:test",
            "uoft-cs/cifar100",
            "aadb3af77e9048adbea6b47c21a81e47dd092ae5",
            "cifar100/test-00000-of-00001.parquet",
            "img",
            "fine_label",
        ),
    ],
)
def test_named_sets_give_the_pixels_and_labels_of_the_file(
    server, tmp_path, pixels, spec, repo, commit, file, image, label
):
    names = None if spec.startswith("cifar") else ["n01", "n02", "n03", "n04", "n05", "n06", "n07", "n08", "n09", "n10"]
    labels = [i % 10 for i in range(90)]
    write_parquet(tmp_path / "repo" / file, pixels[:90], labels, names, image, label)
    server.add(repo, tmp_path / "repo", commit=commit)
    from_hub = datasets.load_images(spec)
    from_file = datasets.load_images(str(tmp_path / "repo" / file))
    assert np.array_equal(from_hub.images, pixels[:90])
    assert np.array_equal(from_hub.images, from_file.images)
    assert from_hub.labels.tolist() == from_file.labels.tolist() == labels
    assert from_hub.class_names[:10] == (tuple(names) if names else datasets.dataset_info(spec[:-5]).class_names[:10])
    source = datasets.resolve(spec)
    assert (source.spec, source.revision, source.name) == (spec, commit, spec)
    assert next(source.rows()).key == f"{spec}#0"


def test_textures_as_the_hub_stores_it(server, tmp_path, srood_data):
    (tmp_path / "dtd" / "data").mkdir(parents=True)
    (tmp_path / "dtd/data/test-00000-of-00001.parquet").symlink_to(srood_data / "textures/test.parquet")
    server.add("tanganke/dtd", tmp_path / "dtd", commit="d2afa97d9f335b1a6b3b09c637aef667f98f966e")
    source = datasets.resolve("textures:test")
    assert source.num_rows() == 1200 and source.class_names[0] == "banded"
    table = pq.read_table(srood_data / "textures/test.parquet")
    rows = list(source.rows())
    assert [row.data for row in rows] == [item["bytes"] for item in table["image"].to_pylist()]
    assert [row.label for row in rows] == table["label"].to_pylist()


def test_a_second_read_needs_no_server(server):
    by_branch = datasets.resolve("hf://owner/repo:test")
    first = datasets.load_images("hf://owner/repo:test")
    count = len(server.requests)
    again = datasets.load_images(by_branch.spec)
    assert len(server.requests) == count  # a commit never changes: nothing is asked
    server.stop()
    for spec in (by_branch.spec, "hf://owner/repo:test"):
        offline = datasets.resolve(spec)
        assert (offline.spec, offline.license) == (by_branch.spec, "mit")
        assert offline.fingerprint() == by_branch.fingerprint()
        assert np.array_equal(datasets.load_images(spec).images, first.images)
    assert np.array_equal(again.images, first.images)


def test_what_another_program_downloaded_is_read_without_a_server(server, pixels):
    from huggingface_hub import snapshot_download

    snapshot_download("owner/repo", repo_type="dataset", revision="main")
    server.stop()
    assert np.array_equal(datasets.load_images("hf://owner/repo:train").images, pixels[:130])


def test_half_of_a_split_in_the_cache_is_not_the_split(server):
    from huggingface_hub import hf_hub_download

    hf_hub_download("owner/repo", "data/train-00000-of-00002.parquet", repo_type="dataset", revision="main")
    server.stop()
    message, _ = error_of("hf://owner/repo:train")
    assert "the Hub cannot be reached" in message


def test_class_names_from_strings_read_only_their_column(server, tmp_path, pixels):
    labels = np.array(["dog", "ant", "cat"])[np.arange(200) % 3].tolist()
    write_parquet(tmp_path / "words/train-00000-of-00002.parquet", pixels[:100], labels[:100])
    write_parquet(tmp_path / "words/train-00001-of-00002.parquet", pixels[100:], ["bee"] * 100)
    server.add("owner/words", tmp_path / "words")
    source = datasets.resolve("hf://owner/words:train")
    assert source.class_names == ("ant", "bee", "cat", "dog")
    sent = sum(request.sent for request in server.requests if "/resolve/" in request.path)
    assert sent < sum(path.stat().st_size for path in (tmp_path / "words").iterdir()) / 2
    assert [row.label for row in source.rows()] == [{"ant": 0, "cat": 2, "dog": 3}[name] for name in labels[:100]] + [
        1
    ] * 100


def test_a_branch_is_read_at_the_commit_it_had_when_resolved(server, tmp_path, pixels):
    source = datasets.resolve("hf://owner/repo:test")
    write_parquet(tmp_path / "new/data/test-00000-of-00001.parquet", 255 - pixels[130:], [0] * 70)
    server.add("owner/repo", tmp_path / "new")
    assert next(source.rows()).data == png(pixels[130])
    newer = datasets.resolve("hf://owner/repo:test")
    assert newer.revision != source.revision
    assert next(newer.rows()).data == png(255 - pixels[130])


def test_files_behind_a_redirect_to_another_host_get_no_token(tmp_path, folder, pixels, monkeypatch):
    with HubServer(cdn=True) as server:
        point_client_at(server, tmp_path / "hf", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        server.add("owner/repo", folder)
        assert np.array_equal(datasets.load_images("hf://owner/repo:test").images, pixels[130:])
        tokens = {(request.path.split("/")[1], request.token) for request in server.requests}
    assert tokens == {("api", TOKEN), ("datasets", TOKEN), ("cdn", None)}


def test_gated(server, monkeypatch):
    server.repos["owner/repo"].gated = True
    for token in (None, TOKEN):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        message, seconds = error_of("hf://owner/repo:train")
        assert "hf://owner/repo@" in message and "is gated; accept its terms" in message and "hf auth login" in message
        assert TOKEN not in message and seconds < QUICK
    server.repos["owner/repo"].allowed_tokens = {TOKEN}
    assert datasets.resolve("hf://owner/repo:train").num_rows() == 130


def test_a_gated_named_set_does_not_resolve(server, tmp_path, pixels):
    file = tmp_path / "repo/plain_text/test-00000-of-00001.parquet"
    write_parquet(file, pixels[:90], [i % 10 for i in range(90)], None, "img")
    server.add("uoft-cs/cifar10", tmp_path / "repo", commit="0b2714987fa478483af9968de7c934580d0bb9a2", gated=True)
    with pytest.raises(
        InputError, match=r"^cifar10:test: not found; tried .*SROOD_DATA.* hf://uoft-cs/cifar10@.*gated"
    ):
        datasets.resolve("cifar10:test")


@pytest.mark.parametrize("token", [None, TOKEN])
def test_no_such_repository(server, token, monkeypatch):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    message, seconds = error_of("hf://owner/other:train")
    assert message.startswith("hf://owner/other@main: no such dataset repository, or it is private")
    assert TOKEN not in message and seconds < QUICK and len(server.requests) == 1


def test_no_such_revision(server):
    message, seconds = error_of("hf://owner/repo@v9:train")
    assert message.startswith("hf://owner/repo@v9: has no such revision") and seconds < QUICK


def test_no_file_of_the_split(server):
    message, seconds = error_of("hf://owner/repo:valid")
    assert message.startswith("hf://owner/repo@") and ":valid: no Parquet file matches" in message
    assert "data/test-00000-of-00001.parquet, data/train-00000" in message and seconds < QUICK


def test_not_a_repository_name(server):
    message, _ = error_of("hf://owner/re po:train")
    assert message == "hf://owner/re po@main: is not the name of a repository; give owner/name"


def test_server_down(server):
    server.stop()
    message, seconds = error_of("hf://owner/repo:train")
    assert message.startswith("hf://owner/repo@main: the Hub cannot be reached (Conn")
    assert "check the network" in message and seconds < QUICK


def test_server_gone_before_the_second_footer(server):
    source = datasets.resolve("hf://owner/repo:train")
    server.stop()
    with pytest.raises(InputError, match=r"^hf://owner/repo@\w{40}/data/train-00001-of-00002.parquet: the Hub cannot"):
        source.num_rows()


def test_server_gone_before_the_rows_are_reached(server):
    source = datasets.resolve("hf://owner/repo:train")
    server.stop()
    started = time.monotonic()
    with pytest.raises(InputError, match=r"^hf://owner/repo@\w{40}/data/train-00000-of-00002.parquet: the Hub cannot"):
        next(source.rows())
    assert time.monotonic() - started < QUICK


def test_server_fails(server):
    server.fail_next(500, times=9)
    message, seconds = error_of("hf://owner/repo:train")
    assert message == "hf://owner/repo@main: the Hub fails (HTTP 500); try again later, or use local files"
    assert seconds < QUICK


@pytest.mark.parametrize("status", [500, 503, None])
def test_a_short_failure_is_tried_again(server, status):
    server.fail_next(status, path="/api/")
    server.fail_next(status, path="/resolve/")
    assert datasets.resolve("hf://owner/repo:train").num_rows() == 130


def test_refused_token(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.fail_next(403, times=9)
    message, seconds = error_of("hf://owner/repo:train")
    assert "refuses access (HTTP 403)" in message and TOKEN not in message and seconds < QUICK


@pytest.mark.skipif(huggingface_hub.__version__ < "1", reason="the client sends any character")
@pytest.mark.parametrize("character", ["\x0c", "\u2603"])
def test_a_token_that_cannot_be_sent_is_not_shown(server, character, monkeypatch):
    """The client's own message quotes the whole header."""
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}{character}{TOKEN}")
    message, seconds = error_of("hf://owner/repo:train")
    assert "token holds a character that cannot be sent" in message
    assert TOKEN not in message and seconds < QUICK


def test_a_file_that_is_not_parquet(server, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/train.parquet").write_bytes(b"<html>no parquet</html>" * 10_000)
    server.add("owner/bad", tmp_path / "bad")
    message, _ = error_of("hf://owner/bad:train")
    assert "/train.parquet: cannot be read as Parquet" in message


def listed(*names):
    return hub.Listing("o/r", "c", "mit", tuple(hub.HubFile("o/r", "c", name, 1) for name in sorted(names)))


@pytest.mark.parametrize(
    ("name", "of_train"),
    [
        ("data/train-00000-of-00002.parquet", True),
        ("train.parquet", True),
        ("plain_text/train-00000.parquet", True),
        ("default/train/0000.parquet", True),
        ("data/cifar_train.parquet", True),
        ("train0.parquet", True),
        ("data/pretrain-x.parquet", False),
        ("data/training-x.parquet", False),
        ("data/test-00000.parquet", False),
        ("data/train-00000.csv", False),
        ("train/images.zip", False),
    ],
)
def test_which_files_are_of_a_split(name, of_train):
    found = listed(name, "data.json")
    if of_train:
        assert [file.name for file in splits.parquet_of(found, "train")] == [name]
    else:
        with pytest.raises(InputError, match="no Parquet file matches"):
            splits.parquet_of(found, "train")


def test_a_split_of_two_configurations_must_be_told_apart():
    found = listed("full/train-0.parquet", "full/test-0.parquet", "crop/train-0.parquet", "crop/train-1.parquet")
    with pytest.raises(InputError, match=r"hf://o/r@c:train: is in crop, full; name one, as in :crop/train"):
        splits.parquet_of(found, "train")
    assert [f.name for f in splits.parquet_of(found, "crop/train")] == ["crop/train-0.parquet", "crop/train-1.parquet"]
    assert len(splits.parquet_of(found, "")) == 4
    nested = listed("data/train/train-0.parquet", "data/train/train-1.parquet")
    assert len(splits.parquet_of(nested, "train")) == 2


@pytest.mark.parametrize(
    ("split", "of_it", "others"),
    [
        ("train", ["data/train-00000-of-00001-abc.parquet"], ["data/train_extra-00000-of-00001-abc.parquet"]),
        ("test", ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"], ["data/test2-0.parquet"]),
        ("train", ["data/train-00000-of-00001.parquet"], ["data/unlabeled_train-00000-of-00001.parquet"]),
        ("test", ["data/test-00000-of-00001-beef.parquet"], ["data/train-00000-of-00001-test1.parquet"]),
        ("train", ["default/train/0000.parquet"], ["default/partial-train/0000.parquet"]),
        ("train0", ["train0.parquet"], ["train1.parquet"]),
        ("/test", ["test.parquet"], ["a/test.parquet"]),
        ("a/test", ["x/a/test.parquet"], ["b/test.parquet", "xa/test.parquet"]),
    ],
)
def test_files_of_splits_with_longer_names_are_not_of_a_split(split, of_it, others):
    assert [file.name for file in splits.parquet_of(listed(*of_it, *others), split)] == of_it


def test_a_split_of_the_top_folder_can_be_named():
    with pytest.raises(InputError, match=r":test: is in the top folder, a; name one, as in :a/test"):
        splits.parquet_of(listed("test.parquet", "a/test.parquet"), "test")
    with pytest.raises(InputError, match=r":c/test: is in a/c, b/c; name one, as in :a/c/test"):
        splits.parquet_of(listed("b/c/test.parquet", "a/c/test.parquet"), "c/test")


def test_a_repository_without_parquet_names_the_hubs_conversion(server, tmp_path, folder):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv/train.csv").write_text("a,b\n")
    server.add("owner/csv", tmp_path / "csv")
    message, _ = error_of("hf://owner/csv:train")
    assert message.endswith("it has no Parquet; the Hub's own conversion may be at hf://owner/csv@refs/convert/parquet")
    server.add("owner/csv", folder, branch="refs/convert/parquet")
    assert datasets.resolve("hf://owner/csv@refs/convert/parquet:train").num_rows() == 130


def test_the_server_answers_what_else_the_client_asks_for(server, folder):
    """So that a test that passes against it says something about the Hub: tree, paths and file system."""
    from huggingface_hub import HfApi, HfFileSystem

    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    api = HfApi(endpoint=server.endpoint)
    tree = list(api.list_repo_tree("owner/repo", repo_type="dataset", recursive=True))
    assert {item.path for item in tree} == {"data", *files}
    by_path = {item.path: item for item in tree if item.path != "data"}
    for name, path in files.items():
        assert by_path[name].size == path.stat().st_size
    test = "data/test-00000-of-00001.parquet"
    assert by_path[test].lfs.sha256 == hashlib.sha256(files[test].read_bytes()).hexdigest()
    assert [i.path for i in api.get_paths_info("owner/repo", [test, "x"], repo_type="dataset")] == [test]
    system = HfFileSystem(endpoint=server.endpoint, skip_instance_cache=True)
    with system.open(f"datasets/owner/repo/{test}") as file:
        file.seek(-4, 2)
        assert file.read() == b"PAR1"


# ---- streaming ------------------------------------------------------------------------------------------------------


@pytest.fixture
def streamed(server, monkeypatch):
    """The train split, 130 rows in two files and row groups of 30, read by ranges; waits are short."""
    monkeypatch.setattr("srood.parquet.DOWNLOAD", 0)
    monkeypatch.setattr(hub_errors, "PATIENT", (0.01, 0.01, 0.02))
    source = datasets.resolve("hf://owner/repo:train", stream=True)
    assert source.num_rows() == 130  # both footers are known from here on
    server.requests.clear()
    return source


def test_streamed_rows_are_those_of_the_file_and_nothing_is_stored(server, streamed, folder, pixels, tmp_path):
    rows = list(streamed.rows())
    assert [row.data for row in rows] == [png(p) for p in pixels[:130]]
    assert [row.label for row in rows] == [i % 3 for i in range(130)]
    assert [row.key for row in rows] == [f"owner/repo:train#{i}" for i in range(130)]
    assert all(request.range and request.status == 206 for request in server.requests)
    size = sum(path.stat().st_size for path in folder.glob("data/train*"))
    assert sum(request.sent for request in server.requests) < size + 2 * 70_000  # the data and the footers, once
    # a row group (30 rows) is one or two requests, not one a page or a column
    assert len(server.requests) <= 2 * 5 + 2 * 2
    assert not [path for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.stat().st_size > 50_000]
    assert {f"@{streamed.revision}" in str(part) for part in streamed.container.parts} == {True}


def test_a_stream_reads_row_groups_only_as_they_are_reached(server, streamed):
    rows = streamed.rows()
    for _ in range(30):
        next(rows)
    first = sum(request.sent for request in server.requests)
    assert first < 30 * 3500 + 70_000  # one group of 30 rows, and a footer
    for _ in range(31):
        next(rows)
    assert sum(request.sent for request in server.requests) > first + 60_000


@pytest.mark.parametrize("start", [1, 31, 69, 70, 125])
def test_a_stream_starts_at_any_row(server, streamed, pixels, start):
    rows = list(streamed.rows(start))
    assert [row.data for row in rows] == [png(p) for p in pixels[start:130]]
    assert [row.key for row in rows][:1] == [f"owner/repo:train#{start}"]
    if start == 125:  # the last group of the second file has 30 rows; the first file is not touched
        assert {request.path.rpartition("/")[2] for request in server.requests} == {"train-00001-of-00002.parquet"}
        assert sum(request.sent for request in server.requests) < 30 * 3500 + 70_000


@pytest.mark.parametrize("failure", [{"status": 429}, {"status": 503}, {"status": None}, {"status": None, "sent": 999}])
def test_a_stream_survives_failures_in_the_middle(server, streamed, pixels, failure):
    rows = streamed.rows()
    read = [next(rows).data for _ in range(20)]
    server.fail_next(**failure, times=3, path="/resolve/")
    read += [row.data for row in rows]
    assert read == [png(p) for p in pixels[:130]]
    assert sum(request.status in (0, 429, 503) or request.sent == 999 for request in server.requests) <= 3


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "limits the rate of requests.*wait and try again"),
        (500, r"fails \(HTTP 500\)"),
        (None, "cannot be reached"),
    ],
)
def test_a_stream_gives_up_in_the_end_and_names_the_file(server, streamed, status, words):
    rows = streamed.rows()
    for _ in range(20):
        next(rows)
    server.fail_next(status, times=99, path="/resolve/")
    started = time.monotonic()
    with pytest.raises(
        InputError, match=rf"^hf://owner/repo@\w{{40}}/data/train-0000\d-of-00002.parquet: .*{words}"
    ) as error:
        list(rows)
    assert "\n" not in str(error.value) and time.monotonic() - started < QUICK
    assert sum(request.status in (0, 429, 500) for request in server.requests) <= 3 + 1


def test_a_stream_waits_as_long_as_the_hub_asks(server, streamed, monkeypatch):
    waited = []
    monkeypatch.setattr(hub_errors.time, "sleep", waited.append)
    monkeypatch.setattr(hub_errors, "PATIENT", (2.0, 4.0, 8.0))
    server.fail_next(429, path="/resolve/", headers={"Retry-After": "7"})
    server.fail_next(429, path="/resolve/", headers={"Retry-After": "86400"})
    next(streamed.rows())
    assert waited == [7.0, 16.0]  # at most four times its own wait


def test_a_file_in_the_cache_is_not_streamed_and_a_small_one_is_downloaded(server, streamed, monkeypatch):
    monkeypatch.setattr("srood.parquet.DOWNLOAD", 1 << 30)
    first = [row.data for row in streamed.rows()]
    assert any(request.range is None and request.sent for request in server.requests)
    monkeypatch.setattr("srood.parquet.DOWNLOAD", 0)
    count = len(server.requests)
    assert [row.data for row in streamed.rows()] == first
    assert len(server.requests) == count


CHILD = """
import sys, time
from srood import datasets
from srood.errors import InputError
started = time.monotonic()
try:
    loaded = datasets.load_images(sys.argv[1])
    print(loaded.fingerprint, len(loaded.labels), datasets.resolve(sys.argv[1]).revision)
except InputError as error:
    print("error:", error)
print(time.monotonic() - started)
"""


def test_with_nothing_but_the_environment_set(tmp_path, folder, pixels):
    """A process of its own, as a user's is: HF_ENDPOINT, HF_HOME and HF_TOKEN, and no patching."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "PYTHONWARNINGS": "ignore"}

    def child(spec):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, spec], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        answer, seconds = done.stdout.splitlines()
        return answer, float(seconds)

    with HubServer() as server:
        environment["HF_ENDPOINT"] = server.endpoint
        commit = next(iter(server.add("owner/repo", folder).commits))
        expected = f"{datasets.content_fingerprint(pixels[130:])} 70 {commit}"
        assert child("hf://owner/repo:test")[0] == expected
        assert {r.token for r in server.requests if "owner/repo" in r.path} == {TOKEN}
    assert child("hf://owner/repo:test")[0] == expected
    environment["HF_HUB_OFFLINE"] = "1"
    assert child(f"hf://owner/repo@{commit}:test")[0] == expected
    assert "the cache and HF_HUB_OFFLINE is set" in child("hf://owner/repo:train")[0]
    del environment["HF_HUB_OFFLINE"]
    message, seconds = child("hf://owner/repo:train")
    assert message.startswith(f"error: hf://owner/repo@{commit}/data/train-00000-of-00002.parquet: the Hub cannot be")
    assert seconds < QUICK
