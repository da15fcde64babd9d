"""Builds on Ray: byte for byte those of the local engine, whatever workers are lost."""

import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import pictures
from planted_corpus import config, files, make_world

from curate.build import build
from curate.cli import app
from curate.copies import CopyThreshold
from curate.engines.engine import LocalEngine, open_engine
from curate.inputs import resolve_inputs
from curate.leaks import ProtectedIndex
from srood.errors import InputError

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None
linux = pytest.mark.skipif(sys.platform != "linux", reason="finds Ray's workers in /proc")
needs_ray = pytest.mark.skipif(ray is None, reason="needs Ray: pip install 'srood[ray]'")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def local(world, tmp_path_factory):
    return build(config(world, tmp_path_factory.mktemp("local") / "mini.h5"))


@pytest.fixture(scope="module")
def cluster():
    """Two machines as far as Ray knows, of one processor each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def on(cluster, settings):
    with open_engine("ray", cluster.address) as engine:
        result = build(settings, engine=engine)
    assert not ray.is_initialized()  # left, and not ended: the next test joins it again
    return result


def workers(doing: str) -> list[int]:
    """Process ids of this process's Ray workers whose title says that they do something."""
    children: dict[int, list[int]] = {}
    titles = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]), []).append(
                int(folder.name)
            )
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
        except OSError:
            continue  # it has ended
    mine, new = set(), {os.getpid()}
    while new:
        mine |= new
        new = {child for parent in new for child in children.get(parent, ())} - mine
    return [number for number in mine if titles.get(number, "").startswith(f"ray::Worker.{doing}")]


class WhenBusy(threading.Thread):
    """Once a part is stored, acts on a worker found at each of some things, in turn; notes how many parts there are."""

    def __init__(self, folder: Path, act, *doing: str) -> None:
        super().__init__(daemon=True)
        self.folder, self.act, self.doing = folder, act, list(doing)
        self.parts: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        while self.doing and not self.over.is_set():
            if (parts := len(list(self.folder.glob("part-*.npz")))) and (busy := workers(self.doing[0])):
                self.parts.append(parts)
                self.act(busy[0])
                self.doing.pop(0)
            time.sleep(0.002)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


@needs_ray
@linux
def test_workers_killed_while_they_work_change_no_byte(cluster, world, local, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.engines.ray_engine.SEARCH_ROWS", 32)
    monkeypatch.setattr("curate.engines.ray_engine.RUN", 2)
    settings = config(world, tmp_path / "out" / "mini.h5", workers=1)
    work = tmp_path / "out" / "mini.h5.work"
    with WhenBusy(work, lambda process: os.kill(process, signal.SIGKILL), "measure", "search_within") as killed:
        result = on(cluster, settings)
    assert killed.parts[0] < 12 and killed.parts[1:] == [12]  # of 7 and 5 batches
    assert files(tmp_path / "out") == files(local.out.parent)
    assert len(files(tmp_path / "out")) == 5  # manifest, evidence, three shards
    assert result.notes == local.notes


@pytest.mark.slow
@needs_ray
@linux
def test_so_it_is_with_a_classifier_on_the_worker_that_has_a_gpu(cluster, world, tmp_path):
    changes = {"embedder": f"checkpoint:{world / 'm.safetensors'}", "sample": "clusters", "protect": ("none",)}
    settings = config(world, tmp_path / "one" / "mini.h5", workers=1, **changes)
    build(settings)
    free = []
    with WhenBusy(tmp_path / "ray" / "mini.h5.work", lambda _: free.append(ray.available_resources()), "measure"):
        on(cluster, replace(settings, out=tmp_path / "ray" / "mini.h5"))
    assert free[0].get("GPU", 0) == 0 and free[0]["CPU"] == 1  # one worker: Ray was told of one GPU
    assert files(tmp_path / "ray") == files(tmp_path / "one")


@pytest.mark.slow
@needs_ray
def test_either_engine_goes_on_with_the_parts_of_the_other(cluster, world, local, tmp_path):
    class Interrupted(LocalEngine):
        def __init__(self, engine, stop: int) -> None:
            self.prepare, self.measure, self.stop = engine.prepare, engine.measured_batches, stop

        def measured_batches(self, *arguments):
            for number, batch in self.measure(*arguments):
                if number == self.stop:
                    raise KeyboardInterrupt
                yield number, batch

    settings = config(world, tmp_path / "mini.h5", workers=1)
    for name, address, stop in (("local", None, 3), ("ray", cluster.address, 9)):
        with pytest.raises(KeyboardInterrupt), open_engine(name, address) as engine:
            build(settings, engine=Interrupted(engine, stop))
        assert len(list((tmp_path / "mini.h5.work").glob("part-*.npz"))) == stop
    result = build(settings)
    assert result.notes == ("went on with the parts of an interrupted build", *local.notes)
    assert files(tmp_path) == files(local.out.parent)


@needs_ray
def test_an_error_of_a_worker_is_the_error_of_the_local_engine(cluster, world, tmp_path):
    damaged = bytearray((world / "second.parquet").read_bytes())
    damaged[2000:20000] = bytes(18000)  # pages, not the footer
    (tmp_path / "second.parquet").write_bytes(damaged)
    settings = config(world, tmp_path / "a" / "mini.h5", source=(str(tmp_path / "second.parquet"),), workers=1)
    settings = replace(settings, exclude_labels="none")
    with pytest.raises(InputError, match=r"second.parquet: ") as error:
        build(settings)
    with pytest.raises(InputError) as remote:
        on(cluster, replace(settings, out=tmp_path / "b" / "mini.h5"))
    assert str(remote.value) == str(error.value)


@pytest.mark.slow
@needs_ray
def test_machines_must_have_the_same_files_and_processors_enough(cluster, world, tmp_path):
    settings = config(world, tmp_path / "mini.h5", workers=1)
    inputs = resolve_inputs(settings)
    words = "the images, files or software are others than here; every machine needs"
    with open_engine("ray", cluster.address) as engine:
        found = engine.prepare(settings, replace(inputs, recipe="of other files"))
        with pytest.raises(InputError, match=words):
            for _ in range(200):  # until the other machine's worker is there
                found.embedder.embed(pictures(4, seed=4))
                time.sleep(0.1)
    with pytest.raises(InputError, match="--workers 64: no machine of the Ray cluster has so many processors, but 1"):
        on(cluster, replace(settings, workers=64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_ray
@linux
def test_a_machine_lost_with_what_it_had_done_changes_no_byte(cluster, world, local, tmp_path):
    settings = config(world, tmp_path / "out" / "mini.h5", workers=1)
    lost = []

    def remove(_) -> None:
        here = ray.get_runtime_context().get_node_id()
        other = next(node for node in (cluster.head_node, *cluster.worker_nodes) if node.node_id != here)
        if other is not cluster.head_node:
            cluster.remove_node(other, allow_graceful=False)
            lost.append(other)

    with WhenBusy(tmp_path / "out" / "mini.h5.work", remove, "measure") as watch:
        on(cluster, settings)
    assert len(lost) == 1 and watch.parts[0] < 12
    assert files(tmp_path / "out") == files(local.out.parent)


@needs_ray
def test_the_command_starts_a_ray_of_its_own_and_ends_it(world, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(world)  # relative paths lead to the same files
    options = ["build", "--source", "first.parquet", "--id", "id", "--size", "90", "--exclude-labels", "none"]
    app([*options, "--out", str(tmp_path / "a" / "mini.h5")], standalone_mode=False)
    printed = capfd.readouterr()
    app([*options, "--out", str(tmp_path / "b" / "mini.h5"), "--engine", "ray"], standalone_mode=False)
    assert not ray.is_initialized()
    on_ray = capfd.readouterr()
    assert on_ray.out == printed.out.replace("/a/", "/b/")
    assert on_ray.err == printed.err  # not a word of Ray's
    assert files(tmp_path / "a") == files(tmp_path / "b")


@needs_ray
def test_an_address_where_no_cluster_is_costs_seconds_and_a_line(world, tmp_path):
    settings = config(world, tmp_path / "mini.h5")
    for address, words in (
        ("127.0.0.1:1", "--ray-address 127.0.0.1:1: no Ray cluster is there .*start one with `ray start --head`"),
        ("ray://127.0.0.1:10001", "--ray-address ray://127.0.0.1:10001: is no HOST:PORT"),
        ("nonsense", "--ray-address nonsense: is no HOST:PORT"),
    ):
        with pytest.raises(InputError, match=words), open_engine("ray", address) as engine:
            build(settings, engine=engine)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "spark"], "--engine spark: is unknown; choose one of local, ray"),
        (["--ray-address", "auto"], "--ray-address auto: needs --engine ray"),
        (["--engine", "ray", "--rank", "0", "--world-size", "2"], "--engine ray: does not go with --rank"),
        (["--ray-address", "auto", "--rank", "0", "--world-size", "2"], "--ray-address auto: needs --engine ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        app(["build", "--size", "90", "--out", str(tmp_path / "mini.h5"), *options], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []


def test_without_ray_it_says_how_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("curate.engines.ray_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    words = r"--engine ray: needs Ray; install it with `pip install 'srood\[ray\]'`"
    with pytest.raises(InputError, match=words), open_engine("ray"):
        pass


def test_a_ray_that_does_not_start_is_said_in_one_line(monkeypatch):
    """A machine that is too busy cannot be had at will: Ray then raises a bare exception after half a minute."""
    ray = pytest.importorskip("ray")

    def start(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(InputError, match=r"^--engine ray: Ray cannot be used \(The current node timed out"):
        from curate.engines.ray_engine import _join

        _join(None)


def test_an_index_can_be_sent_and_searched_in_parts():
    """What the engine rests on, with Ray or without."""
    images = pictures(60, seed=3)
    images = np.concatenate([images, images[:20, :, ::-1], np.roll(images[20:40], 1, axis=1)])
    index = ProtectedIndex(images, CopyThreshold(0.85, {}, 0.0, 0, 0, {}))
    whole = index.search(images, within=True)
    assert len(whole.query) >= 60
    sent = pickle.loads(pickle.dumps(index, protocol=5))
    parts = [(first, sent.search(images[first : first + 30], within=True, first=first)) for first in range(0, 100, 30)]
    assert np.array_equal(np.concatenate([part.query + first for first, part in parts]), whole.query)
    for name in ("protected", "similarity", "kind", "typical", "largest_left", "nearest_left"):
        assert np.array_equal(np.concatenate([getattr(part, name) for _, part in parts]), getattr(whole, name)), name
