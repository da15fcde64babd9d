"""`srood push` against a Hub on this machine, with the real client; what was uploaded is read back through it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer.main
from hub_server import HubServer
from huggingface_hub import snapshot_download
from safetensors import safe_open
from safetensors.torch import load_file

from srood.errors import InputError
from srood.hashes import file_sha256
from srood.models.weights import WeightsInfo, load_model
from train import cli
from train.config import read_config
from train.publishing.push import prepare, push


@pytest.fixture
def run(evaluated_run, tmp_path) -> Path:
    """A copy of the evaluated run that a test may change."""
    return Path(shutil.copytree(evaluated_run, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def download(tmp_path: Path, repo: str = "owner/first", **settings: str) -> dict[str, bytes]:
    """What the real client reads back, without what the Hub puts into every repository."""
    target = tmp_path / f"download-{len(list(tmp_path.glob('download-*')))}"
    snapshot_download(repo, local_dir=target, **settings)
    return {name: data for name, data in contents(target).items() if name[0] != "."}


def test_what_is_read_back_is_the_run(writable_hub, evaluated_run, tmp_path):
    pushed, _ = push(evaluated_run, "owner/first")
    files = download(tmp_path)
    plots = {"eval-roc.png", "eval-scores.png"}
    assert set(files) == {"README.md", "config.yaml", "run.json", "model.safetensors", "eval.json", "eval.csv"} | plots
    for name in {"model.safetensors", "config.yaml", "eval.csv"} | plots:
        assert files[name] == (evaluated_run / name).read_bytes(), name
    assert pushed.changed and pushed.commit == writable_hub.models["owner/first"].refs["main"]
    assert pushed.url == f"{writable_hub.endpoint}/owner/first"

    target = tmp_path / "download-0"
    classifier, info = load_model(target / "model.safetensors")
    local_classifier, _ = load_model(evaluated_run / "model.safetensors")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(classifier.eval()(images), local_classifier.eval()(images))
    assert info == WeightsInfo("resnet20", "digits", info.mean, info.std, tuple("0123456789"), 32)
    assert read_config(target) == read_config(evaluated_run)


def test_a_dry_run_writes_what_is_uploaded_and_asks_nothing_of_the_network(
    writable_hub, local_run, tmp_path, monkeypatch, srood_push
):
    push(local_run, "owner/first", license="mit")
    uploaded = download(tmp_path)
    count = len(writable_hub.requests)

    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = srood_push(local_run, "owner/first", "--dry-run", tmp_path / "dry", "--license", "mit")
    assert (code, err) == (0, "")
    assert contents(tmp_path / "dry") == uploaded
    assert len(writable_hub.requests) == count
    for name, data in uploaded.items():
        assert f"{len(data):>13,} {name}\n" in out
    code, _, err = srood_push(local_run, "owner/first", "--dry-run", tmp_path / "dry")
    assert (code, err) == (2, f"error: --dry-run {tmp_path / 'dry'}: is not empty; choose another folder\n")


def test_the_same_run_again_changes_nothing(writable_hub, evaluated_run, tmp_path, srood_push):
    first, _ = push(evaluated_run, "owner/first")
    before = download(tmp_path)
    writable_hub.requests.clear()
    code, out, _ = srood_push(evaluated_run, "owner/first")
    assert code == 0
    assert f"nothing changed since commit {first.commit}\n" in out
    assert len(writable_hub.models["owner/first"].commits) == 2  # the empty repository and the push
    assert not [r for r in writable_hub.requests if r.method == "PUT" or "/commit/" in r.path]
    assert download(tmp_path) == before


def test_measurements_that_are_gone_are_removed_and_other_files_stay(writable_hub, run, tmp_path):
    push(run, "owner/first")
    repo = writable_hub.models["owner/first"]
    (repo.commits[repo.refs["main"]] / "LICENSE").write_text("mine")  # as if added on the Hub
    for path in run.glob("eval*"):
        path.unlink()
    pushed, _ = push(run, "owner/first")
    files = download(tmp_path)
    assert pushed.changed
    assert set(files) == {"README.md", "config.yaml", "run.json", "model.safetensors", "LICENSE"}
    assert b"Not evaluated" in files["README.md"]


def test_message_branch_and_visibility(writable_hub, run, tmp_path):
    first, _ = push(run, "owner/first", private=True)
    repo = writable_hub.models["owner/first"]
    assert repo.private
    assert repo.messages[first.commit] == "pretrain of resnet20 on digits"
    (run / "eval.csv").unlink()
    second, _ = push(run, "owner/first", private=True, revision="v2", message="without the table")
    assert (repo.refs["main"], repo.refs["v2"]) == (first.commit, second.commit)
    assert repo.messages[second.commit] == "without the table"
    assert "eval.csv" in download(tmp_path)
    assert "eval.csv" not in (files := download(tmp_path, revision="v2"))
    assert b'snapshot_download("owner/first", revision="v2")' in files["README.md"]

    push(run, "lab/open")
    assert not writable_hub.models["lab/open"].private
    commits = dict(writable_hub.models["lab/open"].commits)
    with pytest.raises(
        InputError, match="^lab/open: is public, and so would be what is pushed; make it private first$"
    ):
        push(run, "lab/open", private=True, message="again")
    assert writable_hub.models["lab/open"].commits == commits


def test_no_path_of_this_machine_is_published(local_run, tmp_path):
    prepared = prepare(local_run, "owner/first", tmp_path / "dry")
    files = contents(tmp_path / "dry")
    parts = {part.encode() for part in local_run.parts if len(part) > 7}  # shorter ones may be in the weights by chance
    parts |= {b"Jane Doe", b"first try", b"out liers", b"photos of mine/", b"/test.parquet"}
    for name, data in files.items():
        assert not [part for part in parts if part in data], name
    assert read_config(tmp_path / "dry").id == "photos of mine"
    record = json.loads(files["run.json"])
    assert record["id"]["name"] == "photos of mine" and record["id"]["spec"] == "train.parquet"
    assert (record["start"]["file"], record["outliers"][0]["file"]) == ("model.safetensors", "mini.h5")
    assert {**record, "id": 0, "start": 0, "outliers": 0} == {
        **json.loads((local_run / "run.json").read_text()), "id": 0, "start": 0, "outliers": 0,
    }  # fmt: skip
    # two sets with the same last component remain two, with their own figures
    evaluation, before = json.loads(files["eval.json"]), json.loads((local_run / "eval.json").read_text())
    assert list(evaluation["ood"]) == ["train.parquet", "train.parquet (2)"]
    assert [s["scores"] for s in evaluation["ood"].values()] == [s["scores"] for s in before["ood"].values()]
    rows = list(csv.reader(files["eval.csv"].decode().splitlines()))
    original = list(csv.reader((local_run / "eval.csv").read_text().splitlines()))
    assert [row[1:] for row in rows] == [row[1:] for row in original]
    assert [row[0] for row in rows[1 :: len(evaluation["mean"])]] == ["train.parquet", "train.parquet (2)", "mean"]
    # a plot shows the path of its set
    assert prepared.left_out == tuple(
        f"eval-{name}.png is left out: it shows a path of this machine" for name in ("roc", "scores")
    )
    detector = json.loads(files["detector.json"])
    assert detector["images"] == {"spec": "test.parquet", "what": "40 images of test.parquet, by srood"}
    assert detector["class_names"] == ["/m/01g317", "bus/truck"]


def test_weights_that_named_a_path_are_the_same_weights_and_their_new_hash_is_everywhere(local_run, tmp_path):
    prepare(local_run, "owner/first", tmp_path / "dry")
    weights = tmp_path / "dry" / "model.safetensors"
    with safe_open(weights, "pt") as new, safe_open(local_run / "model.safetensors", "pt") as old:
        assert new.metadata() == {**old.metadata(), "dataset": "photos of mine"}
    tensors, original = load_file(weights), load_file(local_run / "model.safetensors")
    assert list(tensors) == list(original) and all(torch.equal(tensors[name], original[name]) for name in original)
    digest = file_sha256(weights)
    assert digest != file_sha256(local_run / "model.safetensors")
    assert json.loads((tmp_path / "dry/eval.json").read_text())["weights"] == {
        "file": "model.safetensors", "sha256": digest,
    }  # fmt: skip
    assert json.loads((tmp_path / "dry/detector.json").read_text())["weights_sha256"] == digest


def test_the_token_goes_to_the_hub_alone(writable_hub, local_run, token, tmp_path, srood_push):
    code, out, err = srood_push(local_run, "owner/first")
    assert code == 0 and token not in out + err
    assert not [r for r in writable_hub.requests if token.encode() in r.body]
    assert {r.token for r in writable_hub.requests if r.method == "PUT"} == {None}  # its address is signed
    assert {r.token for r in writable_hub.requests if r.method != "PUT"} == {token}
    assert not [name for name, data in download(tmp_path).items() if token.encode() in data]
    with pytest.raises(SystemExit):
        typer.main.get_command(cli.app).main(["push", str(local_run), "owner/first", "--token", token])


def test_with_nothing_but_the_environment_set(tmp_path, token, evaluated_run):
    """A process of its own, as a user's is, and the token that the Hub's own login stored."""
    with HubServer() as writable_hub:
        writable_hub.writers[token] = ["owner"]
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf/token").write_text(token)
        environment = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
        environment |= {
            "HF_ENDPOINT": writable_hub.endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "train", "push", str(evaluated_run), "owner/first", "--private"],
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert token not in done.stdout + done.stderr
        repo = writable_hub.models["owner/first"]
        assert done.stdout.splitlines()[-2:] == [f"commit {repo.refs['main']}", f"{writable_hub.endpoint}/owner/first"]
        assert repo.private and len(repo.commits) == 2
