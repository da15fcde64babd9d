"""The whole way on real images: built, published, pulled, verified, and trained from by its address on the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from published_sets import contents

from curate.build import build
from curate.config import BuildConfig
from srood.datasets import load_images
from srood.outliers import OutlierSet, verify
from train.config import TuneConfig, read_config
from train.tune import tune


def cut(source: Path, rows: int, target: Path) -> None:
    """The first rows of a Parquet file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(source).slice(0, rows), target)


@pytest.fixture(scope="module")
def real(srood_data, tmp_path_factory):
    """CIFAR-10 in little as ID set, and an outlier set of 300 images of CIFAR-100 curated against it."""
    root = tmp_path_factory.mktemp("real")
    cut(next(srood_data.glob("cifar10/train*.parquet")), 600, root / "id" / "train.parquet")
    cut(next(srood_data.glob("cifar10/test*.parquet")), 200, root / "id" / "test.parquet")
    cut(srood_data / "cifar100" / "test.parquet", 700, root / "cifar100-part.parquet")
    settings = {"id": str(root / "id"), "size": 300, "shard_rows": 200, "calibration_images": 100}
    source = (str(root / "cifar100-part.parquet"),)
    return build(BuildConfig(source=source, out=root / "sets" / "real.h5", **settings)).out


def test_publish_pull_verify_and_train(real, srood_data, writable_hub, curate, tmp_path):
    # nothing is known of a local file's licence: somebody has to say that it may go out
    code, _, err = curate("publish", real, "lab/real")
    assert code == 2 and "it is not known whether images of these sources may be passed on" in err
    code, out, _ = curate("publish", real, "lab/real", "--rights-confirmed", "--json")
    assert code == 0
    commit = writable_hub.repos["lab/real"].refs["main"]
    assert json.loads(out)["commit"] == commit

    code, _, _ = curate("pull", "lab/real", "--revision", commit, "--out", tmp_path / "sets")
    assert code == 0
    code, out, _ = curate("verify", tmp_path / "sets" / "real.h5")
    assert code == 0 and "300 rows in 2 shards agree with the manifest" in out
    before = {name: data for name, data in contents(real.parent).items() if name != "real-evidence.h5"}
    assert contents(tmp_path / "sets") == before

    # the pictures are those of the corpus
    pulled = OutlierSet.open(tmp_path / "sets" / "real.h5")
    corpus = load_images(str(real.parent.parent / "cifar100-part.parquet"))
    rows = [int(key.rpartition(b"#")[2]) for key in pulled.read("key").tolist()]
    assert np.array_equal(pulled.read_images(), corpus.images[rows])

    weights = srood_data / "models" / "resnet20-cifar10.safetensors"
    settings = {"id": str(real.parent.parent / "id"), "model": "resnet20", "checkpoint": weights, "max_steps": 2}
    settings |= {"batch_size": 32, "outlier_batch_size": 64, "device": "cpu", "precision": "32-true"}
    run = tune(TuneConfig(**settings, outliers=f"hf://lab/real@{commit}"), tmp_path / "hub")
    local = tune(TuneConfig(**settings, outliers=str(tmp_path / "sets" / "real.h5")), tmp_path / "local")
    assert (run / "model.safetensors").read_bytes() == (local / "model.safetensors").read_bytes()
    assert (run / "model.safetensors").read_bytes() != weights.read_bytes()
    assert read_config(run).outliers == (f"hf://lab/real@{commit}/hdf5/real.h5",)
    (recorded,) = json.loads((run / "run.json").read_text())["outliers"]
    assert recorded["fingerprint"] == pulled.fingerprint and recorded["rows"] == 300
    assert verify(real) == []


def test_images_of_tiny_imagenet_stay_here(srood_data, real, writable_hub, curate, tmp_path, monkeypatch):
    """They may not be passed on: refused, and published as an index without pixels."""
    cut(srood_data / "tiny-imagenet" / "corpus.parquet", 200, tmp_path / "data" / "tiny-imagenet" / "corpus.parquet")
    monkeypatch.setenv("SROOD_DATA", str(tmp_path / "data"))
    out = tmp_path / "sets" / "tiny.h5"
    ident = str(real.parent.parent / "id")
    build(BuildConfig(source=("tinyimages-alt",), id=ident, size=50, calibration_images=100, out=out))
    code, _, err = curate("publish", out, "lab/tiny", "--rights-confirmed")
    assert code == 2 and "images of these sources may not be passed on: tiny-imagenet" in err
    assert not writable_hub.requests
    code, printed, _ = curate("publish", out, "lab/tiny", "--index-only")
    assert code == 0 and "hdf5/tiny.h5" in printed and "tiny-00000" not in printed
