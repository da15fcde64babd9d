"""The quick part of what `make torture` does to whole commands: killed, told to stop, out of disk, two at once."""

from __future__ import annotations

import pytest

from torture import disks, kills, races, signals
from torture.trial import Effort


@pytest.fixture
def effort(tmp_path) -> Effort:
    return Effort(tmp_path, quick=True)


def failed(trials):
    return [trial for trial in trials if not trial.passed]


def test_a_build_killed_at_a_random_point_goes_on_to_the_same_bytes(effort):
    trial = next(iter(kills.killed(effort)))
    assert trial.fault == "`curate build` killed" and failed([trial]) == []


@pytest.mark.slow
def test_killed(effort):
    trials = list(kills.killed(effort))
    assert failed(trials) == []
    assert {trial.fault for trial in trials} == {f"`{name}` killed" for name in kills.OFTEN}


@pytest.mark.slow
def test_told_to_stop(effort):
    trials = list(signals.told_to_stop(effort))
    assert failed(trials) == []
    assert {trial.fault for trial in trials} == {"Ctrl-C to `curate build`", "SIGTERM to `curate build`"}


@pytest.mark.slow
def test_disks_and_clocks(effort):
    trials = list(disks.disks_and_clocks(effort))
    assert failed(trials) == []
    assert {trial.fault for trial in trials} == {
        "disk full (tmpfs) under `curate build`",
        "files limited in size (RLIMIT_FSIZE) under `curate build`",
    }


@pytest.mark.slow
def test_two_at_once(effort):
    trials = list(races.races(effort))
    assert failed(trials) == []
    assert [trial.fault for trial in trials] == ["two `curate build` into one place"]
