"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hub_server import HubServer


@pytest.fixture(scope="session")
def srood_data() -> Path:
    """The folder of real image sets named by the environment variable SROOD_DATA; skips where there is none."""
    value = os.environ.get("SROOD_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("needs real image sets: set SROOD_DATA to their folder")
    return Path(value)


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained and evaluated run whose ID and OOD set are named without a path."""
    from published_runs import make_evaluated

    return make_evaluated(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="session")
def local_run(tmp_path_factory: pytest.TempPathFactory, evaluated_run: Path) -> Path:
    """A run tuned and evaluated with absolute paths, some with spaces, and something like a calibrated detector."""
    from published_runs import make_local

    return make_local(tmp_path_factory.mktemp("home") / "Jane Doe", evaluated_run)


@pytest.fixture
def token() -> str:
    """The token of a user of the Hub, who may write to what belongs to `owner` and `lab`."""
    return "hf_thisIsTheUsersSecretToken"


@pytest.fixture
def writable_hub(tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on this machine, at which the user is logged in."""
    from hub_server import HubServer, point_client_at

    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", token)
        running.writers[token] = ["owner", "lab"]
        yield running


@pytest.fixture(scope="session")
def built_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a small outlier set that may be passed on; tests do not change it."""
    from published_sets import make_built

    return make_built(tmp_path_factory.mktemp("built"))


def _runner(name: str, main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capfd):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [*name.split(), *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code or 0, *capfd.readouterr())  # type: ignore[return-value]

    return call


@pytest.fixture
def srood_push(monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs `srood push` in this process; returns (exit code, standard output, standard error)."""
    from train import cli

    return _runner("srood push", cli.main, monkeypatch, capfd)


@pytest.fixture
def curate(monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs `curate` in this process; returns (exit code, standard output, standard error)."""
    from curate import cli

    return _runner("curate", cli.main, monkeypatch, capfd)


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """The seconds that were to be waited; nobody waits."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture(scope="session")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three small outlier sets: a/mini.h5, b/mini.h5 and c/mini.h5 (see small_sets.make)."""
    from small_sets import make

    return make(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def recorded_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that `recorded_set` and `plain_set` were made from (see rebuilt_sets.make_world)."""
    from rebuilt_sets import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def recorded_set(recorded_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that was built with every setting other than its default."""
    from rebuilt_sets import make_built

    return make_built(recorded_world, tmp_path_factory.mktemp("recorded") / "mini.h5")


@pytest.fixture(scope="session")
def plain_set(recorded_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that was built with few settings."""
    from rebuilt_sets import make_plain

    return make_plain(recorded_world, tmp_path_factory.mktemp("plain") / "mini.h5")


@pytest.fixture
def alone(recorded_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest without its shards, and a working folder with nothing in it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "index").mkdir()
    return Path(shutil.copy(recorded_set, tmp_path / "index/mini.h5"))
