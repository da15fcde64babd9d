"""Benchmarks still run: on small made-up sets in the place of the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import pictures, write_parquet

ROOT = Path(__file__).parent.parent
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CORPUS_CLASSES = ["n02123045 tabby", "n01443537 goldfish", "n07753592 banana", "n04251144 snorkel"]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    ident = pictures(240, seed=3)
    write_parquet(root / "cifar10" / "train.parquet", ident[:160], [i % 10 for i in range(160)], CLASSES)
    write_parquet(root / "cifar10" / "test.parquet", ident[160:], [i % 10 for i in range(80)], CLASSES)
    corpus = pictures(160, seed=4)
    write_parquet(root / "tiny-imagenet" / "corpus.parquet", corpus, [i % 4 for i in range(160)], CORPUS_CLASSES)
    return root


def run(made_up: Path, tmp_path: Path, name: str, *options: str):
    out = tmp_path / "figures.json"
    environment = {**os.environ, "SROOD_DATA": str(made_up), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options, "--json", str(out)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, json.loads(out.read_text())


def test_curation_quality(made_up, tmp_path):
    text, figures = run(made_up, tmp_path, "curation_quality.py", "--copies", "12")
    assert figures["copies"]["curate"]["found"]["mirrored"] == 1
    assert figures["copies"]["curate"]["false_drops"] < 0.05
    assert figures["id_classes"][0]["contamination"]["corpus"] == 0.25  # one label of four shows a cat
    assert {row["strategy"] for row in figures["coverage"]} >= {"uniform", "stratified", "clusters", "diverse"}
    assert "| curate | 100.0% |" in text


def test_leaks(made_up, tmp_path):
    _, figures = run(made_up, tmp_path, "leaks.py", "--copies", "12")
    assert figures["protected"] == 240 and figures["copies"] == 12 and figures["corpus_rows"] == 160
