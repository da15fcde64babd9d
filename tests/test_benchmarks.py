"""Benchmarks still run: on small made-up sets in the place of the real ones."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from digits_images import write_noise
from pictures import pictures, write_parquet

from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights

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


@pytest.mark.slow
def test_training(made_up, tmp_path):
    options = ["--steps", "1", "--rounds", "2", "--device", "cpu", "--models", "resnet20"]
    text, figures = run(made_up, tmp_path, "training.py", *options)
    assert [name.partition(",")[0] for name in figures["ratios"]] == [
        *("cost of a step", "cost of a step", "speed", "speed in float32")
    ]
    rates = figures["images_per_second"]
    first = figures["ratios"]["cost of a step, SR / cross entropy"]
    by_hand = [a / b for a, b in zip(rates["cross entropy, 128 images"], rates["SR, 128 images"], strict=True)]
    assert (first["min"], first["max"]) == (min(by_hand), max(by_hand))
    assert f"{first['median']:6.3f}" in text
    sr, sroe = figures["networks"]
    assert [(row["model"], row["method"]) for row in (sr, sroe)] == [("resnet20", "SR"), ("resnet20", "SROE")]
    for row, images in ((sr, 10 * 160), (sroe, 10 * (160 + 2 * 256))):  # ten epochs of 128 and 32 ID images
        assert row["seconds"] == pytest.approx(images / median(row["images_per_second"]))
        achieved = median(row["images_per_second"]) * row["operations_per_image"]
        assert row["share_of_peak"] == pytest.approx(achieved / max(figures["peak"].values()))
        assert f"{row['share_of_peak']:.1%}" in text
    assert "10 epochs, extrapolated" in text


def test_operations_and_epochs_of_networks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    networks = importlib.import_module("networks")
    forward = []

    def count(module, inputs, output):
        forward.append(2 * output[0].numel() * module.weight[0].numel())  # of one image

    model = build_model("resnet20", 10)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    # backward: gradients of weights and of inputs, but not of the images
    assert networks.operations("resnet20", 10) == 3 * sum(forward) - forward[0]
    assert set(networks.peak(torch.device("cpu"), "32-true", seconds=0.01)) == {"matrix product", "convolution"}

    taken = []
    (sr, sroe) = networks.measure_networks(
        lambda name, method: lambda number: taken.append((method, number)) or 100.0, ["resnet20"], 10, 300, 5, 2, 4
    )
    assert taken == [("SR", 3), ("SR", 12), ("SROE", 3), ("SROE", 12)]  # warmed up; four epochs of three steps
    assert (sr["seconds"], sroe["seconds"]) == (12.0, 4 * (300 + 3 * 256) / 100) and sr["in_full"]


def test_precision(made_up, tmp_path):
    _, figures = run(made_up, tmp_path, "precision.py", "--steps", "1", "--rounds", "1", "--batch-size", "4")
    assert [(row["precision"], row["format"]) for row in figures] == [
        *(("32-true", "contiguous"), ("32-true", "channels_last")),
        *(("bf16-mixed", "contiguous"), ("bf16-mixed", "channels_last")),
    ]
    assert figures[0]["ratio"] == 1


@pytest.mark.slow
def test_sroe_accuracy(made_up, tmp_path):
    torch.manual_seed(0)
    start = tmp_path / "start.safetensors"
    info = WeightsInfo("resnet20", "cifar10", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    save_weights(start, build_model("resnet20", 10).state_dict(), info)
    options = ["--checkpoint", start, "--outliers", write_noise(tmp_path / "outliers"), "--out", tmp_path / "runs"]
    options += ["--ood", "tiny-imagenet:corpus", "--max-steps", "1", "--only", "3"]
    _, figures = run(made_up, tmp_path, "sroe_accuracy.py", *map(str, options))
    assert [row["change"] for row in figures][-1] == "SROE as in the paper"
    assert all(0 <= row["id_statistics"] <= 1 and 0 <= row["id_accuracy"] <= 1 for row in figures)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        *("no-outliers-cross-entropy-alone", "no-outliers-SR", "SROE-as-in-the-paper")
    }


def test_curation(made_up, tmp_path):
    options = ["--rows", "64", "--rounds", "3", "--builds", "1", "--size", "40", "--calibration-images", "30"]
    text, figures = run(made_up, tmp_path, "curation.py", *options, "--protect", "cifar10:test")
    rates = figures["images_per_second"]
    assert list(rates) == ["read", "decode", "hash", "embed", "search protected", "search ID", "write", "pipeline"]
    slowest = min((name for name in rates if name != "pipeline"), key=lambda name: median(rates[name]))
    assert figures["slowest"] == slowest
    assert figures["ratios"]["pipeline / slowest stage"] == median(rates["pipeline"]) / median(rates[slowest])
    assert text.startswith(
        f"{figures['ratios']['pipeline / slowest stage']:8.2f}  pipeline / slowest stage ({slowest})"
    )
    (built,) = figures["builds"]
    assert built["rows"] == 160 and built["peak_bytes"] > 1e8 and built["seconds"] > 0


@pytest.mark.slow
def test_export(made_up, tmp_path):
    options = ["--rows", "100", "--runs", "2", "--large", "tiny-imagenet:corpus"]
    text, figures = run(made_up, tmp_path, "export.py", *options)
    assert figures["rows"] == 100 and "100 rows of cifar10:train at 32x32" in text
    assert list(figures["formats"]) == ["parquet", "webdataset", "imagefolder", "hdf5", "datasets"]
    ours, peer = figures["formats"]["parquet"], figures["formats"]["datasets"]
    assert ours["ratios"] == [a / b for a, b in zip(peer["seconds"], ours["seconds"], strict=True)]
    assert figures["formats"]["hdf5"]["bytes"] > 100 * 32 * 32 * 3  # pixels as they are
    assert all(row["share"] < 1 for rows in figures["png"].values() for row in rows if row["level"])


@pytest.mark.slow
def test_outliers(made_up, tmp_path):
    sizes = {"--rows": 90, "--shard-rows": 30, "--batch-size": 16, "--window": 32, "--rounds": 2, "--seconds": 2}
    text, figures = run(made_up, tmp_path, "outliers.py", *map(str, sum(sizes.items(), ())))
    assert figures["rows"] == 90 and figures["images"] == "cifar10:train"
    assert len(figures["readers"]) == 10
    for which, base in figures["against"].items():
        assert base.startswith("ImageFolder")
        ours, theirs = (figures["readers"][name][which] for name in ("srood, in memory", base))
        by_hand = [a / b for a, b in zip(ours, theirs, strict=True)]
        assert figures["readers"]["srood, in memory"][f"{which}_ratios"] == by_hand and len(by_hand) == 2
    assert "| srood, block reader | " in text and "3 blocks, 3 windows" in text


def test_outlier_readers_give_every_row(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = importlib.import_module("outliers")
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    opened = benchmark.make_set(tmp_path / "set", images, 30)
    for name, (files, opener) in benchmark.readers(opened, tmp_path, batch=20, window=40).items():
        assert benchmark.drop_pages(files) == hasattr(os, "posix_fadvise")
        with opener() as passes:
            batches = [np.asarray(pixels) for pixels in passes(0)]
        assert sum(map(len, batches)) == 60, name
        rows = [row if row.shape[-1] == 3 else row.transpose(1, 2, 0) for batch in batches for row in batch]
        assert sorted(row.tobytes() for row in rows) == sorted(image.tobytes() for image in images), name
        assert rows[0].dtype == np.uint8 and [row.tobytes() for row in rows] != [i.tobytes() for i in images]


@pytest.mark.slow
def test_scale(made_up, tmp_path):
    options = ["--rows", "2000", "1100", "--size", "50", "--id-images", "60", "--calibration-images", "30"]
    text, figures = run(made_up, tmp_path, "scale.py", *options, "--protected", "5", "--folder", str(tmp_path))
    small, large = figures["builds"]
    assert (small["rows"], large["rows"]) == (1100, 2000) and small["written"] == large["written"] == 50
    assert text.startswith(f"{figures['ratios']['time per image']:8.2f}  time per image, 2,000 rows / 1,100 rows")
    counted = 1e6 * (large["seconds"] - large["stages"]["reference"]) / 2000
    assert large["microseconds_per_row"] == pytest.approx(counted)
    assert 0 < sum(large["stages"].values()) <= large["seconds"] and min(large["stages"].values()) > 0
    assert large["peak_bytes"] > max(large["anonymous_bytes"].values()) > 1e7
    assert large["near_duplicates"] == {"kind": "flat"}
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_scale_makes_copies_that_lie_apart(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    scale = importlib.import_module("scale")
    real = np.random.default_rng(0).integers(0, 256, (50, 44, 44, 3), np.uint8)
    made = scale.Pictures(real, 4096, 2)
    rows = [row.data for row in made.rows()]
    assert len(rows) == 4096 and next(made.rows(4090)).key == "#4090"
    np.testing.assert_array_equal(next(made.rows(1500)).data, rows[1500])
    pictures = np.stack(rows).astype(int)
    middle = pictures[:, 2:-2, 2:-2]
    for row in (0, 1300):
        other = pictures[row + 2048]
        moved = [np.roll(other, (a - 2, b - 2), (0, 1))[2:-2, 2:-2] for a, b in np.ndindex(5, 5)]
        assert min(abs(picture - middle[row]).max() for picture in moved) <= 8  # noise of both
    assert abs(middle[0] - middle[1]).max() > 60
