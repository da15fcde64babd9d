"""Evaluation against an independent computation with NumPy and scikit-learn."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from digits_images import digits, write_digits, write_parquet
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from srood.errors import InputError
from srood.models import build_model
from srood.models.weights import WeightsInfo, load_model, save_weights
from train.commands.evaluation import print_evaluation
from train.config import PretrainConfig
from train.evaluation.compare_plots import plot_accuracy, plot_rocs, plot_score_grid
from train.evaluation.evaluate import evaluate
from train.evaluation.outputs import forward
from train.evaluation.plots import plot_histograms, plot_roc
from train.evaluation.score_files import read_scores
from train.pretrain import pretrain


@pytest.fixture(scope="module")
def id_set(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def ood(tmp_path_factory) -> str:
    images, labels = digits()
    inverted = 255 - images[:60].transpose(0, 2, 1, 3)
    return str(write_parquet(tmp_path_factory.mktemp("ood") / "inverted.parquet", inverted, labels[:60]))


@pytest.fixture(scope="module")
def run(tmp_path_factory, id_set) -> Path:
    config = PretrainConfig(id=str(id_set), model="resnet20", batch_size=32, epochs=2, device="cpu")
    return pretrain(config, tmp_path_factory.mktemp("runs") / "run")


def _by_hand(id_outputs, ood_outputs) -> dict[str, dict[str, float]]:
    """Every metric of the default scores, from logits and features, (N, C) and (N, D)."""

    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    functions = {
        "energy": lambda z, f: -np.log(np.exp(z).sum(1)),
        "msp": lambda z, f: -softmax(z).max(1),
        "max-logit": lambda z, f: -z.max(1),
        "sparsity": lambda z, f: -(f**2).sum(1) / f.sum(1),
    }
    truth = np.r_[np.zeros(len(id_outputs[0])), np.ones(len(ood_outputs[0]))]
    result = {}
    for name, function in functions.items():
        scores = np.r_[function(*id_outputs), function(*ood_outputs)]
        fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
        result[name] = {
            "fpr95": fpr[np.argmax(tpr >= 0.95)],
            "auroc": roc_auc_score(truth, scores),
            "aupr_in": average_precision_score(1 - truth, -scores),
            "aupr_out": average_precision_score(truth, scores),
            "detection_error": np.min((1 - tpr + fpr) / 2),
        }
    return result


def _ece_by_hand(logits: np.ndarray, labels: np.ndarray) -> float:
    confidence = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    correct = logits.argmax(1) == labels
    total = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def _aurc_by_hand(scores: np.ndarray, correct: np.ndarray) -> float:
    wrong = ~correct[np.argsort(scores)]
    return float(np.mean([wrong[: n + 1].mean() for n in range(len(wrong))]))


def _decode(path: Path, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Short side to 32 and centre crop, written anew with Pillow alone."""
    table = pq.read_table(path)
    images = []
    for entry in table["image"].to_pylist()[:limit]:
        image = Image.open(io.BytesIO(entry["bytes"])).convert("RGB")
        if image.size != (32, 32):
            scale = 32 / min(image.size)
            w, h = (round(side * scale) for side in image.size)
            image = image.resize((w, h), Image.Resampling.BILINEAR)
            image = image.crop(((w - 32) // 2, (h - 32) // 2, (w - 32) // 2 + 32, (h - 32) // 2 + 32))
        images.append(np.asarray(image))
    return np.stack(images), table["label"].to_numpy()[:limit]


def _outputs(weights: Path, images: np.ndarray, mean, std) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features: maps averaged over space, and the last layer written out."""
    model = load_model(weights)[0].eval()
    x = ((images / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        features = torch.cat([model.maps(part).mean((2, 3)) for part in torch.from_numpy(x).split(250)])
        logits = features @ model.fc.weight.T + model.fc.bias
    return logits.double().numpy(), features.double().numpy()


def test_metrics_against_an_independent_computation(run, ood, id_set):
    result = evaluate(run, [ood], device="cpu")
    info = load_model(run / "model.safetensors")[1]
    pixels, labels = _decode(id_set / "test.parquet")
    of_id = _outputs(run / "model.safetensors", pixels, info.mean, info.std)
    of_ood = _outputs(run / "model.safetensors", _decode(Path(ood))[0], info.mean, info.std)
    correct = of_id[0].argmax(1) == labels
    assert result["id_accuracy"] == result["id"]["accuracy"] == np.mean(correct)
    assert result["id"]["ece"] == pytest.approx(_ece_by_hand(of_id[0], labels), abs=1e-3)
    energies = -np.log(np.exp(of_id[0]).sum(1))
    assert result["id"]["aurc"]["energy"] == pytest.approx(_aurc_by_hand(energies, correct), abs=1e-3)
    expected = _by_hand(of_id, of_ood)
    assert list(expected) == list(result["ood"][ood]["scores"])
    for score, metrics in expected.items():
        assert result["ood"][ood]["scores"][score] == pytest.approx(metrics, abs=1e-3)
    assert result["mean"] == result["ood"][ood]["scores"]  # of one set


def test_the_scores_of_each_image_are_kept_in_the_order_of_the_images(run, ood, id_set, tmp_path):
    evaluate(run, [ood], device="cpu", out=tmp_path)
    info = load_model(run / "model.safetensors")[1]
    for spec, path in (("", id_set / "test.parquet"), (ood, Path(ood))):
        logits, features = _outputs(run / "model.safetensors", _decode(path)[0], info.mean, info.std)
        energies = read_scores(tmp_path / "eval-scores.npz", "energy")[spec]
        assert energies.dtype == np.float32
        np.testing.assert_allclose(energies, -np.log(np.exp(logits).sum(1)), atol=1e-4)
        sparsity = read_scores(tmp_path / "eval-scores.npz", "sparsity")[spec]
        np.testing.assert_allclose(sparsity, -(features**2).sum(1) / features.sum(1), atol=1e-4)


def test_mean_and_std_of_an_unnamed_set_are_those_of_its_training_pixels(run, id_set):
    pixels = _decode(id_set / "train.parquet")[0].reshape(-1, 3) / 255
    info = load_model(run / "model.safetensors")[1]
    np.testing.assert_allclose(info.mean, pixels.mean(0), atol=1e-5)
    np.testing.assert_allclose(info.std, pixels.std(0), atol=1e-5)


def test_files_written_say_the_same_twice(run, ood, id_set, tmp_path):
    other = str(id_set / "train.parquet")
    for name in ("a", "b"):
        evaluate(run, [ood, other], out=tmp_path / name, convention="id-positive", device="cpu")
    names = {"eval.json", "eval.csv", "eval-scores.npz", "eval-scores.png", "eval-roc.png"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    document = json.loads((tmp_path / "a" / "eval.json").read_text())
    assert document["convention"]["name"] == "id-positive"
    rows = list(csv.DictReader((tmp_path / "a" / "eval.csv").open()))
    assert [(row["ood"], row["score"]) for row in rows] == [
        (spec, score) for spec in (ood, other, "mean") for score in ("energy", "msp", "max-logit", "sparsity")
    ]
    first, second, mean = (float(rows[i]["auroc"]) for i in (0, 4, 8))
    assert mean == pytest.approx((first + second) / 2)
    assert first == document["ood"][ood]["scores"]["energy"]["auroc"]
    for plot in ("eval-scores.png", "eval-roc.png"):
        assert min(Image.open(tmp_path / "a" / plot).size) >= 400


def test_a_dollar_in_a_name_is_drawn_as_it_is(tmp_path):
    scores = {name: np.arange(5.0) for name in ("plain", "a$_$b")}
    for number, name in enumerate(scores):
        plot_histograms(np.arange(9.0), {name: scores[name]}, name, tmp_path / f"scores-{number}.png")
        plot_roc(np.arange(9.0), {name: scores[name]}, name, tmp_path / f"roc-{number}.png")
        pairs = {name: {name: [(np.arange(9.0), scores[name])]}}
        plot_rocs(pairs, {name: {name: 0.5}}, 0.95, tmp_path / f"rocs-{number}.png")
        plot_score_grid(pairs, tmp_path / f"grid-{number}.png")
        plot_accuracy({name: (0.9, None, 0.8, None)}, name, tmp_path / f"accuracy-{number}.png")
    assert len(list(tmp_path.iterdir())) == 10


def test_the_table_shows_what_was_measured(run, ood, capsys):
    result = evaluate(run, [ood], device="cpu")
    print_evaluation(result)
    text = capsys.readouterr().out
    energy = result["ood"][ood]["scores"]["energy"]
    for value in (*energy.values(), result["id_accuracy"]):
        assert f"{100 * value:.2f}" in text
    assert "ood-positive" in text
    assert "on 100 images" in text


def test_what_cannot_be_evaluated_is_refused_before_any_forward_pass(run, ood, id_set, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluation.passes.forward", None)  # calling it would be a TypeError
    weights = run / "model.safetensors"
    cases = [
        (run, [ood, "no-such-set"], {}, "no-such-set"),
        (run, [], {}, "--ood"),
        (run, [ood, ood], {}, "given twice"),
        (run, [ood], {"convention": "both"}, "--convention both"),
        (run, [ood], {"model": "wrn-40-2"}, "leave out --model and --id"),
        (run, [ood], {"device": "gpu"}, "--device gpu"),
        (run, [ood], {"precision": "8"}, "--precision 8"),
        (run, [ood], {"scores": ["enrgy"]}, "--score enrgy: is unknown; did you mean energy"),
        (run, [ood], {"protocol": "openood"}, "--protocol openood: is unknown; choose paper"),
        (run, [ood], {"tpr": 95}, "--tpr 95: is not a share"),
        (run, [ood], {"draws": 1}, "--draws 1: give 2 or more"),
        (run, [ood], {"draws": -3}, "--draws -3: give 2 or more"),
        (run, [ood], {"draw_size": 9}, "--draw-size 9: needs --draws"),
        (run, [ood], {"draws": 3, "draw_size": 0}, "--draw-size 0: give 1 or more"),
        (run, [ood], {"draws": 3, "draw_seed": -1}, "--draw-seed -1"),
        (run, ["openood"], {}, "--ood openood: has no sets for the ID set"),
        (run, [ood], {"out": weights}, "is a file; name a folder"),
        (run, [ood], {"out": weights / "sub"}, "--out .*sub: cannot be made, for .*model.safetensors is a file"),
        (run, [ood], {"draw_seed": 0}, "--draw-seed 0: needs --draws"),
        (tmp_path / "nothing", [ood], {}, "no such run folder or weights file"),
        (tmp_path, [ood], {}, "is not a run folder"),
        (weights, [ood], {"model": "wrn-40-2"}, "holds weights of resnet20, not of wrn-40-2"),
        (weights, [ood], {"id_set": str(id_set / "nothing")}, "neither a named set"),
    ]
    for path, specs, options, message in cases:
        with pytest.raises(InputError, match=message):
            evaluate(path, specs, **options)


def test_a_copy_of_an_ood_set_is_refused(run, ood, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluation.passes.forward", None)  # calling it would be a TypeError
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(Path(ood).read_bytes())
    with pytest.raises(InputError, match=r"inverted\.parquet and .*copy\.parquet are the same images; give one"):
        evaluate(run, [ood, str(copy)], device="cpu", cache=False)


@pytest.mark.parametrize(("part", "scores"), [("test", ["energy"]), ("train", ["knn"])])
def test_id_images_are_no_ood_set(run, ood, id_set, monkeypatch, part, scores):
    monkeypatch.setattr("train.evaluation.passes.forward", None)
    own = str(id_set / f"{part}.parquet")
    with pytest.raises(
        InputError, match=rf"--ood .*{part}\.parquet: holds the ID images of .*{part}\.parquet; leave it out"
    ):
        evaluate(run, [ood, own], scores=scores, device="cpu", cache=False)


def test_a_weights_file_of_other_classes_is_refused(id_set, ood, tmp_path):
    nine = tmp_path / "nine.safetensors"
    save_weights(nine, build_model("resnet20", 9).state_dict(), WeightsInfo("resnet20"))
    with pytest.raises(InputError, match=r"nine\.safetensors: has 9 classes, .*test\.parquet has 10"):
        evaluate(nine, [ood], id_set=str(id_set))
    named = tmp_path / "named.safetensors"
    info = WeightsInfo("resnet20", class_names=tuple("012345678x"))
    save_weights(named, build_model("resnet20", 10).state_dict(), info)
    with pytest.raises(InputError, match=r"trained on other classes.*'x' where that has '9'"):
        evaluate(named, [ood], id_set=str(id_set))
    bare = tmp_path / "bare.safetensors"
    save_file(build_model("resnet20", 10).state_dict(), bare)
    with pytest.raises(InputError, match="gives the mean and std"):
        evaluate(bare, [ood], model="resnet20", id_set=str(id_set))


def test_training_images_whose_classes_have_other_names_are_refused(ood, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluation.passes.forward", None)  # calling it would be a TypeError
    images, _ = digits()
    weights = tmp_path / "bare.safetensors"
    info = WeightsInfo("resnet20", mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
    save_weights(weights, build_model("resnet20", 10).state_dict(), info)
    shifted = tmp_path / "shifted"
    for part, letters in (("train", "bcdefghijk"), ("test", "abcdefghij")):
        for letter, image in zip(letters, images, strict=False):
            (shifted / part / letter).mkdir(parents=True)
            Image.fromarray(image).save(shifted / part / letter / "0.png")
    with pytest.raises(InputError, match=r"shifted/train: has other classes than .*/test \('b' where that has 'a'\)"):
        evaluate(weights, [ood], id_set=str(shifted), scores=["react"], device="cpu")


def test_resnet20_on_cifar10_against_numpy_and_scikit_learn(srood_data, tmp_path, monkeypatch):
    outputs = []

    def recorded(*args):  # the real forward pass over 11,200 images, once
        outputs.append(forward(*args))
        return outputs[-1]

    monkeypatch.setattr("train.evaluation.passes.forward", recorded)
    weights = srood_data / "models" / "resnet20-cifar10.safetensors"
    sets = {"cifar10:test": "cifar10", "textures": "textures"}
    options = {"model": "resnet20", "id_set": "cifar10", "out": tmp_path, "device": "cpu"}
    result = evaluate(weights, ["textures"], **options)

    for got, folder in zip(outputs, sets.values(), strict=True):
        pixels = _decode(srood_data / folder / "test.parquet", limit=300)[0]
        expected = _outputs(weights, pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        for values, wanted in zip(got, expected, strict=True):
            np.testing.assert_allclose(values[:300], wanted, atol=1e-3)
    of_id, part = ([part.double().numpy() for part in each] for each in outputs)
    labels = pq.read_table(srood_data / "cifar10" / "test.parquet")["label"].to_numpy()
    correct = of_id[0].argmax(1) == labels
    assert result["id_accuracy"] == np.mean(correct)
    assert 100 * result["id_accuracy"] == pytest.approx(91.73, abs=0.02)
    assert result["id"]["ece"] == pytest.approx(_ece_by_hand(of_id[0], labels), abs=1e-9)
    assert result["ood"]["textures"]["images"] == len(part[0])
    for score, metrics in _by_hand(of_id, part).items():
        # a softmax of 1 - 1e-16 is rounded this way or that
        tolerance = 1e-5 if score == "msp" else 1e-9
        assert result["ood"]["textures"]["scores"][score] == pytest.approx(metrics, abs=tolerance)
    energy = result["ood"]["textures"]["scores"]["energy"]
    assert 100 * energy["fpr95"] == pytest.approx(38.94, abs=0.1)  # on this or another processor
    assert 100 * energy["auroc"] == pytest.approx(89.92, abs=0.02)


def test_a_test_set_without_the_last_class_can_be_evaluated(run, ood, id_set, tmp_path):
    images, labels = digits()
    keep = labels[-100:] < 9
    copy = write_digits(tmp_path / "digits")
    write_parquet(copy / "test.parquet", images[-100:][keep], labels[-100:][keep])
    result = evaluate(run / "model.safetensors", [ood], id_set=str(copy), out=tmp_path / "out", device="cpu")
    assert (result["id"]["classes"], result["id"]["images"]) == (10, int(keep.sum()))


def test_training_images_of_other_classes_are_refused_where_a_score_is_fitted_to_them(run, ood, tmp_path):
    images, labels = digits()
    copy = write_digits(tmp_path / "digits")
    labels = np.where(np.arange(50) == 7, 10, labels[:50])  # an eleventh class
    write_parquet(copy / "train.parquet", images[:50], labels)
    options = {"id_set": str(copy), "out": tmp_path / "out", "device": "cpu"}
    with pytest.raises(InputError, match=r"has 10 classes, .*train\.parquet has 11"):
        evaluate(run / "model.safetensors", [ood], scores=["react"], **options)
    assert "energy" in evaluate(run / "model.safetensors", [ood], **options)["mean"]
