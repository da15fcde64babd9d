"""The whole build on real images. Slow: `make test-slow`."""

import resource
import subprocess
import sys

import pytest

from curate import semantics
from srood import manifests
from srood.outliers import OutlierSet, verify

pytestmark = pytest.mark.slow


def test_tiny_imagenet_against_cifar10(srood_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SROOD_DATA", str(srood_data))
    weights = srood_data / "models" / "resnet20-cifar10.safetensors"
    folders = []
    for workers in ("1", "3"):
        out = tmp_path / workers / "mini.h5"
        command = ["build", "--source", "tinyimages-alt", "--size", "20k", "--embedder", f"checkpoint:{weights}"]
        command += ["--workers", workers, "--out", str(out)]
        subprocess.run([sys.executable, "-m", "curate", *command], check=True)
        assert verify(out) == []
        folders.append({path.name: path.read_bytes() for path in out.parent.iterdir()})
    assert folders[0] == folders[1]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2e6  # kB

    opened = OutlierSet.open(tmp_path / "1" / "mini.h5")
    assert opened.num_rows == 20_000
    packaged = manifests.find("exclusions", "cifar10")
    assert packaged is not None
    names = opened.manifest["label_names"]
    excluded = semantics.match_labels(names, semantics.load_exclusions(packaged))
    assert len(excluded) == 24
    assert not set(opened.read("label").tolist()) & set(excluded)
