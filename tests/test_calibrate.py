"""Thresholds and their intervals by hand, by brute force and by simulation; which images they are fixed on."""

from __future__ import annotations

import inspect
import math
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from detectors import logits_by_hand, settled, write_run, write_weights
from digits_images import digits, write_digits
from scipy.stats import kstest

from srood.calibration import Calibration
from srood.datasets import content_fingerprint, load_images
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.metrics import fpr_at_tpr
from train import cli
from train.commands import detection
from train.detection.calibrate import calibrate
from train.detection.detect import detect
from train.detection.export import export
from train.detection.thresholds import choose_threshold, images_needed, threshold_ranks
from train.id_sets import validation_split


def _at_most(count: int, share: float, most: int) -> float:
    """P(B <= most) for B ~ Binomial(count, share), term by term."""
    return math.fsum(math.comb(count, b) * share**b * (1 - share) ** (count - b) for b in range(most + 1))


def test_the_threshold_of_a_hundred_scores_by_hand():
    scores = np.random.default_rng(0).permutation(100) / 10
    found = choose_threshold(scores, 0.95)
    assert (found.threshold, found.order_statistic, found.accepted) == (9.4, 95, 95)
    # the share accepted is Beta(95, 6): P(share <= x) = P(Binomial(100, x) >= 95)
    low, high = found.acceptance_interval
    assert 1 - _at_most(100, low, 94) == pytest.approx(0.025, abs=1e-9)
    assert 1 - _at_most(100, high, 94) == pytest.approx(0.975, abs=1e-9)
    # ranks 90 and 99: P(B < 90) = 0.0115 but P(B < 91) = 0.0282; P(B >= 99) = 0.0371 but P(B >= 100) = 0.0059
    assert threshold_ranks(100, 0.95) == (90, 100)
    assert found.threshold_interval == (8.9, 9.9)


@pytest.mark.parametrize("tpr", [0.05, 0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("confidence", [0.8765, 0.95])
def test_ranks_by_brute_force(tpr, confidence):
    tail = (1 - confidence) / 2
    for count in (*range(1, 40), 72, 101, 400):
        lower, upper = threshold_ranks(count, tpr, confidence)
        assert lower == max(r for r in range(count + 1) if r == 0 or _at_most(count, tpr, r - 1) <= tail)
        expected = next((r for r in range(1, count + 1) if 1 - _at_most(count, tpr, r - 1) <= tail), count + 1)
        assert upper == expected
        assert (lower >= 1 and upper <= count) == (count >= images_needed(tpr, confidence))


def test_the_order_statistic_is_the_first_that_accepts_the_share_and_that_of_the_id_positive_convention():
    rng = np.random.default_rng(1)
    for tpr in (0.8, 0.9, 0.95, 0.07):
        for count in (80, 99, 100, 120, 137):
            inside, outside = rng.normal(size=count), rng.normal(1, 1, size=500)
            found = choose_threshold(inside, tpr)
            share = Fraction(str(tpr))
            assert found.order_statistic == next(k for k in range(count + 1) if Fraction(k, count) >= share)
            assert found.threshold == np.sort(inside)[found.order_statistic - 1]
            assert np.mean(outside <= found.threshold) == fpr_at_tpr(inside, outside, tpr, "id-positive")


def test_ties_are_accepted_together():
    found = choose_threshold([0.0] * 60 + [1.0] * 20 + [2.0] * 20, 0.7)
    assert (found.threshold, found.order_statistic, found.accepted) == (1.0, 70, 80)


def test_intervals_hold_what_they_promise_over_many_draws():
    rng = np.random.default_rng(2)
    count, tpr, draws = 120, 0.9, 2000
    scores = rng.exponential(size=(draws, count))
    found = [choose_threshold(row, tpr) for row in scores]
    quantile = -math.log(1 - tpr)
    covered = np.mean([low <= quantile <= high for low, high in (f.threshold_interval for f in found)])
    lower, upper = threshold_ranks(count, tpr)
    exact = _at_most(count, tpr, upper - 1) - _at_most(count, tpr, lower - 1)
    assert exact >= 0.95
    assert covered == pytest.approx(exact, abs=4 * math.sqrt(0.05 * 0.95 / draws))
    shares = 1 - np.exp(-np.array([f.threshold for f in found]))  # of the distribution, that each threshold accepts
    low, high = found[0].acceptance_interval
    inside = np.mean((low <= shares) & (shares <= high))
    assert inside == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / draws))
    assert kstest(shares, "beta", (found[0].order_statistic, count - found[0].order_statistic + 1)).pvalue > 0.001


def test_too_few_scores():
    assert (images_needed(0.95), images_needed(0.99), images_needed(0.5)) == (72, 368, 6)  # 0.95^72 = 0.0249
    choose_threshold(np.arange(72), 0.95)
    with pytest.raises(ValueError, match="71 scores are too few for a share of 0.95; 72 are needed"):
        choose_threshold(np.arange(71), 0.95)
    with pytest.raises(ValueError, match="not finite"):
        choose_threshold([math.nan] * 100, 0.95)
    for tpr in (0, 1, -0.5, 95, math.nan):
        with pytest.raises(InputError, match="--tpr .* is not between 0 and 1"):
            images_needed(tpr)


@pytest.fixture(scope="module")
def id_set(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), train=120, test=100)


@pytest.fixture
def run(tmp_path, id_set) -> Path:
    return write_run(tmp_path / "run", id_set)


def test_a_run_is_calibrated_on_the_test_images_and_says_so(run, id_set, capsys):
    record, file = calibrate(run, tpr=0.9, device="cpu")
    spec = str(id_set / "test.parquet")
    assert f"calibrating on the ID test images, {spec}" in capsys.readouterr().err
    logits = logits_by_hand(settled("resnet20"), digits()[0][-100:])
    energy = np.sort(-np.log(np.exp(logits).sum(axis=1)))
    assert record.threshold == pytest.approx(energy[89], abs=1e-4)
    assert record.threshold_interval == pytest.approx([energy[r - 1] for r in threshold_ranks(100, 0.9)], abs=1e-4)
    assert (record.order_statistic, record.accepted, record.tpr, record.confidence) == (90, 90, 0.9, 0.95)
    assert (record.score, record.model, record.id, record.image_size) == ("energy", "resnet20", str(id_set), 32)
    assert record.class_names == tuple("0123456789")
    assert record.weights_sha256 == file_sha256(run / "model.safetensors")
    assert record.images.fingerprint == load_images(spec).fingerprint
    assert (record.images.spec, record.images.count, record.images.what) == (spec, 100, "test images of the ID set")
    assert file == run / "detector.json"
    assert Calibration.model_validate_json(file.read_text()) == record
    assert not list(run.glob("*.partial"))


def test_other_scores_and_images(run, tmp_path, capsys):
    other = tmp_path / "other.npy"
    images = digits()[0][400:500]
    np.save(other, images)
    record, _ = calibrate(run, tpr=0.9, score="msp", images=str(other), device="cpu")
    assert capsys.readouterr().err == ""
    logits = logits_by_hand(settled("resnet20"), images)
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    msp = np.sort(-(exponential / exponential.sum(axis=1, keepdims=True)).max(axis=1))
    assert record.threshold == pytest.approx(msp[89], abs=1e-5)
    assert (record.images.spec, record.images.what) == (str(other), "images given by --images")


def test_a_weights_file_has_its_record_beside_it(tmp_path, id_set, capsys):
    weights = write_weights(tmp_path / "net.v2.safetensors", dataset=str(id_set))
    with pytest.raises(InputError, match=r"trained on other classes .*'digit 0' where that has '0'"):
        calibrate(weights, device="cpu")
    np.save(tmp_path / "held-out.npy", digits()[0][500:600])
    record, file = calibrate(weights, images=str(tmp_path / "held-out.npy"), device="cpu")
    assert file == tmp_path / "net.v2.detector.json"
    assert record.class_names[3] == "digit 3"
    # nothing is known of the ID set here: that is said, and the images are taken
    moved = write_weights(tmp_path / "moved.safetensors", dataset="nowhere")
    capsys.readouterr()
    assert calibrate(moved, images=str(tmp_path / "held-out.npy"), device="cpu")[0].threshold == record.threshold
    assert "could not be compared with the training images (--id nowhere" in capsys.readouterr().err


def test_training_images_are_refused(run, id_set, tmp_path):
    train = id_set / "train.parquet"
    shutil.copy(train, tmp_path / "copy.parquet")
    np.save(tmp_path / "pixels.npy", digits()[0][:120])  # the same images in another format
    for spec in (train, tmp_path / "copy.parquet", tmp_path / "pixels.npy"):
        with pytest.raises(InputError, match=r"are the images that the classifier was trained on"):
            calibrate(run, images=str(spec), device="cpu")
    assert not (run / "detector.json").exists()


def test_what_cannot_be_calibrated_leaves_the_old_record(run, id_set, tmp_path, monkeypatch):
    before = calibrate(run, tpr=0.9, device="cpu")[1].read_bytes()
    monkeypatch.setattr("train.detection.calibrate.scorer", None)  # no forward pass: calling it would be a TypeError
    np.save(tmp_path / "ten.npy", digits()[0][-10:])
    cases = [
        ({"tpr": 0.99, "images": str(tmp_path / "ten.npy")}, r"ten\.npy: 10 images are too few .* fewer than 368"),
        ({"tpr": 1.0}, "--tpr 1: is not between 0 and 1"),
        ({"score": "mahalanobis"}, "--score mahalanobis: cannot be part of a detector"),
        ({"images": "nowhere"}, "nowhere: no such file"),
        ({"device": "gpu"}, "--device gpu"),
        ({"model": "wrn-40-2"}, "leave out --model and --id"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            calibrate(run, **options)
    assert (run / "detector.json").read_bytes() == before
    with pytest.raises(InputError, match="give --id"):
        calibrate(write_weights(tmp_path / "w.safetensors", dataset=None))  # type: ignore[arg-type]
    whole = write_run(tmp_path / "whole", id_set / "train.parquet")  # an ID set of one file
    with pytest.raises(InputError, match="held no images out and .* has no test images; give --images"):
        calibrate(whole)
    (run / "model.safetensors").unlink()
    with pytest.raises(InputError, match="this run is not finished"):
        calibrate(run)


def test_a_run_with_a_validation_split_is_calibrated_on_it(tmp_path, id_set, capsys):
    run = write_run(tmp_path / "run", id_set, validation=0.25, seed=3)
    record, _ = calibrate(run, tpr=0.5, device="cpu")
    assert capsys.readouterr().err == ""
    images, labels = digits()
    rows = validation_split(labels[:120], 0.25, 3)[1]
    logits = logits_by_hand(settled("resnet20"), images[rows])
    energy = np.sort(-np.log(np.exp(logits).sum(axis=1)))
    assert record.images.count == len(rows) < 40
    assert record.threshold == pytest.approx(energy[math.ceil(len(rows) / 2) - 1], abs=1e-4)
    assert record.images.spec == f"{id_set / 'train.parquet'} (validation split)"
    assert record.images.what == "validation split of the run: 0.25 of the training images, seed 3"
    assert record.images.fingerprint == content_fingerprint(images[rows])


def test_a_split_that_the_starting_weights_may_have_seen_is_not_used(tmp_path, id_set, capsys):
    run = write_run(tmp_path / "run", id_set, unseen=False, validation=0.25)
    record, _ = calibrate(run, tpr=0.5, device="cpu")
    assert record.images.spec == str(id_set / "test.parquet")
    err = capsys.readouterr().err
    assert "its validation split is not used" in err and "calibrating on the ID test images" in err


def test_a_split_of_other_images_is_refused(tmp_path, id_set):
    copied = tmp_path / "digits"
    shutil.copytree(id_set, copied)
    run = write_run(tmp_path / "run", copied, validation=0.25)
    write_digits(copied, train=100, test=100)
    with pytest.raises(InputError, match=r"train\.parquet: its images are not those that .*run was started with"):
        calibrate(run, tpr=0.5, device="cpu")


def test_defaults_of_the_commands_are_those_of_the_functions():
    for command, function in ((detection.calibrate, calibrate), (detection.detect, detect), (detection.export, export)):
        ours, theirs = (inspect.signature(f).parameters for f in (command, function))
        shared = set(ours) & set(theirs) - {"images", "path"}
        assert shared >= {"device", "batch_size"} or function is export
        assert all(ours[name].default == theirs[name].default for name in shared)


def test_the_command(run, monkeypatch, capfd):
    def srood(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["srood", "calibrate", *map(str, arguments), "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capfd.readouterr())

    code, out, _ = srood(run, "--tpr", 0.9, "--json")
    record = Calibration.model_validate_json(out)
    assert code == 0 and record.tpr == 0.9
    code, out, _ = srood(run, "--tpr", 0.9)
    assert code == 0
    assert f"threshold of energy: {record.threshold:.6g}" in out and "accepts 90 of 100 images" in out
    low, high = record.acceptance_interval
    assert f"{100 * low:.2f} % to {100 * high:.2f} % of images like these (95 % interval)" in out
    assert f"written to {run / 'detector.json'}" in out
    code, out, err = srood(run, "--tpr", 1.5)
    assert (code, out) == (2, "") and err.startswith("error: --tpr 1.5")
