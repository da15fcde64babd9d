"""What goes wrong with `srood push`, against a Hub on this machine: one clear line, and nothing half uploaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from hub_failures import FAILURES, FORBIDDEN, REFUSED, UNREACHABLE, line_of
from huggingface_hub import snapshot_download

from srood import hub_errors
from train.publishing.push import push


@pytest.fixture
def run(evaluated_run, tmp_path) -> Path:
    """A copy of the evaluated run that a test may change."""
    return Path(shutil.copytree(evaluated_run, tmp_path / "run"))


@pytest.mark.parametrize(
    ("status", "path", "expected"),
    FAILURES,
)
def test_a_failure_is_one_clear_line(writable_hub, slept, srood_push, evaluated_run, status, path, expected):
    writable_hub.fail_next(status, times=99, path=path)
    assert line_of(srood_push(evaluated_run, "owner/first")).startswith(f"owner/first: {expected}")
    repo = writable_hub.models.get("owner/first")
    assert repo is None or len(repo.commits) == 1  # no half of an upload is committed


def test_no_network(writable_hub, slept, srood_push, evaluated_run):
    writable_hub.stop()
    assert line_of(srood_push(evaluated_run, "owner/first")).startswith(f"owner/first: {UNREACHABLE}Conn")
    assert sum(slept) < 5


@pytest.mark.skipif(huggingface_hub.__version__ < "1", reason="the client looks at HF_HUB_OFFLINE when it is imported")
def test_offline(writable_hub, srood_push, evaluated_run, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert line_of(srood_push(evaluated_run, "owner/first")) == "owner/first: HF_HUB_OFFLINE is set; unset it"
    assert not writable_hub.requests


@pytest.mark.parametrize("status", [429, 500, None])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/lfs/", "/commit/"])
def test_a_short_failure_is_tried_again(writable_hub, slept, evaluated_run, tmp_path, status, path):
    writable_hub.fail_next(status, path=path)
    pushed, _ = push(evaluated_run, "owner/first")
    waited = sum(slept)
    assert pushed.changed and len(writable_hub.models["owner/first"].commits) == 2
    weights = Path(snapshot_download("owner/first", cache_dir=tmp_path / "cache"), "model.safetensors")
    assert weights.read_bytes() == (evaluated_run / "model.safetensors").read_bytes()
    assert 0 < waited < 10


def test_a_commit_whose_answer_is_lost_is_not_made_twice(writable_hub, slept, evaluated_run):
    writable_hub.fail_next(None, path="/commit/", sent=1)
    pushed, _ = push(evaluated_run, "owner/first")
    repo = writable_hub.models["owner/first"]
    assert len(repo.commits) == 2 and pushed.commit == repo.refs["main"] and pushed.changed


def test_the_hub_is_given_the_time_it_asks_for_up_to_a_limit(writable_hub, slept, evaluated_run):
    writable_hub.fail_next(429, path="/repos/create", headers={"Retry-After": "2"})
    writable_hub.fail_next(429, path="/repos/create", headers={"Retry-After": "86400"})
    push(evaluated_run, "owner/first")
    assert slept == [2.0, 4.0]


def test_somebody_elses_repository(writable_hub, srood_push, evaluated_run):
    assert line_of(srood_push(evaluated_run, "other/first")).startswith(f"other/first: {FORBIDDEN}")
    writable_hub.add("other/second", evaluated_run, kind="models")  # it exists, and may only be read
    assert line_of(srood_push(evaluated_run, "other/second")).startswith(f"other/second: {FORBIDDEN}")


def test_nobody_is_logged_in_or_with_a_wrong_token(writable_hub, srood_push, evaluated_run, token, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert line_of(srood_push(evaluated_run, "owner/first")).startswith(f"owner/first: {REFUSED}")
    monkeypatch.setenv("HF_TOKEN", f"{token}\u2603")
    assert "the token holds a character that cannot be sent" in line_of(srood_push(evaluated_run, "owner/first"))
    monkeypatch.delenv("HF_TOKEN")
    writable_hub.requests.clear()
    message = (
        "owner/first: nobody is logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may write"
    )
    assert line_of(srood_push(evaluated_run, "owner/first")) == message
    assert not writable_hub.requests


def test_a_licence_that_the_hub_does_not_know(writable_hub, srood_push, evaluated_run):
    message = line_of(srood_push(evaluated_run, "owner/first", "--license", "beerware"))
    assert message.startswith("owner/first: the Hub refuses it (") and '"license" must be one of' in message
    assert "is not as the Hub abbreviates licences" in line_of(
        srood_push(evaluated_run, "owner/first", "--license", "MIT 2")
    )
    assert len(writable_hub.models["owner/first"].commits) == 1


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        ("first", "first: does not name its owner; give owner/name"),
        ("owner/re po", "owner/re po: is not the name of a repository on the Hub; give owner/name"),
        ("owner/first/x", "owner/first/x: is not the name of a repository on the Hub; give owner/name"),
        ("owner/-first-", "owner/-first-: is not the name of a repository on the Hub; give owner/name"),
    ],
)
def test_what_cannot_name_a_repository(writable_hub, srood_push, evaluated_run, tmp_path, repo, expected):
    assert line_of(srood_push(evaluated_run, repo)) == expected
    assert line_of(srood_push(evaluated_run, repo, "--dry-run", tmp_path / "dry")) == expected
    assert not writable_hub.requests


@pytest.mark.parametrize("revision", ["0" * 40, "-x", "a b", "a..b", "a/"])
def test_what_cannot_name_a_branch(writable_hub, srood_push, evaluated_run, revision):
    assert line_of(srood_push(evaluated_run, "owner/first", f"--revision={revision}")).startswith(
        f"--revision {revision}: "
    )
    assert not writable_hub.requests


def test_what_is_no_finished_run(writable_hub, srood_push, run, tmp_path):
    assert line_of(srood_push(tmp_path / "none", "owner/first")).startswith(f"{tmp_path / 'none'}: is not a run folder")
    weights = run / "model.safetensors"
    assert line_of(srood_push(weights, "owner/first")).startswith(f"{weights}: is not a run folder")
    evaluation = json.loads((run / "eval.json").read_text())
    evaluation["weights"]["sha256"] = "0" * 64
    (run / "eval.json").write_text(json.dumps(evaluation))
    message = f"{run / 'eval.json'}: was measured on other weights; run `srood eval {run}` again, or remove it"
    assert line_of(srood_push(run, "owner/first")) == message
    (run / "eval.json").write_text("{")
    assert line_of(srood_push(run, "owner/first")).startswith(f"{run / 'eval.json'}: cannot be read (")
    (run / "eval.json").unlink()
    (run / "detector.json").write_text(json.dumps({"threshold": 0.0, "weights_sha256": "0" * 64}))
    message = f"{run / 'detector.json'}: was made for other weights; run `srood calibrate {run}` again, or remove it"
    assert line_of(srood_push(run, "owner/first")) == message
    (run / "detector.json").unlink()
    message = f"--dry-run {weights / 'sub'}: cannot be made, for {weights} is a file; name another folder"
    assert line_of(srood_push(run, "owner/first", "--dry-run", weights / "sub")) == message
    weights.unlink()
    assert line_of(srood_push(run, "owner/first")).startswith(f"{run}: this run is not finished; continue it with")
    assert not writable_hub.requests


def test_the_signature_of_an_address_is_not_shown():
    error = ConnectionError("Max retries exceeded with url: /lfs/0a?X-Amz-Signature=s3cr3t&x=1 (Caused by a reset)")
    assert hub_errors.explain_upload(error) == (
        "the Hub cannot be reached (ConnectionError: Max retries exceeded with url: /lfs/0a (Caused by a reset)); "
        "check the network"
    )
