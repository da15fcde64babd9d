"""The quick part of the trials of long runs, determinism and secrets; and what these trials measure with."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from torture import determinism, load, secrets, watching
from torture.processes import ROOT
from torture.trial import Effort
from torture.watching import Sample


def failed(area, tmp_path) -> tuple[list[str], list]:
    trials = list(area(Effort(tmp_path, seed=0, quick=True)))
    return [trial.fault for trial in trials], [trial for trial in trials if not trial.passed]


@pytest.mark.slow
def test_builds_in_a_loop_leave_nothing(tmp_path):
    assert failed(load.trials, tmp_path) == (["`curate build` in a loop in one process"], [])


@pytest.mark.slow
def test_a_set_is_the_same_in_any_surroundings(tmp_path):
    faults, wrong = failed(determinism.trials, tmp_path)
    assert wrong == []
    assert faults == ["a build in the usual way", *[determinism.MATRIX] * 5]


def test_a_token_is_seen_nowhere(tmp_path):
    assert failed(secrets.trials, tmp_path) == (["a corpus is read from a private repository of the Hub"], [])


def test_growth_is_found_and_noise_is_not():
    flat = [Sample(second, (500 + second % 7) << 20, 20 + second % 2, 4, 1) for second in range(100)]
    assert watching.course(flat).problems == ()
    growing = [Sample(s, (500 + s) << 20, 20, 4, 1) for s in range(100)]  # 60 MiB more at 90 than at 30
    assert watching.course(growing).problems == ("memory grew from 555 MB to 618 MB",)
    leaking = [Sample(s, 500 << 20, 20 + s // 10, 4 + s // 50, 1) for s in range(100)]
    assert watching.course(leaking).problems == ("files grew from 23 to 29", "threads grew from 4 to 5")
    warming = [Sample(s, (500 if s > 15 else 100) << 20, 20, 4, 1) for s in range(100)]
    assert watching.course(warming).problems == ()


def test_pairs_of_values_meet_soon():
    values, chosen = determinism.factors(), determinism.ways(44, 0)
    met = {(a, way[a], b, way[b]) for way in chosen for a in values for b in values if a < b}
    wanted = {(a, x, b, y) for a in values for b in values if a < b for x in values[a] for y in values[b]}
    assert wanted <= met
    assert determinism.ways(44, 0) == chosen != determinism.ways(44, 1)


@pytest.mark.slow
def test_bandit_has_nothing_of_medium_severity_or_more():
    if importlib.util.find_spec("bandit") is None:
        pytest.skip("needs bandit")
    words = ["--quiet", "--configfile", "pyproject.toml", "--recursive", "-ll", "srood", "curate", "train"]
    done = subprocess.run([sys.executable, "-m", "bandit", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
