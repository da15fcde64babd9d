"""The detector in Python against a forward pass by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import CLASSES, logits_by_hand, normalised, settled, write_calibrated, write_png, write_weights
from digits_images import digits
from PIL import Image
from safetensors.torch import save_file

import srood
from srood.datasets import load_images
from srood.detector import load_detector
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.images import decode_to_size
from srood.models import build_model
from srood.scores import SCORES

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
    return write_calibrated(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return digits()[0][300:340]


@pytest.mark.parametrize("score", SCORES)
def test_predictions_by_hand(tmp_path, images, score):
    detector = srood.load_detector(write_calibrated(tmp_path, score=score), device="cpu")
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
    assert np.array_equal(found.is_ood, found.scores > detector.calibration.threshold)
    assert 0 < found.is_ood.sum() < len(images) == len(found)
    assert (detector.classes, detector.score_name) == (CLASSES, score)
    assert detector.image_size == 32


def test_every_form_of_image_gives_the_same(weights, images, tmp_path):
    detector = load_detector(weights, "cpu")
    expected = detector.predict(images[:4])
    files = [write_png(tmp_path / f"{number}.png", image) for number, image in enumerate(images[:4])]
    mixed = [str(files[0]), files[1], Image.open(files[2]), images[3]]
    for form in (list(images[:4]), files, mixed, tuple(map(str, files))):
        assert np.array_equal(detector.predict(form).logits, expected.logits)
    turned = images[:4, ..., ::-1]  # a view of BGR, as OpenCV's users make it
    assert np.array_equal(detector.predict(turned).logits, detector.predict(turned.copy()).logits)
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
    files = [write_png(tmp_path / "set" / f"{number}.png", image) for number, image in enumerate(large)]
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
    with pytest.raises(ValueError, match="batch_size is -1; one image or more"):
        detector.predict(images, batch_size=-1)
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
