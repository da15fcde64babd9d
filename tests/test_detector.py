"""The detector in Python and `srood detect`: against a forward pass by hand, and against each other."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import CLASSES, logits_by_hand, normalised, settled, write_weights
from digits_images import digits, write_digits, write_parquet
from PIL import Image
from safetensors.torch import save_file

import srood
from srood.datasets import load_images
from srood.detector import load_detector
from srood.errors import InputError
from srood.images import decode_to_size
from srood.metrics import fpr_at_tpr
from srood.models import build_model
from srood.outliers import file_sha256
from srood.scores import SCORES
from train import cli
from train.calibrate import calibrate
from train.detect import detect, detections, open_sources
from train.evaluate import evaluate
from train.thresholds import choose_threshold

BY_HAND = {
    "energy": lambda z: -np.log(np.exp(z).sum(axis=1)),
    "msp": lambda z: -_softmax(z).max(axis=1),
    "max-logit": lambda z: -z.max(axis=1),
}


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A weights file calibrated so that half of its held-out images are in."""
    folder = tmp_path_factory.mktemp("weights")
    np.save(folder / "held-out.npy", digits()[0][:100])
    path = write_weights(folder / "net.safetensors")
    calibrate(path, tpr=0.5, images=str(folder / "held-out.npy"), device="cpu")
    return path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return digits()[0][300:340]


def _png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("score", SCORES)
def test_predictions_by_hand(tmp_path, images, score):
    np.save(tmp_path / "held-out.npy", digits()[0][:100])
    path = write_weights(tmp_path / "net.safetensors")
    record, _ = calibrate(path, tpr=0.5, score=score, images=str(tmp_path / "held-out.npy"), device="cpu")
    detector = srood.load_detector(path, device="cpu")
    found = detector.predict(images)
    logits = logits_by_hand(settled("resnet20"), images)
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    assert np.array_equal(found.classes, logits.argmax(axis=1))
    assert found.names == tuple(CLASSES[number] for number in logits.argmax(axis=1))
    np.testing.assert_allclose(found.confidence, _softmax(logits).max(axis=1), atol=1e-5)
    if score in BY_HAND:
        np.testing.assert_allclose(found.scores, BY_HAND[score](logits), atol=1e-4)
    else:
        features = settled("resnet20").features
        with torch.no_grad():
            expected = SCORES[score](torch.from_numpy(logits), features(normalised(images)).double())
        np.testing.assert_allclose(found.scores, expected, rtol=1e-5, atol=1e-4)
    assert np.array_equal(found.is_ood, found.scores > record.threshold)
    assert 0 < found.is_ood.sum() < len(images) == len(found)
    assert (detector.classes, detector.threshold, detector.score_name) == (CLASSES, record.threshold, score)
    assert detector.image_size == 32


def test_every_form_of_image_gives_the_same(weights, images, tmp_path):
    detector = load_detector(weights, "cpu")
    expected = detector.predict(images[:4])
    files = [_png(tmp_path / f"{number}.png", image) for number, image in enumerate(images[:4])]
    mixed = [str(files[0]), files[1], Image.open(files[2]), images[3]]
    for form in (list(images[:4]), files, mixed, tuple(map(str, files))):
        assert np.array_equal(detector.predict(form).logits, expected.logits)
    one = detector.predict(images[0])
    for form in (files[0], str(files[0]), Image.open(files[0]), images[0][:, :, 0]):  # digits are grey
        assert np.array_equal(detector.predict(form).logits, one.logits)
    assert len(one) == 1
    nothing = detector.predict([])
    assert len(nothing) == 0 and nothing.logits.shape == (0, 10) and nothing.is_ood.dtype == bool


def test_batches_change_nothing_but_the_last_bits(weights, images):
    detector = load_detector(weights, "cpu")
    np.testing.assert_allclose(detector.predict(images, 7).scores, detector.predict(images).scores, atol=1e-5)


def test_other_sizes_are_brought_to_the_classifiers_as_evaluation_does(weights, tmp_path):
    detector = load_detector(weights, "cpu")
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (3, 48, 80, 3), dtype=np.uint8)
    files = [_png(tmp_path / "set" / f"{number}.png", image) for number, image in enumerate(large)]
    evaluated = load_images(str(tmp_path / "set"), 32).images  # what `srood eval` reads
    assert np.array_equal(evaluated[1], decode_to_size(files[1], 32))
    expected = detector.predict(evaluated).logits
    assert np.array_equal(detector.predict(files).logits, expected)
    assert np.array_equal(detector.predict(large).logits, expected)
    turned = Image.fromarray(large[0]).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    for form in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        np.testing.assert_allclose(detector.predict(form).logits, expected[:1], atol=1e-4)


def test_images_that_cannot_be_used(weights, images, tmp_path):
    detector = load_detector(weights, "cpu")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png: cannot be used \(not an image\)"):
        detector.predict([images[0], tmp_path / "text.png"])
    with pytest.raises(InputError, match=r"image 2: cannot be used \(extreme aspect ratio\)"):
        detector.predict([images[0], images[1], Image.new("RGB", (900, 9))], batch_size=2)
    with pytest.raises(ValueError, match="images are float64; pixels as uint8"):
        detector.predict(images / 255)
    with pytest.raises(ValueError, match=r"shape \(40, 3, 32, 32\)"):
        detector.predict(images.transpose(0, 3, 1, 2))


def test_a_threshold_in_place_of_the_calibrated_one(weights, images):
    scores = load_detector(weights, "cpu").predict(images).scores
    middle = float(np.sort(scores)[10])
    found = load_detector(weights, "cpu", threshold=middle).predict(images)
    assert np.array_equal(found.is_ood, scores > middle) and found.is_ood.sum() == 29
    with pytest.raises(InputError, match="--threshold nan"):
        load_detector(weights, "cpu", threshold=float("nan"))


def test_one_detector_in_several_threads(weights, images):
    detector = load_detector(weights, "cpu")
    expected = detector.predict(images).logits
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(detector.predict, [images] * 8):
            assert np.array_equal(found.logits, expected)
    assert not torch.is_inference_mode_enabled()


def test_values_that_are_not_finite_are_never_in(tmp_path, weights, images):
    broken = tmp_path / "net.safetensors"
    model = settled("resnet20")
    model.fc.weight.data.fill_(1e38)
    save_file(model.state_dict(), broken, {"arch": "resnet20"})
    record = json.loads(weights.with_suffix(".detector.json").read_text())
    record["weights_sha256"] = file_sha256(broken)
    broken.with_suffix(".detector.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="logits that are not finite"):
        load_detector(broken, "cpu").predict(images)


def test_what_is_no_detector(tmp_path, weights):
    with pytest.raises(InputError, match="nothing: no such run folder, weights file or exported detector"):
        load_detector(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"nothing\.onnx: no such exported detector"):
        load_detector(tmp_path / "nothing.onnx")
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        load_detector(tmp_path)
    (tmp_path / "code.pt").touch()
    with pytest.raises(InputError, match="is code as well as weights"):
        load_detector(tmp_path / "code.pt")
    bare = write_weights(tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match=r"bare\.safetensors: has no threshold yet; run `srood calibrate"):
        load_detector(bare)
    record = weights.with_suffix(".detector.json").read_text()
    beside = tmp_path / "bare.detector.json"
    for text, message in (
        (record[:-20], "is not a calibration that can be read"),
        (record.replace('"schema_version": 1', '"schema_version": 2'), "schema_version"),
        (record.replace('"energy"', '"psychic"'), "'psychic' is not one of energy"),
        (record.replace('"threshold": ', '"threshold": 1e999, "old": '), "threshold: Input should be a finite number"),
    ):
        beside.write_text(text)
        with pytest.raises(InputError, match=message):
            load_detector(bare)
    beside.write_text(record)
    load_detector(bare, "cpu")  # equal weights
    save_file(build_model("resnet20", 10).state_dict(), bare, {"arch": "resnet20"})
    with pytest.raises(InputError, match=r"bare\.detector\.json: was made for other weights"):
        load_detector(bare)
    with pytest.raises(InputError, match="--device gpu"):
        load_detector(weights, "gpu")


def test_importing_srood_is_quick_and_load_detector_is_there():
    code = "import sys, srood; assert 'torch' not in sys.modules; assert callable(srood.load_detector)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'load_detectors'"):
        srood.load_detectors  # noqa: B018


# ---- srood detect ---------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, images) -> Path:
    """A folder of five good images, in two subfolders, and three bad ones."""
    folder = tmp_path / "photos"
    for number, image in enumerate(images[:5]):
        _png(folder / ("a" if number < 3 else "b") / f"{number}.png", image)
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
    code, out, err = srood(weights, photos / "a" / "text.png", photos / "a" / "empty.jpg", "--format", "jsonl")
    assert code == 2 and err.splitlines()[-1].endswith("no image could be used (not an image 1, empty 1); give others")
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["unusable"] * 2


def test_mistakes_are_found_before_any_image_is_read(weights, photos, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("train.detect.decode_batch", None)  # calling it would be a TypeError
    uncalibrated = write_weights(tmp_path / "new.safetensors")
    cases = [
        ((weights, tmp_path / "missing.png"), "missing.png: no such file"),
        ((weights, photos, "nowhere/*.png"), "nowhere/*.png: no image files match"),
        ((weights, "-", "-"), "-: is given twice"),
        ((weights, photos, "--format", "xml"), "--format xml: is unknown; choose one of table, jsonl, csv"),
        ((weights, photos, "--out", photos), "is not a file and is not replaced"),
        ((weights, photos, "--out", tmp_path / "no" / "rows.csv"), "there is no such folder"),
        ((weights, photos, "--threshold", "inf"), "--threshold inf"),
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


def test_resnet20_on_cifar10(srood_data, tmp_path, monkeypatch):
    scores = []

    def recorded(*args):  # the real threshold, from the scores of one forward pass over 10,000 images
        scores.append(args[0])
        return choose_threshold(*args)

    monkeypatch.setattr("train.calibrate.choose_threshold", recorded)
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
