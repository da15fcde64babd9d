"""benchmarks/dedup.py: the planted truth, outputs as peers write them, scores by hand, and a run without peers."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, pictures, write_parquet
from PIL import Image

from curate.copies import COPIES
from srood.errors import InputError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("dedup")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    ident = pictures(60, seed=3)
    write_parquet(root / "cifar10" / "train.parquet", ident[:40], [i % 10 for i in range(40)])
    write_parquet(root / "cifar10" / "test.parquet", ident[40:], [i % 10 for i in range(20)])
    corpus = [encode(image, "JPEG", quality=97) for image in pictures(130, seed=4, size=64)]
    write_parquet(root / "tiny-imagenet" / "corpus.parquet", corpus, [0] * 130)
    return root


def test_planted_folder(benchmark, data, tmp_path, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(data))
    planted = benchmark.write_folder(tmp_path / "images", "tiny-imagenet:corpus", 110)
    files = sorted((tmp_path / "images").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.jpg" for number in range(110)]
    assert list(planted.pairs) == list(COPIES) and {len(pairs) for pairs in planted.pairs.values()} == {1}
    names = [name for a, b in planted.every() for name in (a, b)]
    assert len(names) == len(set(names)) == 2 * len(COPIES)  # one copy of an image at the most

    def pixels(name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / "images" / name), np.float64)

    ((a, b),) = planted.pairs["flip"]
    assert abs(pixels(a) - pixels(b)[:, ::-1]).mean() < 5 < 20 < abs(pixels(a) - pixels(b)).mean()
    again = benchmark.write_folder(tmp_path / "again", "tiny-imagenet:corpus", 110)
    assert again == planted
    assert all((tmp_path / "again" / file.name).read_bytes() == file.read_bytes() for file in files)
    with pytest.raises(InputError, match="holds 130 images; 200 files with copies need 182"):
        benchmark.write_folder(tmp_path / "more", "tiny-imagenet:corpus", 200)


def test_outputs_of_peers(benchmark, tmp_path):
    contenders = importlib.import_module("peers.contenders")
    listing = "index,filename\n0,/somewhere/000000.jpg\n1,/somewhere/000003.jpg\n2,/somewhere/000007.jpg\n"
    (tmp_path / "atrain_features.dat.csv").write_text(listing)
    (tmp_path / "similarity.csv").write_text("from,to,distance\n2,0,0.961000\n0,2,0.961000\n1,2,0.917908\n")
    found = contenders.read_fastdup(tmp_path)
    assert found == {("000000.jpg", "000007.jpg"): 0.961, ("000003.jpg", "000007.jpg"): 0.917908}
    duplicates = {"000000.jpg": [["000007.jpg", 4]], "000003.jpg": [], "000007.jpg": [["000000.jpg", 4]]}
    (tmp_path / "duplicates.json").write_text(json.dumps(duplicates))
    assert contenders.read_imagededup(tmp_path) == {("000000.jpg", "000007.jpg"): -4}


def test_scores_by_hand(benchmark):
    planted = benchmark.Planted(8, {"flip": {("a", "b")}, "jpeg": {("c", "d"), ("e", "f")}})
    found = {("a", "b"): 0.9, ("c", "d"): 0.97, ("a", "g"): 0.98, ("g", "h"): 0.91}
    rows = benchmark.score(found, planted, {"low": 0.9, "high": 0.96})
    assert rows["low"] == {
        "recall": {"flip": 1, "jpeg": 0.5},
        "recall_all": pytest.approx(2 / 3),
        "planted_share": 0.5,
        "others": 2,
        "others_per_1000_images": 250,
    }
    assert rows["high"]["recall"] == {"flip": 0, "jpeg": 0.5} and rows["high"]["others"] == 1
    built = benchmark.score_build({"a", "b", "c", "e", "g"}, planted)["set without both"]
    assert built["recall"] == {"flip": 0, "jpeg": 1}

    ours = {"seconds": [2.0, 4.0], "peak_bytes": [100, 100], "found": {"": rows["high"]}}
    peer = {"seconds": [9.0, 4.0], "peak_bytes": [50, 50], "found": {"": rows["low"]}}
    figures = {"curate audit": ours, "fastdup": peer, "imagededup": {"failed": "no wheel"}}
    assert benchmark.ratios(figures) == {"curate audit / fastdup": [4.5, 1.0]}
    assert benchmark.peers_ahead(figures) == [
        "fastdup takes less memory than curate audit: 0.50 of it",
        "fastdup finds more than curate audit of flip: 100.0%, not 0.0%",
    ]


def test_a_contender_that_hangs_or_fails_is_stopped_and_said(benchmark, tmp_path):
    contenders = importlib.import_module("peers.contenders")
    with pytest.raises(contenders.Failed, match="stopped after 1 s, the time limit"):
        contenders.measure([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 1, 1)
    with pytest.raises(contenders.Failed, match="exit code 3: no such model"):
        failing = "import sys; print('no such model'); sys.exit(3)"
        contenders.measure([sys.executable, "-c", failing], tmp_path, 1, 30)
    held = "x = bytearray(200_000_000)"
    contenders.measure([sys.executable, "-c", held], tmp_path, 1, 30)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert 200e6 < figures["peak_bytes"] < 260e6 and 0 < figures["seconds"] < 30


@pytest.mark.slow
def test_a_run_without_peers(data, tmp_path):
    out = tmp_path / "figures.json"
    environment = {**os.environ, "SROOD_DATA": str(data), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "dedup.py"), "--images", "120", "--rounds", "1"]
    command += ["--only", "curate audit", "curate build", "--protect", "cifar10:test", "--json", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["images"] == 120 and set(figures["copies"].values()) == {1} and figures["ratios"] == {}
    for row in figures["contenders"].values():
        assert len(row["seconds"]) == len(row["peak_bytes"]) == 1 and min(row["peak_bytes"]) > 5e7
    audit, built = (next(iter(row["found"].values())) for row in figures["contenders"].values())
    assert audit["recall"]["jpeg"] == built["recall"]["jpeg"] == 1 and audit["others"] <= 2
    assert "| curate audit, calibrated threshold |" in done.stdout and "nowhere in this run" in done.stdout
