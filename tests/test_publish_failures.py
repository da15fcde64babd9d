"""What goes wrong with `curate publish`, against a Hub on this machine: one clear line, and no half of a set."""

from __future__ import annotations

import pytest
from hub_failures import FAILURES, FORBIDDEN, REFUSED, UNREACHABLE, line_of

from curate.publishing.publish import PublishConfig, publish


@pytest.mark.parametrize(("status", "path", "expected"), FAILURES)
def test_a_failure_is_one_clear_line(writable_hub, slept, curate, built_set, status, path, expected):
    writable_hub.fail_next(status, times=99, path=path)
    assert line_of(curate("publish", built_set, "owner/things")).startswith(f"owner/things: {expected}")
    repo = writable_hub.repos.get("owner/things")
    assert repo is None or len(repo.commits) == 1
    assert not [path for path in built_set.parent.iterdir() if "publish" in path.name]


@pytest.mark.parametrize("status", [429, 500, None])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/lfs/", "/commit/"])
def test_a_short_failure_is_tried_again(writable_hub, slept, built_set, status, path):
    writable_hub.fail_next(status, path=path, headers={"Retry-After": "1"} if status == 429 else None)
    pushed, _ = publish(PublishConfig(built_set, "owner/things"))
    assert pushed.changed and len(writable_hub.repos["owner/things"].commits) == 2
    assert 0 < sum(slept) < 10


def test_a_commit_whose_answer_is_lost_is_not_made_twice(writable_hub, slept, built_set):
    writable_hub.fail_next(None, path="/commit/", sent=1)
    pushed, _ = publish(PublishConfig(built_set, "owner/things"))
    repo = writable_hub.repos["owner/things"]
    assert len(repo.commits) == 2 and pushed.commit == repo.refs["main"] and pushed.changed


def test_somebody_elses_repository_and_a_wrong_token(writable_hub, slept, curate, built_set, monkeypatch):
    assert line_of(curate("publish", built_set, "other/things")).startswith(f"other/things: {FORBIDDEN}")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert line_of(curate("publish", built_set, "owner/things")).startswith(f"owner/things: {REFUSED}")
    monkeypatch.delenv("HF_TOKEN")
    writable_hub.requests.clear()
    assert "nobody is logged in to the Hub" in line_of(curate("publish", built_set, "owner/things"))
    assert not writable_hub.requests


def test_no_network(writable_hub, slept, curate, built_set):
    writable_hub.stop()
    assert line_of(curate("publish", built_set, "owner/things")).startswith(f"owner/things: {UNREACHABLE}Conn")


def test_a_licence_that_the_hub_does_not_know(writable_hub, curate, built_set):
    message = line_of(curate("publish", built_set, "owner/things", "--license", "beerware"))
    assert message.startswith("owner/things: the Hub refuses it (") and '"license" must be one of' in message
    assert len(writable_hub.repos["owner/things"].commits) == 1
