"""What the switches of `srood train` change: the paper's protocol, several sets, reselection, held-out images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from digits_images import write_digits, write_training_files
from safetensors.torch import load_file

from srood.datasets import load_images
from srood.errors import InputError
from srood.methods import METHODS
from srood.models.weights import load_model
from srood.outliers import OutlierSet
from train import batches, inference, steps
from train.config import PAPER_PROTOCOL, TuneConfig, outlier_weight, paper_protocol, read_config, reselection
from train.devices import make_fabric
from train.id_sets import validation_split
from train.pretrain import pretrain
from train.runs import find_pretrained
from train.steps import Stepper
from train.training_images import training_images
from train.tune import resume, tune

SMALL = {"model": "resnet20", "device": "cpu", "precision": "32-true", "batch_size": 16, "outlier_batch_size": 12}
MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, object]:
    return write_training_files(tmp_path_factory.mktemp("files"), 60, MEAN, STD)


def _stepper(files, **settings) -> tuple[Stepper, object]:
    config = TuneConfig(**{**SMALL, **files, **settings}, method_options={"alpha": 0.02, "beta": 0.5})
    images = load_images(f"{files['id']}/train.parquet", 16)
    data = training_images(config, images, [OutlierSet.open(path) for path in config.outliers])
    model = load_model(files["checkpoint"])[0]
    fabric = make_fabric(torch.device("cpu"), "32-true")
    return Stepper(fabric, config, data, model, (MEAN, STD)), data.plan(config)


def _batch(files, monkeypatch, **settings) -> torch.Tensor:
    """What the network is given in the first step."""
    stepper, plan = _stepper(files, **settings)
    seen = []
    stepper.classifier.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    stepper.take(0, plan.rows(0), 0.001)
    return seen[0]


def _expected(files, id_padding: int, outlier_padding: int, mean, std, stored: bool) -> torch.Tensor:
    images = torch.from_numpy(load_images(f"{files['id']}/train.parquet", 16).images)
    noise = torch.from_numpy(OutlierSet.open(files["outliers"]).read_images())
    order = batches.permutation(60, 0, batches.ID_ORDER, 0)[:16]
    drawn = torch.arange(12) if stored else batches.permutation(50, 0, batches.OUTLIER_ORDER, 0, 0, 0)[:12]
    x = batches.augment(images[order], id_padding, 0, batches.ID_AUGMENTATION, 0).numpy() / 255
    o = batches.augment(noise[drawn], outlier_padding, 0, batches.OUTLIER_AUGMENTATION, 0).numpy() / 255
    both = np.concatenate([(x - MEAN) / STD, (o - mean) / std])
    return torch.from_numpy(both.transpose(0, 3, 1, 2)).float()


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("settings", "id_padding", "outlier_padding", "scaling", "stored"),
    [
        ({}, 4, 4, (MEAN, STD), False),
        ({"crop_padding": 0}, 0, 0, (MEAN, STD), False),
        ({"outlier_crop_padding": 8}, 4, 8, (MEAN, STD), False),
        ({"outlier_normalisation": "imagenet"}, 4, 4, IMAGENET, False),
        ({"outlier_order": "stored"}, 4, 4, (MEAN, STD), True),
        ({"crop_padding": 0, "outlier_crop_padding": 8}, 0, 8, (MEAN, STD), False),
    ],
)
def test_switches_of_the_batch(files, monkeypatch, settings, id_padding, outlier_padding, scaling, stored):
    got = _batch(files, monkeypatch, **settings)
    torch.testing.assert_close(
        got, _expected(files, id_padding, outlier_padding, *scaling, stored), rtol=1e-4, atol=1e-4
    )


def test_the_protocol_of_the_papers_code_is_all_its_switches(files, tmp_path):
    assert PAPER_PROTOCOL == {
        "sparsity_on": "all",
        "crop_padding": 0,
        "outlier_crop_padding": 8,
        "outlier_normalisation": "imagenet",
        "outlier_order": "stored",
        "epoch_ends_with": "shorter",
    }
    run = tune(TuneConfig(**SMALL, **files, **PAPER_PROTOCOL, epochs=2), tmp_path / "paper")
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 8  # 60 ID images make four steps of 16, 50 outliers five of 12: the ID images are fewer
    assert read_config(run).method_options == {"alpha": 0.02, "beta": 0.5, "outlier_sparsity": 1}
    short = tune(TuneConfig(**{**SMALL, "outlier_batch_size": 20}, **files, **PAPER_PROTOCOL), tmp_path / "short")
    assert json.loads((short / "run.json").read_text())["steps_per_epoch"] == 3  # 20 + 20 + 10


def test_sparsity_on_all_counts_the_features_of_outliers(files, tmp_path):
    model = load_model(files["checkpoint"])[0].train()
    with torch.no_grad():
        features = model.features(_expected(files, 4, 4, MEAN, STD, False))
    for where, rows in (("id", features[:16]), ("all", features)):
        config = TuneConfig(**SMALL, **files, max_steps=1, sparsity_on=where)
        line = json.loads((tune(config, tmp_path / where) / "metrics.jsonl").read_text())
        assert line["sparsity"] == pytest.approx(rows.sum(1).mean().item(), rel=1e-5)
        total = line["cross_entropy"] + 0.02 * line["sparsity"] + 0.5 * line["outlier_exposure"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_logs_its_terms(files, tmp_path, method):
    given = files if METHODS[method].outliers else {**files, "outliers": ()}
    beta = 0.3 if "beta" in METHODS[method].options else None
    run = tune(TuneConfig(**SMALL, **given, method=method, max_steps=2, beta=beta), tmp_path / "run")
    config = read_config(run)
    assert config.workflow == method and set(config.method_options) == set(METHODS[method].options)
    assert config.method_options.get("beta", 0.3) == 0.3
    line = json.loads((run / "metrics.jsonl").read_text())
    assert {"loss", "cross_entropy", "sparsity", "id_accuracy"} <= set(line)
    start, end = load_file(files["checkpoint"]), load_file(run / "model.safetensors")
    assert not torch.equal(start["conv1.weight"], end["conv1.weight"])


def test_outliers_and_methods_that_do_not_fit_are_refused(files, tmp_path):
    cases = [
        ({"method": "oe", "outliers": ()}, r"--method oe: needs outliers; give --outliers"),
        ({"method": "ce"}, r"--outliers: method ce uses none; leave it out, or choose one of sroe, oe"),
        ({"method": "sgd"}, r"--method sgd: no such method; choose one of sr, sroe"),
        ({"method": "oe", "alpha": 0.1}, r"--alpha: method oe has no such option; its options: beta"),
        ({"method": "oe", "sparsity_on": "all"}, r"--sparsity-on all: method oe has no"),
        (
            {"sparsity_on": "all", "method_options": {"outlier_sparsity": 0}},
            r"--method-option outlier_sparsity: is given by --sparsity-on too; give it once",
        ),
        ({"reselect": "energy:0.6-0.1"}, r"--reselect energy:0\.6-0\.1: write SCORE:LOW-HIGH"),
        ({"reselect": "nothing:0.1-0.6"}, r"--reselect nothing:0\.1-0\.6: no such score; choose one of energy"),
        ({"reselect": "energy:0.1-0.6", "outliers": ()}, r"--reselect energy:0\.1-0\.6: there are no outliers"),
        ({"outliers": (files["outliers"], f"{files['outliers']}:0.5")}, r"is the same set as"),
        ({"outliers": f"{files['outliers']}:0"}, r"the weight after the colon must be above zero"),
        ({"method": "oe", "beta": 0.1, "method_options": {"beta": 1.0}}, r"--method-option beta: is given by"),
        ({"outliers": (), "batch_norm": "id"}, r"--batch-norm: there are no outliers that it could act on"),
        ({"outliers": (), "outlier_order": "stored"}, r"--outlier-order: there are no outliers"),
        ({"image_size": 32}, r"--image-size 32: .*start\.safetensors is of images of 16 pixels; leave it out"),
        ({"device": "cuda:1", "devices": 2}, r"--device cuda:1"),
        ({"outliers": f"{files['outliers']}:-1"}, r"the weight after the colon must be above zero"),
        ({"devices": 2, "device": "mps"}, r"--device mps"),
    ]
    for settings, message in cases:
        with pytest.raises(InputError, match=message):
            tune(TuneConfig(**{**SMALL, **files, "max_steps": 1, **settings}), tmp_path / "run")
        assert not (tmp_path / "run").exists(), settings


def test_a_reselected_epoch_draws_from_the_band_of_the_score(files, tmp_path, monkeypatch):
    chosen, drawn = [], []
    real, real_take = inference.select, steps.Stepper.take
    monkeypatch.setattr("train.loop.select", lambda *args: chosen.append(real(*args)) or chosen[-1])
    monkeypatch.setattr(
        steps.Stepper, "take", lambda s, step, rows, lr: drawn.append(rows) or real_take(s, step, rows, lr)
    )
    config = TuneConfig(**SMALL, **files, epochs=2, reselect="energy:0.2-0.6", lr=0.05)
    tune(config, tmp_path / "run")
    # by hand: energies of the 50 outliers under the starting weights, in evaluation mode
    noise = OutlierSet.open(files["outliers"]).read_images() / 255
    x = torch.from_numpy(((noise - MEAN) / STD).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        energies = -load_model(files["checkpoint"])[0].eval()(x).double().logsumexp(1).numpy()
    assert chosen[0][0].tolist() == sorted(np.argsort(energies)[10:30].tolist())
    assert len(chosen) == 2 and chosen[0][0].tolist() != chosen[1][0].tolist()
    for epoch in range(2):
        used = torch.cat([rows.outliers for rows in drawn[4 * epoch : 4 * epoch + 4]]).tolist()
        assert set(used) == set(chosen[epoch][0].tolist())  # 48 draws from 20 rows: all of them
    assert reselection("max-logit:0-.5") == ("max-logit", 0.0, 0.5)


def test_a_reselecting_run_goes_on_in_the_middle_of_an_epoch(files, tmp_path, monkeypatch):
    config = TuneConfig(
        **SMALL, **files, epochs=2, reselect="energy:0.2-0.6", lr=0.05, checkpoint_every=1, validation=0.2
    )
    whole = tune(config, tmp_path / "whole")
    real = steps.Stepper.take

    def stops(self, step, rows, lr):
        if step == 5:
            raise KeyboardInterrupt
        return real(self, step, rows, lr)

    monkeypatch.setattr(steps.Stepper, "take", stops)
    with pytest.raises(KeyboardInterrupt):
        tune(config, tmp_path / "cut")
    monkeypatch.setattr(steps.Stepper, "take", real)
    resume(tmp_path / "cut")
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_the_best_weights_on_held_out_images_are_kept(files, tmp_path):
    config = TuneConfig(**SMALL, **files, epochs=5, validation=0.2, lr=0.002, final_lr=0.5, seed=4)
    run = tune(config, tmp_path / "run")
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines]
    assert len(losses) == 5 and int(np.argmin(losses)) < 4, losses  # else the last weights would do as well
    # by hand, from the weights that were kept
    images = load_images(f"{files['id']}/train.parquet", 16)
    kept, held_out = validation_split(images.labels, 0.2, 4)
    assert json.loads((run / "run.json").read_text())["trained_on"] == len(kept)
    noise = OutlierSet.open(files["outliers"]).read_images()
    others = noise[validation_split(np.zeros(50, np.int64), 0.2, 4)[1]]
    x = (np.concatenate([images.images[held_out], others]) / 255 - MEAN) / STD
    with torch.no_grad():
        model = load_model(run / "model.safetensors")[0].eval()
        z, f = model(torch.from_numpy(x.transpose(0, 3, 1, 2)).float(), return_features=True)
    n, y = len(held_out), torch.from_numpy(images.labels[held_out])
    expected = (
        torch.nn.functional.cross_entropy(z[:n], y) + 0.02 * f[:n].sum(1).mean() - 0.5 * z[n:].log_softmax(1).mean()
    )
    assert min(losses) == pytest.approx(expected.item(), rel=1e-4)
    assert lines[int(np.argmin(losses))]["validation_accuracy"] == pytest.approx(
        (z[:n].argmax(1) == y).float().mean().item()
    )


def test_images_held_out_while_tuning_are_held_out_while_pretraining(files, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    settings = {**SMALL, "id": files["id"], "image_size": 16, "max_steps": 1}
    settings.pop("outlier_batch_size")
    run = tune(TuneConfig(**settings, validation=0.2, seed=3), tmp_path / "tuned")  # pretrains first
    pretrained = read_config(read_config(run).checkpoint.parent)
    assert (pretrained.validation, pretrained.seed) == (0.2, 3)
    assert json.loads((run / "run.json").read_text())["held_out_unseen"] is True
    capfd.readouterr()
    other = tune(
        TuneConfig(**settings, validation=0.2, seed=4, checkpoint=read_config(run).checkpoint), tmp_path / "other"
    )
    assert json.loads((other / "run.json").read_text())["held_out_unseen"] is False
    assert "may have been trained on images that this run holds out" in capfd.readouterr().err


def test_a_diverging_run_stops_with_the_last_good_checkpoint(files, tmp_path):
    config = TuneConfig(**SMALL, **files, lr=40.0, momentum=0.0, weight_decay=0.0, epochs=3)
    with pytest.raises(InputError, match=r"the loss diverges \(a mean of .* at step 4; lower --lr .*step-00000000"):
        tune(config, tmp_path / "run")


def test_tensorboard_holds_what_the_log_holds(files, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tune(TuneConfig(**SMALL, **files, epochs=2, tensorboard=True), tmp_path / "run")
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "sparsity", "lr", "id_accuracy"):
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == [line["step"] for line in lines] == [4, 8]
        assert [event.value for event in scalars] == pytest.approx([line[name] for line in lines], rel=1e-6)


def test_batches_of_one_image_with_maps_of_one_pixel(files, tmp_path):
    id_set = write_digits(tmp_path / "odd", 17)
    settings = {**SMALL, "id": str(id_set), "model": "timm:resnet18", "epochs": 1}
    settings.pop("outlier_batch_size")
    from train.config import PretrainConfig

    with pytest.raises(InputError, match="a batch holds one image.*--batch-size"):
        pretrain(PretrainConfig(**settings), tmp_path / "run")


@pytest.mark.parametrize("spec", ["a.h5:.5", "a.h5:0.5", "a.h5:5e-1", "hf://o/n@main:0.5", "hf://o/n:0.5"])
def test_weights_of_outlier_sets(spec):
    assert outlier_weight(spec) == (spec.rpartition(":")[0], 0.5)
    assert outlier_weight("a.h5:1e+06") == ("a.h5", 1e6)
    assert outlier_weight("hf://o/n@main") == ("hf://o/n@main", 1.0)


def test_the_protocol_of_the_papers_code_for_methods_without_its_terms(files, tmp_path):
    assert paper_protocol("sr") == {"crop_padding": 0}
    assert paper_protocol("sroe") == PAPER_PROTOCOL
    assert paper_protocol("oe") == {n: v for n, v in PAPER_PROTOCOL.items() if n != "sparsity_on"}
    for method, given in (("oe", files), ("sr", {**files, "outliers": ()})):
        tune(TuneConfig(**SMALL, **given, method=method, max_steps=1, **paper_protocol(method)), tmp_path / method)


def test_a_last_batch_with_fewer_rows_than_parts(files, tmp_path):
    settings = {**SMALL, **files, "batch_size": 59, "outlier_batch_size": 7, "accumulate": 4}  # 59 + 1 of 60 images
    lines = (tune(TuneConfig(**settings, epochs=1), tmp_path / "run") / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 2 and np.isfinite(json.loads(lines[-1])["loss"])


def test_pretraining_on_the_way_has_its_own_recipe_and_a_cut_run_is_not_taken_for_a_whole(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"id": files["id"], "model": "resnet20", "device": "cpu", "precision": "32-true"}
    first = tune(TuneConfig(**settings, max_steps=1, crop_padding=0, image_size=16), tmp_path / "first")
    start = read_config(first).checkpoint
    assert read_config(start.parent).crop_padding == 4
    fingerprint = json.loads((start.parent / "run.json").read_text())["id"]["fingerprint"]
    assert find_pretrained(TuneConfig(**settings, max_steps=1), fingerprint) == start.parent
    assert find_pretrained(TuneConfig(**settings), fingerprint) is None
    damaged = tmp_path / "runs" / "damaged"  # of another program, say: it is passed over
    damaged.mkdir()
    (damaged / "run.json").write_text("{}")
    (damaged / "model.safetensors").touch()
    assert find_pretrained(TuneConfig(**settings, max_steps=1), fingerprint) == start.parent
    # weights that saw the held-out images do not forget it by another tuning that holds them out
    seen = tune(TuneConfig(**settings, max_steps=1, checkpoint=start, validation=0.2), tmp_path / "seen")
    again = tune(TuneConfig(**settings, max_steps=1, checkpoint=seen, validation=0.2), tmp_path / "again")
    assert json.loads((again / "run.json").read_text())["held_out_unseen"] is False


def test_a_log_goes_on_in_the_middle_of_an_interval(files, tmp_path, monkeypatch):
    config = TuneConfig(**SMALL, **files, epochs=1, checkpoint_every=1)
    whole = json.loads((tune(config, tmp_path / "whole") / "metrics.jsonl").read_text())
    real = steps.Stepper.take
    monkeypatch.setattr(steps.Stepper, "take", lambda s, step, *rest: 1 / 0 if step == 2 else real(s, step, *rest))
    with pytest.raises(ZeroDivisionError):
        tune(config, tmp_path / "cut")
    monkeypatch.setattr(steps.Stepper, "take", real)
    resume(tmp_path / "cut")
    cut = json.loads((tmp_path / "cut" / "metrics.jsonl").read_text())
    for name in ("step", "steps", "loss", "sparsity", "id_accuracy"):
        assert cut[name] == whole[name]
