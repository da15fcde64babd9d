"""`srood push` against a Hub on this machine, with the real client; what was uploaded is read back through it."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
import typer.main
import yaml
from digits_images import digits, write_digits, write_noise, write_parquet
from hub_server import HubServer, front_matter, point_client_at
from huggingface_hub import ModelCard, snapshot_download
from safetensors import safe_open
from safetensors.torch import load_file

from srood.errors import InputError
from srood.models.weights import WeightsInfo, load_model
from srood.outliers import OutlierSet, file_sha256
from train import cli
from train.config import PretrainConfig, TuneConfig, read_config
from train.evaluate import evaluate
from train.local_paths import shorten, without_paths
from train.model_card import CardFacts, model_card, training_command
from train.pretrain import pretrain
from train.push import prepare, push
from train.tune import tune

TOKEN = "hf_thisIsTheUsersSecretToken"
SMALL = {"model": "resnet20", "batch_size": 16, "max_steps": 2, "device": "cpu", "precision": "32-true"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """A pretrained and evaluated run whose ID and OOD set are named without a path."""
    root = tmp_path_factory.mktemp("here")
    before = Path.cwd()
    os.chdir(root)
    try:
        write_digits(root / "digits", train=40, test=40)
        images, labels = digits()
        write_parquet(root / "inverted.parquet", 255 - images[:30], labels[:30])
        run = pretrain(PretrainConfig(id="digits", **SMALL), root / "run")
        evaluate(run, ["inverted.parquet"])
    finally:
        os.chdir(before)
    return run


@pytest.fixture(scope="module")
def local(tmp_path_factory, evaluated) -> Path:
    """A run tuned and evaluated with absolute paths, some with spaces, and something like a calibrated detector."""
    root = tmp_path_factory.mktemp("home") / "Jane Doe"
    id_set = write_digits(root / "photos of mine", train=40, test=40)
    noise = write_noise(root / "out liers")
    settings = {**SMALL, "outlier_batch_size": 16, "alpha": 0.03}
    config = TuneConfig(id=str(id_set), checkpoint=evaluated, outliers=noise, **settings)
    run = tune(config, root / "runs" / "first try")
    shutil.copytree(id_set, root / "other")
    evaluate(run, [str(root / "photos of mine/train.parquet"), str(root / "other/train.parquet")])
    weights = run / "model.safetensors"
    detector = {
        "score": "energy",
        "threshold": -1.25,
        "weights": {"file": str(weights), "sha256": file_sha256(weights)},
        "calibrated_on": f"40 images of {id_set}/test.parquet, by {root}/bin/srood",
        "class_names": ["/m/01g317", "bus/truck"],
    }
    (run / "detector.json").write_text(json.dumps(detector))
    return run


@pytest.fixture
def run(evaluated, tmp_path) -> Path:
    """A copy of the evaluated run that a test may change."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


@pytest.fixture
def server(tmp_path, monkeypatch):
    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        running.writers[TOKEN] = ["owner", "lab"]
        yield running


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """The seconds that were to be waited; nobody waits."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs `srood push` in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["srood", "push", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capfd.readouterr())

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def download(tmp_path: Path, repo: str = "owner/first", **settings: str) -> dict[str, bytes]:
    """What the real client reads back, without what the Hub puts into every repository."""
    target = tmp_path / f"download-{len(list(tmp_path.glob('download-*')))}"
    snapshot_download(repo, local_dir=target, **settings)
    return {name: data for name, data in contents(target).items() if name[0] != "."}


def card_of(folder: Path) -> tuple[dict, str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return front_matter(text), text


# ---- what is uploaded -----------------------------------------------------------------------------------------------


def test_what_is_read_back_is_the_run(server, evaluated, tmp_path):
    pushed, _ = push(evaluated, "owner/first")
    files = download(tmp_path)
    plots = {"eval-roc.png", "eval-scores.png"}
    assert set(files) == {"README.md", "config.yaml", "run.json", "model.safetensors", "eval.json", "eval.csv"} | plots
    for name in {"model.safetensors", "config.yaml", "eval.csv"} | plots:
        assert files[name] == (evaluated / name).read_bytes(), name
    assert pushed.changed and pushed.commit == server.models["owner/first"].refs["main"]
    assert pushed.url == f"{server.endpoint}/owner/first"

    target = tmp_path / "download-0"
    classifier, info = load_model(target / "model.safetensors")
    local_classifier, _ = load_model(evaluated / "model.safetensors")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(classifier.eval()(images), local_classifier.eval()(images))
    assert info == WeightsInfo("resnet20", "digits", info.mean, info.std, tuple("0123456789"), 32)
    assert read_config(target) == read_config(evaluated)


def test_a_dry_run_writes_what_is_uploaded_and_asks_nothing_of_the_network(
    server, local, tmp_path, monkeypatch, command
):
    push(local, "owner/first", license="mit")
    uploaded = download(tmp_path)
    count = len(server.requests)

    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = command(local, "owner/first", "--dry-run", tmp_path / "dry", "--license", "mit")
    assert (code, err) == (0, "")
    assert contents(tmp_path / "dry") == uploaded
    assert len(server.requests) == count
    for name, data in uploaded.items():
        assert f"{len(data):>13,} {name}\n" in out
    code, _, err = command(local, "owner/first", "--dry-run", tmp_path / "dry")
    assert (code, err) == (2, f"error: --dry-run {tmp_path / 'dry'}: is not empty; choose another folder\n")


def test_the_same_run_again_changes_nothing(server, evaluated, tmp_path, command):
    first, _ = push(evaluated, "owner/first")
    before = download(tmp_path)
    server.requests.clear()
    code, out, _ = command(evaluated, "owner/first")
    assert code == 0
    assert f"nothing changed since commit {first.commit}\n" in out
    assert len(server.models["owner/first"].commits) == 2  # the empty repository and the push
    assert not [r for r in server.requests if r.method == "PUT" or "/commit/" in r.path]
    assert download(tmp_path) == before


def test_measurements_that_are_gone_are_removed_and_other_files_stay(server, run, tmp_path):
    push(run, "owner/first")
    repo = server.models["owner/first"]
    (repo.commits[repo.refs["main"]] / "LICENSE").write_text("mine")  # as if added on the Hub
    for path in run.glob("eval*"):
        path.unlink()
    pushed, _ = push(run, "owner/first")
    files = download(tmp_path)
    assert pushed.changed
    assert set(files) == {"README.md", "config.yaml", "run.json", "model.safetensors", "LICENSE"}
    assert b"Not evaluated" in files["README.md"]


def test_message_branch_and_visibility(server, run, tmp_path):
    first, _ = push(run, "owner/first", private=True)
    repo = server.models["owner/first"]
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
    assert not server.models["lab/open"].private
    commits = dict(server.models["lab/open"].commits)
    with pytest.raises(
        InputError, match="^lab/open: is public, and so would be what is pushed; make it private first$"
    ):
        push(run, "lab/open", private=True, message="again")
    assert server.models["lab/open"].commits == commits


# ---- nothing local --------------------------------------------------------------------------------------------------


def test_no_path_of_this_machine_is_published(local, tmp_path):
    prepared = prepare(local, "owner/first", tmp_path / "dry")
    files = contents(tmp_path / "dry")
    parts = {part.encode() for part in local.parts[1:-1]} | {b"out liers", b"photos of mine/", b"/test.parquet"}
    for name, data in files.items():
        assert not [part for part in parts if part in data], name
    assert read_config(tmp_path / "dry").id == "photos of mine"
    record = json.loads(files["run.json"])
    assert record["id"]["name"] == "photos of mine" and record["id"]["spec"] == "train.parquet"
    assert (record["start"]["file"], record["outliers"]["file"]) == ("model.safetensors", "mini.h5")
    assert {**record, "id": 0, "start": 0, "outliers": 0} == {
        **json.loads((local / "run.json").read_text()), "id": 0, "start": 0, "outliers": 0,
    }  # fmt: skip
    # two sets with the same last component remain two, with their own figures
    evaluation, before = json.loads(files["eval.json"]), json.loads((local / "eval.json").read_text())
    assert list(evaluation["ood"]) == ["train.parquet", "train.parquet (2)"]
    assert [s["scores"] for s in evaluation["ood"].values()] == [s["scores"] for s in before["ood"].values()]
    rows = list(csv.reader(files["eval.csv"].decode().splitlines()))
    original = list(csv.reader((local / "eval.csv").read_text().splitlines()))
    assert [row[1:] for row in rows] == [row[1:] for row in original]
    assert [row[0] for row in rows[1::3]] == ["train.parquet", "train.parquet (2)", "mean"]
    # a plot shows the path of its set
    assert prepared.left_out == tuple(
        f"eval-{name}.png is left out: it shows a path of this machine" for name in ("roc", "scores")
    )
    detector = json.loads(files["detector.json"])
    assert detector["calibrated_on"] == "40 images of test.parquet, by srood"
    assert detector["class_names"] == ["/m/01g317", "bus/truck"]


def test_weights_that_named_a_path_are_the_same_weights_and_their_new_hash_is_everywhere(local, tmp_path):
    prepare(local, "owner/first", tmp_path / "dry")
    weights = tmp_path / "dry" / "model.safetensors"
    with safe_open(weights, "pt") as new, safe_open(local / "model.safetensors", "pt") as old:
        assert new.metadata() == {**old.metadata(), "dataset": "photos of mine"}
    tensors, original = load_file(weights), load_file(local / "model.safetensors")
    assert list(tensors) == list(original) and all(torch.equal(tensors[name], original[name]) for name in original)
    digest = file_sha256(weights)
    assert digest != file_sha256(local / "model.safetensors")
    assert json.loads((tmp_path / "dry/eval.json").read_text())["weights"] == {
        "file": "model.safetensors", "sha256": digest,
    }  # fmt: skip
    assert json.loads((tmp_path / "dry/detector.json").read_text())["weights"]["sha256"] == digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/mini.h5", "mini.h5"),
        ("/home/me/photos/", "photos"),
        ("~/mini.h5", "mini.h5"),
        ("~me/a b/mini.h5", "mini.h5"),
        ("../me/mini.h5", "mini.h5"),
        ("runs/first/model.safetensors", "model.safetensors"),
        (r"C:\Users\me\mini.h5", "mini.h5"),
        (r"\\server\me\mini.h5", "mini.h5"),
        ("file:///home/me/mini.h5", "mini.h5"),
        ("/home/me/a.h5:0.5", "a.h5:0.5"),
        ("not found; tried /home/me/data/x.parquet, hf://owner/name@main/x", "not found; tried x.parquet, hf://owner/name@main/x"),
        ("cifar10:test", "cifar10:test"),
        ("hf://owner/name@0123:train", "hf://owner/name@0123:train"),
        ("https://huggingface.co/owner/name", "https://huggingface.co/owner/name"),
        ("timm:hf-hub:owner/name", "timm:hf-hub:owner/name"),
        ("share of ID/OOD images at 3 / 4", "share of ID/OOD images at 3 / 4"),
        ("cpu (Intel(R) Xeon(R) w/ AVX)", "cpu (Intel(R) Xeon(R) w/ AVX)"),
    ],
)  # fmt: skip
def test_of_a_path_the_last_component_is_kept(text, expected):
    assert shorten(text) == expected
    assert without_paths({"notes": [text]}) == {"notes": [expected]}
    assert shorten(expected) == expected  # pushing what was downloaded changes nothing


def test_a_path_with_spaces_is_known_by_its_key_and_names_stay_apart():
    document = {"outliers": ["a b/c.h5", "d/c.h5"], "class_names": ["a/b"], "ood": {"x y/t": 1, "z/t": 2, "t": 3}}
    expected = {"outliers": ["c.h5", "c.h5"], "class_names": ["a/b"], "ood": {"t (2)": 1, "t (3)": 2, "t": 3}}
    assert without_paths(document) == expected


# ---- the card -------------------------------------------------------------------------------------------------------


def test_the_card_shows_what_was_measured(evaluated, tmp_path):
    prepare(evaluated, "owner/first", tmp_path / "dry", license="apache-2.0")
    metadata, text = card_of(tmp_path / "dry")
    result = json.loads((evaluated / "eval.json").read_text())
    assert {key: metadata[key] for key in ("library_name", "pipeline_tag", "license", "metrics")} == {
        "library_name": "srood",
        "pipeline_tag": "image-classification",
        "license": "apache-2.0",
        "metrics": ["accuracy", "roc_auc"],
    }
    assert "datasets" not in metadata  # the digits are no set of the Hub
    assert {"out-of-distribution-detection", "resnet20", "pretrain"} <= set(metadata["tags"])
    (index,) = metadata["model-index"]
    assert index["name"] == "first"
    accuracy, ood = index["results"]
    assert accuracy["task"]["type"] == "image-classification"
    assert accuracy["metrics"] == [{"type": "accuracy", "value": result["id_accuracy"]}]
    energy = result["ood"]["inverted.parquet"]["scores"]["energy"]
    assert ood["dataset"] == {"name": "inverted.parquet", "type": "inverted.parquet"}
    assert {metric["type"]: metric["value"] for metric in ood["metrics"]} == {
        "fpr95": energy["fpr95"],
        "roc_auc": energy["auroc"],
        "aupr_in": energy["aupr_in"],
        "aupr_out": energy["aupr_out"],
    }
    assert [metric["name"] for metric in ood["metrics"]][:2] == [
        "FPR95 (energy, ood-positive)",
        "AUROC (energy, ood-positive)",
    ]

    def row(first: str, metrics: dict) -> str:
        return f"| {first} | " + " | ".join(
            f"{100 * metrics[m]:.2f}" for m in ("fpr95", "auroc", "aupr_in", "aupr_out")
        )

    assert row("inverted.parquet | 30", energy) in text
    for score, metrics in result["mean"].items():
        assert row(score, metrics) in text
    assert f"ID accuracy: **{100 * result['id_accuracy']:.2f} %** on 40 images of test.parquet." in text
    assert f"convention `ood-positive`: {result['convention']['fpr95']}" in text
    assert "![eval-roc.png](eval-roc.png)" in text and "10.1038/s41598-024-79934-7" in text
    assert ModelCard(text).data.eval_results[0].metric_value == result["id_accuracy"]  # the Hub's own reader


def test_the_card_says_how_the_run_was_tuned_and_how_the_detector_is_loaded(local, tmp_path):
    prepare(local, "owner/first", tmp_path / "dry")
    _, text = card_of(tmp_path / "dry")
    record = json.loads((local / "run.json").read_text())
    outliers = OutlierSet.open(record["outliers"]["file"])
    assert "(SROE)" in text
    assert f"outliers: {outliers.num_rows} of mini.h5 (fingerprint `{outliers.fingerprint}`)" in text
    assert f"starting weights: model.safetensors (SHA-256 `{record['start']['sha256']}`)" in text
    (line,) = re.findall(r"^    (srood train .*)$", text, flags=re.MULTILINE)
    words = shlex.split(line)
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--outliers": "mini.h5",
        "--id": "photos of mine",
        "--model": "resnet20",
        "--checkpoint": "model.safetensors",
        "--alpha": "0.03",
        "--batch-size": "16",
        "--outlier-batch-size": "16",
        "--precision": "32-true",
        "--max-steps": "2",
    }
    options = {o for p in typer.main.get_command(cli.app).commands["train"].params for o in p.opts}  # type: ignore[attr-defined]
    assert set(words[2::2]) <= options
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert yaml.safe_load(settings) == yaml.safe_load((tmp_path / "dry/config.yaml").read_text())
    assert 'detector = srood.load_detector(snapshot_download("owner/first"))' in text
    assert "srood detect first image.png" in text and "the threshold of the score energy is -1.25" in text


def test_the_card_of_an_uncalibrated_run_loads_the_weights_it_came_with(server, evaluated):
    push(evaluated, "owner/first")
    _, text = card_of(Path(snapshot_download("owner/first")))
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    found: dict = {}
    exec(code, found)
    classifier, info = load_model(evaluated / "model.safetensors")
    scaled = (found["images"] - torch.tensor(info.mean).view(3, 1, 1)) / torch.tensor(info.std).view(3, 1, 1)
    with torch.inference_mode():
        expected = -torch.log(torch.exp(classifier.eval()(scaled)).sum(dim=1))
    assert torch.allclose(found["energy"], expected, atol=1e-5)


def test_the_card_names_the_sets_of_the_hub_and_what_is_missing():
    scores = {"msp": {"fpr95": 0.5, "auroc": 0.75, "aupr_in": 0.875, "aupr_out": float("nan")}}
    evaluation = {
        "id": {"spec": "cifar10:test", "images": 10_000},
        "id_accuracy": 0.9375,
        "convention": {"name": "paper", "fpr95": "as | published"},
        "ood": {"svhn:test": {"images": 26_032, "scores": scores}, "hf://a/b@1f:test": {"reason": "no network"}},
        "mean": scores,
    }
    ids = {"name": "cifar10", "spec": "cifar10:train", "fingerprint": "f", "images": 50_000, "classes": 10}
    outliers = [{"file": f"hf://me/{name}@0123/mini.h5", "fingerprint": name, "rows": 5} for name in ("one", "two")]
    record = {"workflow": "sroe", "model": "wrn-40-2", "id": ids, "outliers": outliers, "steps": 1, "parameters": 2}
    record |= {"precision": "32-true", "device": "cpu", "versions": {"srood": "9"}}
    text = model_card(CardFacts("me/it", {"workflow": "sroe"}, record, WeightsInfo(), evaluation))
    metadata = front_matter(text)
    assert metadata["datasets"] == ["uoft-cs/cifar10", "me/one", "me/two"]
    accuracy, svhn = metadata["model-index"][0]["results"]
    assert accuracy["dataset"] == {"name": "CIFAR-10", "type": "uoft-cs/cifar10", "split": "test"}
    assert [metric["value"] for metric in svhn["metrics"]] == [0.5, 0.75, 0.875]
    assert "| OOD set, score msp |" in text
    assert "| svhn:test | 26,032 | 50.00 | 75.00 | 87.50 | nan |" in text
    assert "| hf://a/b@1f:test | missing | - | - | - | - |" in text
    assert "Licence of the training images: none stated" in text and "Krizhevsky" in text


def test_the_command_of_a_run_leaves_out_what_is_at_its_default():
    assert training_command({"workflow": "pretrain", "id": "cifar10", "lr": 0.1, "device": "cuda"}) == "srood pretrain"
    assert training_command({"workflow": "sr", "lr": 0.1, "seed": 3}) == "srood train --lr 0.1 --seed 3"


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def line_of(result: tuple[int, str, str]) -> str:
    """The one line that a failed command prints after what the client may have said."""
    code, out, err = result
    assert code == 2 and out == "" and TOKEN not in err and "Traceback" not in err
    *_, last = err.strip().splitlines()
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


REFUSED = "the Hub does not accept the token (HTTP 401)"
FORBIDDEN = "the token may not write there (HTTP 403)"
CONFLICT = "the Hub reports a conflict with another change (HTTP 409); try again"
LIMITED = "the Hub limits the rate of requests (HTTP 429); wait and try again"
FAILS = "the Hub fails (HTTP 500); try again later"
UNREACHABLE = "the Hub cannot be reached ("


@pytest.mark.parametrize(
    ("status", "path", "expected"),
    [
        (401, "", REFUSED),
        (403, "", FORBIDDEN),
        (409, "/commit/", CONFLICT),
        (412, "/commit/", CONFLICT.replace("409", "412")),
        (429, "", LIMITED),
        (500, "", FAILS),
        (None, "", UNREACHABLE),
        (403, "/preupload/", FORBIDDEN),
        (500, "/preupload/", FAILS),
        (403, "/lfs/", FORBIDDEN),
        (500, "/lfs/", FAILS),
        (None, "/lfs/", UNREACHABLE),
        (401, "/commit/", REFUSED),
        (429, "/commit/", LIMITED),
        (None, "/commit/", UNREACHABLE),
        (413, "/commit/", "the Hub refuses it (HTTP 413: planned); correct that and try again"),
    ],
)
def test_a_failure_is_one_clear_line(server, slept, command, evaluated, status, path, expected):
    server.fail_next(status, times=99, path=path)
    assert line_of(command(evaluated, "owner/first")).startswith(f"owner/first: {expected}")
    repo = server.models.get("owner/first")
    assert repo is None or len(repo.commits) == 1  # no half of an upload is committed


def test_no_network(server, slept, command, evaluated):
    server.stop()
    assert line_of(command(evaluated, "owner/first")).startswith(f"owner/first: {UNREACHABLE}Conn")
    assert sum(slept) < 5


@pytest.mark.skipif(huggingface_hub.__version__ < "1", reason="the client looks at HF_HUB_OFFLINE when it is imported")
def test_offline(server, command, evaluated, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert line_of(command(evaluated, "owner/first")) == "owner/first: HF_HUB_OFFLINE is set; unset it"
    assert not server.requests


@pytest.mark.parametrize("status", [429, 500, None])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/lfs/", "/commit/"])
def test_a_short_failure_is_tried_again(server, slept, evaluated, tmp_path, status, path):
    server.fail_next(status, path=path)
    pushed, _ = push(evaluated, "owner/first")
    waited = sum(slept)
    assert pushed.changed and len(server.models["owner/first"].commits) == 2
    assert download(tmp_path)["model.safetensors"] == (evaluated / "model.safetensors").read_bytes()
    assert 0 < waited < 10


def test_a_commit_whose_answer_is_lost_is_not_made_twice(server, slept, evaluated):
    server.fail_next(None, path="/commit/", sent=1)
    pushed, _ = push(evaluated, "owner/first")
    repo = server.models["owner/first"]
    assert len(repo.commits) == 2 and pushed.commit == repo.refs["main"] and pushed.changed


def test_the_hub_is_given_the_time_it_asks_for_up_to_a_limit(server, slept, evaluated):
    server.fail_next(429, path="/repos/create", headers={"Retry-After": "2"})
    server.fail_next(429, path="/repos/create", headers={"Retry-After": "86400"})
    push(evaluated, "owner/first")
    assert slept == [2.0, 4.0]


def test_somebody_elses_repository(server, command, evaluated):
    assert line_of(command(evaluated, "other/first")).startswith(f"other/first: {FORBIDDEN}")
    server.add("other/second", evaluated, kind="models")  # it exists, and may only be read
    assert line_of(command(evaluated, "other/second")).startswith(f"other/second: {FORBIDDEN}")


def test_nobody_is_logged_in_or_with_a_wrong_token(server, command, evaluated, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert line_of(command(evaluated, "owner/first")).startswith(f"owner/first: {REFUSED}")
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\u2603")
    assert "the token holds a character that cannot be sent" in line_of(command(evaluated, "owner/first"))
    monkeypatch.delenv("HF_TOKEN")
    server.requests.clear()
    message = (
        "owner/first: nobody is logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may write"
    )
    assert line_of(command(evaluated, "owner/first")) == message
    assert not server.requests


def test_a_licence_that_the_hub_does_not_know(server, command, evaluated):
    message = line_of(command(evaluated, "owner/first", "--license", "beerware"))
    assert message.startswith("owner/first: the Hub refuses it (") and '"license" must be one of' in message
    assert "is not as the Hub abbreviates licences" in line_of(command(evaluated, "owner/first", "--license", "MIT 2"))
    assert len(server.models["owner/first"].commits) == 1


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        ("first", "first: does not name its owner; give owner/name"),
        ("owner/re po", "owner/re po: is not the name of a repository on the Hub; give owner/name"),
        ("owner/first/x", "owner/first/x: is not the name of a repository on the Hub; give owner/name"),
        ("owner/-first-", "owner/-first-: is not the name of a repository on the Hub; give owner/name"),
    ],
)
def test_what_cannot_name_a_repository(server, command, evaluated, tmp_path, repo, expected):
    assert line_of(command(evaluated, repo)) == expected
    assert line_of(command(evaluated, repo, "--dry-run", tmp_path / "dry")) == expected
    assert not server.requests


@pytest.mark.parametrize("revision", ["0" * 40, "-x", "a b", "a..b", "a/"])
def test_what_cannot_name_a_branch(server, command, evaluated, revision):
    assert line_of(command(evaluated, "owner/first", f"--revision={revision}")).startswith(f"--revision {revision}: ")
    assert not server.requests


def test_what_is_no_finished_run(server, command, run, tmp_path):
    assert line_of(command(tmp_path / "none", "owner/first")).startswith(f"{tmp_path / 'none'}: is not a run folder")
    weights = run / "model.safetensors"
    assert line_of(command(weights, "owner/first")).startswith(f"{weights}: is not a run folder")
    evaluation = json.loads((run / "eval.json").read_text())
    evaluation["weights"]["sha256"] = "0" * 64
    (run / "eval.json").write_text(json.dumps(evaluation))
    message = f"{run / 'eval.json'}: was measured on other weights; run `srood eval {run}` again, or remove it"
    assert line_of(command(run, "owner/first")) == message
    (run / "eval.json").write_text("{")
    assert line_of(command(run, "owner/first")).startswith(f"{run / 'eval.json'}: cannot be read (")
    weights.unlink()
    assert line_of(command(run, "owner/first")).startswith(f"{run}: this run is not finished; continue it with")
    assert not server.requests


def test_the_token_goes_to_the_hub_alone(server, local, tmp_path, command):
    code, out, err = command(local, "owner/first")
    assert code == 0 and TOKEN not in out + err
    assert not [r for r in server.requests if TOKEN.encode() in r.body]
    assert {r.token for r in server.requests if r.method == "PUT"} == {None}  # its address is signed
    assert {r.token for r in server.requests if r.method != "PUT"} == {TOKEN}
    assert not [name for name, data in download(tmp_path).items() if TOKEN.encode() in data]
    with pytest.raises(SystemExit):
        typer.main.get_command(cli.app).main(["push", str(local), "owner/first", "--token", TOKEN])


def test_with_nothing_but_the_environment_set(tmp_path, evaluated):
    """A process of its own, as a user's is, and the token that the Hub's own login stored."""
    with HubServer() as server:
        server.writers[TOKEN] = ["owner"]
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf/token").write_text(TOKEN)
        environment = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
        environment |= {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "train", "push", str(evaluated), "owner/first", "--private"],
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        repo = server.models["owner/first"]
        assert done.stdout.splitlines()[-2:] == [f"commit {repo.refs['main']}", f"{server.endpoint}/owner/first"]
        assert repo.private and len(repo.commits) == 2
