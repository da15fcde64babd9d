"""`srood detect`: its rows against the detector's own predictions, and its counts against evaluation."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectors import settled, write_calibrated, write_png, write_weights
from digits_images import digits, write_digits, write_parquet
from safetensors.torch import save_file

from srood.detector import load_detector
from srood.errors import InputError
from srood.metrics import fpr_at_tpr
from train import cli
from train.detection.calibrate import calibrate
from train.detection.detect import Detection, detect, detections, open_sources, write_detections
from train.detection.thresholds import choose_threshold
from train.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_calibrated(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return digits()[0][300:340]


@pytest.fixture
def photos(tmp_path, images) -> Path:
    """A folder of five good images, in two subfolders, and three bad ones."""
    folder = tmp_path / "photos"
    for number, image in enumerate(images[:5]):
        write_png(folder / ("a" if number < 3 else "b") / f"{number}.png", image)
    (folder / "a" / "empty.jpg").touch()
    (folder / "a" / "text.png").write_text("no image")
    (folder / "b" / "cut.png").write_bytes((folder / "b" / "3.png").read_bytes()[:150])
    return folder


def _run(weights: Path, *images: object, stdin: bytes = b"", **options) -> tuple[list[dict], object]:
    """Detections as JSON lines, and the summary."""
    stream = io.StringIO()
    summary = detect(
        weights, list(map(str, images)), output="jsonl", device="cpu", stdin=io.BytesIO(stdin), stdout=stream, **options
    )
    return [json.loads(line) for line in stream.getvalue().splitlines()], summary


def test_rows_are_what_predict_says(weights, photos, images):
    rows, summary = _run(weights, photos)
    expected = load_detector(weights, "cpu").predict(images[:5])
    good = [row for row in rows if row["status"] == "ok"]
    names = ["a/0.png", "a/1.png", "a/2.png", "a/empty.jpg", "a/text.png", "b/3.png", "b/4.png", "b/cut.png"]
    assert [row["image"] for row in rows] == [str(photos / name) for name in names]
    assert [row["score"] for row in good] == expected.scores.tolist()
    assert [row["confidence"] for row in good] == expected.confidence.tolist()
    assert [row["class_index"] for row in good] == expected.classes.tolist()
    assert [row["class_name"] for row in good] == list(expected.names)
    assert [row["is_ood"] for row in good] == expected.is_ood.tolist()
    assert all(row["reason"] is None for row in good)
    bad = {Path(row["image"]).name: row["reason"] for row in rows if row["status"] == "unusable"}
    assert bad == {"empty.jpg": "empty", "text.png": "not an image", "cut.png": "truncated or corrupt"}
    assert all(row["score"] is row["is_ood"] is row["class_name"] is None for row in rows if row["image"] in bad)
    assert (summary.accepted, summary.ood) == ((~expected.is_ood).sum(), expected.is_ood.sum())
    assert summary.unusable == {"empty": 1, "not an image": 1, "truncated or corrupt": 1}


def test_globs_files_standard_input_and_sets_give_the_same_rows(weights, photos, images, tmp_path, monkeypatch):
    whole = {row["image"]: row for row in _run(weights, photos)[0]}
    monkeypatch.chdir(tmp_path)
    globbed, _ = _run(weights, "photos/**/*.png")
    assert [row["image"] for row in globbed] == [
        f"photos/{name}" for name in ("a/0.png", "a/1.png", "a/2.png", "a/text.png", "b/3.png", "b/4.png", "b/cut.png")
    ]
    for row in globbed:
        assert row["score"] == pytest.approx(whole[str(tmp_path / row["image"])]["score"], abs=1e-5)
    listed, summary = _run(weights, "-", stdin=b"photos/b/4.png\n\nphotos/a/0.png\r\nphotos/nothing.png\nphotos")
    assert [(row["image"], row["reason"]) for row in listed] == [
        ("photos/b/4.png", None),
        ("photos/a/0.png", None),
        ("photos/nothing.png", "no such file"),
        ("photos", "unreadable file"),
    ]
    assert summary.unusable.total() == 2
    (tmp_path / "[1].png").write_bytes((photos / "a" / "1.png").read_bytes())  # a name, not a pattern
    write_parquet(tmp_path / "set.parquet", images[:5], np.zeros(5, np.int64))
    rows, _ = _run(weights, "[1].png", "photos/a/0.png", "set.parquet", "-", stdin=b"photos/b/3.png")
    assert [row["image"] for row in rows] == [
        "[1].png", "photos/a/0.png", *(f"set.parquet#{number}" for number in range(5)), "photos/b/3.png",
    ]  # fmt: skip
    by_set = [row["score"] for row in rows[2:7]]
    assert by_set == pytest.approx([row["score"] for row in whole.values() if row["status"] == "ok"], abs=1e-5)


def test_csv_and_table_say_the_same_as_json(weights, photos):
    rows, _ = _run(weights, photos)
    stream = io.StringIO()
    detect(weights, [str(photos)], output="csv", device="cpu", stdout=stream)
    read = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [list(row) for row in read] == [list(row) for row in rows]
    for text, row in zip(read, rows, strict=True):
        for name, value in row.items():
            expected = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert text[name] == expected
    stream = io.StringIO()
    detect(weights, [str(photos)], device="cpu", stdout=stream)
    header, *lines = stream.getvalue().splitlines()
    assert header.split() == ["score", "confidence", "class", "image"]
    for line, row in zip(lines, rows, strict=True):
        if row["status"] == "ok":
            decision = "out" if row["is_ood"] else "in"
            words = [decision, f"{row['score']:.4f}", f"{row['confidence']:.4f}", *row["class_name"].split()]
            assert line.split() == [*words, row["image"]]
            assert line.index(row["image"]) == header.index("image")
        else:
            assert line.startswith("unusable") and line.endswith(f"{row['image']} ({row['reason']})")


def test_names_in_the_table_say_nothing_to_the_terminal():
    names = ("a\x1b[2Jb", "cat\nin", "grün\udcff")
    found = [Detection("\x1b]0;x\x07.png", "ok", name, 0, 0.5, 1.0, False) for name in names]
    stream = io.StringIO()
    write_detections(found, "table", stream, names)
    text = stream.getvalue()
    assert [line.split()[3:] for line in text.splitlines()[1:]] == [
        [name, r"\x1b]0;x\x07.png"] for name in (r"a\x1b[2Jb", r"cat\nin", r"grün\udcff")
    ]
    text.encode()  # without surrogates


def test_images_are_read_a_batch_at_a_time(weights, photos):
    taken = 0

    class Lines(io.BytesIO):
        def __next__(self) -> bytes:
            nonlocal taken
            taken += 1
            return f"{photos}/a/{taken % 3}.png\n".encode()  # without end

    (source,) = open_sources(["-"], Lines())
    found = detections(load_detector(weights, "cpu"), source.rows(), batch_size=8)
    for number in range(1, 41):
        assert next(found).status == "ok"
        assert taken <= number + 8
    found.close()


def test_the_command_and_its_exit_codes(weights, photos, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def srood(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
        command = [sys.executable, "-m", "train.cli", "detect", *map(str, arguments), "--device", "cpu"]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    code, out, err = srood(weights, "-", "--out", "rows.csv", stdin=f"{photos}/a/0.png\n{photos}/a/text.png\n")
    assert (code, out) == (0, "")
    record = json.loads(weights.with_suffix(".detector.json").read_text())
    assert err.startswith("1 images: ")
    assert f"out is where energy > {record['threshold']:.6g}\nunusable: 1 (not an image 1)\nwritten to rows.csv" in err
    assert [row["status"] for row in csv.DictReader((tmp_path / "rows.csv").open())] == ["ok", "unusable"]
    assert srood(weights, photos / "a" / "0.png", "--out", "rows.JSONL")[0] == 0
    assert json.loads((tmp_path / "rows.JSONL").read_text())["status"] == "ok"
    code, out, err = srood(weights, photos / "a" / "text.png", photos / "a" / "empty.jpg", "--format", "jsonl")
    assert code == 2 and err.splitlines()[-1].endswith("no image could be used (not an image 1, empty 1); give others")
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["unusable"] * 2


def test_mistakes_are_found_before_any_image_is_read(weights, photos, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("train.detection.detect.decode_batch", None)  # calling it would be a TypeError
    uncalibrated = write_weights(tmp_path / "new.safetensors")
    cases = [
        ((weights, tmp_path / "missing.png"), "missing.png: no such file"),
        ((weights, photos, "nowhere/*.png"), "nowhere/*.png: no image files match"),
        ((weights, "-", "-"), "-: is given twice"),
        ((weights, photos, "--format", "xml"), "--format xml: is unknown; choose one of table, jsonl, csv"),
        ((weights, photos, "--out", photos), "is not a file and is not replaced"),
        ((weights, photos, "--out", tmp_path / "no" / "rows.csv"), "there is no such folder"),
        ((weights, photos, "--threshold", "inf"), "--threshold inf"),
        (
            (weights, photos, "--out", tmp_path / "rows.json"),
            "rows.json: JSON is written a line an image; name it .jsonl",
        ),
        ((uncalibrated, photos), "new.safetensors: has no threshold yet; run `srood calibrate"),
    ]
    for arguments, message in cases:
        monkeypatch.setattr(sys, "argv", ["srood", "detect", *map(str, arguments), "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        assert (end.value.code, out) == (2, "")
        assert err.startswith("error: ") and message in err, err


def test_no_paths_on_standard_input(weights):
    with pytest.raises(InputError, match=r"-: no image could be used \(there are none\)"):
        _run(weights, "-")


def test_what_detect_flags_is_what_evaluation_counts(tmp_path):
    id_set = write_digits(tmp_path / "digits", train=20, test=100)
    ood = str(write_parquet(tmp_path / "ood.parquet", digits()[0][:60] // 2, np.zeros(60, np.int64)))
    weights = write_weights(tmp_path / "net.safetensors", dataset=str(id_set))
    record, _ = calibrate(weights, images=str(id_set / "test.parquet"), device="cpu")
    rows, summary = _run(weights, ood)
    plain = tmp_path / "plain.safetensors"  # without names of classes, which are those of the ID set then
    save_file(
        settled("resnet20").state_dict(),
        plain,
        {"arch": "resnet20", "mean": ",".join(map(str, record.mean)), "std": ",".join(map(str, record.std))},
    )
    result = evaluate(plain, [ood], id_set=str(id_set), out=tmp_path / "eval", convention="id-positive", device="cpu")
    assert summary.accepted / 60 == result["ood"][ood]["scores"]["energy"]["fpr95"]
    assert 0 < summary.ood == sum(row["is_ood"] for row in rows)


@pytest.mark.slow
def test_resnet20_on_cifar10(srood_data, tmp_path, monkeypatch):
    scores = []

    def recorded(*args):  # the real threshold, from the scores of one forward pass over 10,000 images
        scores.append(args[0])
        return choose_threshold(*args)

    monkeypatch.setattr("train.detection.calibrate.choose_threshold", recorded)
    weights = tmp_path / "resnet20.safetensors"
    shutil.copy(srood_data / "models" / "resnet20-cifar10.safetensors", weights)
    record, _ = calibrate(weights, tpr=0.95, id_set="cifar10", device="cpu")
    assert (record.accepted, record.images.count, record.images.spec) == (9500, 10_000, "cifar10:test")
    assert np.sum(scores[0] <= record.threshold) == 9500
    low, high = record.acceptance_interval
    assert low < 0.95 < high and high - low < 0.01
    rows, summary = _run(weights, "textures")
    fpr95 = fpr_at_tpr(scores[0], [row["score"] for row in rows], 0.95, "id-positive")
    assert (summary.accepted, summary.ood) == (round(fpr95 * 1200), 1200 - round(fpr95 * 1200))
    assert 100 * fpr95 == pytest.approx(50.0, abs=0.2)  # `srood eval` with --convention id-positive
