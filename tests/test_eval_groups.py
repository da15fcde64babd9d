"""Evaluations of several kinds of many: groups with missing sets, draws, seeds, scores that cannot be had."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from digits_images import write_digits
from digits_runs import MEAN, SIZE, STD, make_group, make_run, write_ood
from hub_server import HubServer, point_client_at
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, roc_auc_score

from srood.errors import InputError
from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights
from train import cli
from train.commands.evaluation import print_evaluation
from train.evaluation.evaluate import evaluate

METRICS = ("fpr95", "auroc", "aupr_in", "aupr_out", "detection_error")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes most of the time of an evaluation as small as these."""
    monkeypatch.setattr("train.evaluation.evaluate.plot_histograms", lambda *_: None)
    monkeypatch.setattr("train.evaluation.evaluate.plot_roc", lambda *_: None)


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Digits in the place of CIFAR-10, two OOD sets, and a Hub that has nothing."""
    folder = tmp_path / "data"
    write_digits(folder / "cifar10", train=60, test=40)
    write_ood(folder / "textures" / "test.parquet", 30)
    write_ood(folder / "cifar100" / "test.parquet", 6, noise=90)
    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        monkeypatch.setenv("SROOD_DATA", str(folder))
        yield folder


@pytest.fixture
def weights(tmp_path) -> Path:
    """A classifier whose scores of ID and OOD images overlap."""
    path = tmp_path / "net.safetensors"
    torch.manual_seed(0)
    info = WeightsInfo("resnet20", "cifar10", MEAN, STD, image_size=SIZE)
    save_weights(path, build_model("resnet20", 10).state_dict(), info)
    return path


def test_near_and_far_have_means_of_their_own_and_what_is_missing_is_said(data, weights, tmp_path, capsys):
    result = evaluate(weights, ["openood"], device="cpu", out=tmp_path / "out")
    near, far = result["ood"]["cifar100"]["scores"], result["ood"]["textures"]["scores"]
    assert list(result["ood"]) == ["cifar100", "textures"]
    missing = ["tiny-imagenet:valid", "mnist", "svhn", "places365"]
    assert list(result["missing"]) == missing
    assert result["mean_of"] == {"sets": 2, "of": 6}
    for score in ("energy", "sparsity"):
        assert result["groups"]["near"]["mean"][score] == near[score]
        assert result["groups"]["far"]["mean"][score] == far[score]
        for metric in METRICS:
            expected = (near[score][metric] + far[score][metric]) / 2
            assert result["mean"][score][metric] == pytest.approx(expected)
    assert result["groups"]["far"]["missing"] == ["mnist", "svhn", "places365"]
    assert json.loads((tmp_path / "out" / "eval.json").read_text()) == {k: v for k, v in result.items() if k != "out"}

    rows = list(csv.DictReader((tmp_path / "out" / "eval.csv").open()))
    assert [row["ood"] for row in rows if row["missing"]] == missing
    assert all("no such dataset repository" in row["missing"] for row in rows if row["missing"])
    by_name = {(row["ood"], row["score"]): row for row in rows}
    assert by_name["mean", "energy"]["sets"] == "2 of 6"
    assert by_name["mean of near", "energy"]["sets"] == "1 of 2"
    assert float(by_name["mean of far", "msp"]["auroc"]) == far["msp"]["auroc"]
    assert by_name["textures", "energy"]["groups"] == "far"
    assert all(row["definition"].startswith("OOD positive") for row in rows)

    print_evaluation(result)
    text = capsys.readouterr().out
    for words in ("near: mean of 1 of 2", "far: mean of 1 of 4", "mean of 2 of 6 sets"):
        assert words in text
    assert text.count(" missing ") == 4
    assert "svhn: not found; tried $SROOD_DATA/svhn/test*.parquet" in text


def test_a_group_of_which_nothing_can_be_read_is_an_error_before_any_pass(data, weights, monkeypatch):
    monkeypatch.setattr("train.evaluation.passes.forward", None)  # calling it would be a TypeError
    damaged = (data / "textures" / "test.parquet").read_bytes()[:-200]
    (data / "textures" / "test.parquet").write_bytes(damaged)
    with pytest.raises(InputError, match="--ood paper: none of its 6 sets can be had; .*cannot be read as Parquet"):
        evaluate(weights, ["paper"], device="cpu")
    pq.write_table(pa.table({"image": [b"no image"], "label": [0]}), data / "textures" / "test.parquet")
    with pytest.raises(
        InputError, match="none of the sets can be read; textures:test: none of its images can be decoded"
    ):
        evaluate(weights, ["paper"], device="cpu")


def test_protocol_paper_is_its_options_together(data, weights, tmp_path):
    by_name = evaluate(weights, protocol="paper", device="cpu", out=tmp_path / "a")
    options = {"convention": "paper", "draws": 10, "draw_size": 8}  # a fifth of 40
    one_by_one = evaluate(weights, ["paper"], device="cpu", out=tmp_path / "b", **options)
    assert {**by_name, "out": ""} == {**one_by_one, "out": ""}
    assert by_name["convention"]["name"] == "paper"
    assert by_name["draws"] == {"number": 10, "size": 8, "seed": 0}
    assert (list(by_name["ood"]), len(by_name["missing"])) == (["textures"], 5)
    other = evaluate(
        weights, ["cifar100"], protocol="paper", convention="id-positive", draws=0, device="cpu", out=tmp_path / "c"
    )
    assert (other["convention"]["name"], other["draws"], list(other["ood"])) == ("id-positive", None, ["cifar100"])


def test_figures_over_draws_by_hand(data, weights, tmp_path, capsys):
    options = {"draws": 5, "draw_size": 12, "draw_seed": 7, "convention": "id-positive", "tpr": 0.9}
    result = evaluate(weights, ["textures", "cifar100"], device="cpu", out=tmp_path / "out", **options)
    kept = [load_file(path)["logits"].double().numpy() for path in (tmp_path / "out" / "cache").iterdir()]
    energies = {len(logits): -np.log(np.exp(logits).sum(1)) for logits in kept}
    of_id, textures, cifar100 = energies[40], energies[30], energies[6]

    def by_hand(ood):
        truth, scores = np.r_[np.zeros(40), np.ones(len(ood))], np.r_[of_id, ood]
        return {
            "fpr90": np.mean(ood <= np.sort(of_id)[35]),
            "auroc": roc_auc_score(truth, scores),
            "aupr_in": average_precision_score(1 - truth, -scores),
            "aupr_out": average_precision_score(truth, scores),
        }

    drawn = [np.random.default_rng([7, n]).choice(30, 12, replace=False) for n in range(5)]
    samples = [by_hand(textures[rows]) for rows in drawn]
    whole = by_hand(cifar100)  # six images: no draw
    for metric in whole:
        values = np.array([sample[metric] for sample in samples])
        entry = result["ood"]["textures"]
        assert entry["scores"]["energy"][metric] == pytest.approx(values.mean(), abs=1e-9)
        assert entry["std"]["energy"][metric] == pytest.approx(values.std(ddof=1), abs=1e-9)
        assert result["ood"]["cifar100"]["scores"]["energy"][metric] == pytest.approx(whole[metric], abs=1e-9)
        means = (values + whole[metric]) / 2
        assert result["mean"]["energy"][metric] == pytest.approx(means.mean(), abs=1e-9)
        assert result["mean_std"]["energy"][metric] == pytest.approx(means.std(ddof=1), abs=1e-9)
    assert "std" not in result["ood"]["cifar100"]

    rows = {(row["ood"], row["score"]): row for row in csv.DictReader((tmp_path / "out" / "eval.csv").open())}
    assert float(rows["textures", "energy"]["auroc_std"]) == result["ood"]["textures"]["std"]["energy"]["auroc"]
    assert rows["cifar100", "energy"]["auroc_std"] == ""
    print_evaluation(result)
    text = capsys.readouterr().out
    aurocs = [100 * sample["auroc"] for sample in samples]
    assert f"{np.mean(aurocs):.2f} ± {np.std(aurocs, ddof=1):.2f}" in text
    assert "5 draws of 12 images" in text and "taken whole, having no more: cifar100" in text
    assert "FPR90" in text


def test_a_seed_group_gives_each_run_and_their_mean_and_deviation(tmp_path, capsys):
    id_set = write_digits(tmp_path / "digits", train=40, test=30)
    ood = str(write_ood(tmp_path / "ood.parquet", 20))
    group = make_group(tmp_path / "group", id_set)
    result = evaluate(group, [ood], device="cpu")
    single = [evaluate(group / f"seed-{seed}", [ood], device="cpu") for seed in range(3)]
    assert [{**run, "out": ""} for run in single] == [{**run, "out": ""} for run in result["runs"].values()]
    for place in (lambda r: r["ood"][ood]["scores"], lambda r: r["mean"]):
        for score in ("energy", "msp"):
            for metric in METRICS:
                values = [place(run)[score][metric] for run in single]
                assert place(result)[score][metric] == pytest.approx(np.mean(values))
                std = result["ood"][ood]["std"][score][metric]
                assert std == result["mean_std"][score][metric] == pytest.approx(np.std(values, ddof=1))
    accuracies = [run["id_accuracy"] for run in single]
    assert result["id_accuracy"] == pytest.approx(np.mean(accuracies))
    assert result["id_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    risks = [run["id"]["aurc"]["energy"] for run in single]
    assert result["id"]["deviation"]["aurc"]["energy"] == pytest.approx(np.std(risks, ddof=1))
    written = json.loads((group / "eval.json").read_text())
    assert written == {key: value for key, value in result.items() if key != "out"}
    assert json.loads((group / "seed-1" / "eval.json").read_text()) == written["runs"]["seed-1"]
    assert (group / "seed-2" / "cache").is_dir() and not (group / "cache").exists()

    print_evaluation(result)
    text = capsys.readouterr().out
    aurocs = [100 * run["mean"]["msp"]["auroc"] for run in single]
    assert f"{np.mean(aurocs):.2f} ± {np.std(aurocs, ddof=1):.2f}" in text
    assert "over 3 seeds" in text


def test_runs_of_a_group_must_be_alike_and_finished(tmp_path):
    id_set = write_digits(tmp_path / "digits", train=10, test=10)
    group = make_group(tmp_path / "group", id_set, seeds=2)
    other = write_digits(tmp_path / "other", train=10, test=10)
    (group / "seed-1" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"seed-1: this run is not finished"):
        evaluate(group, [str(other / "test.parquet")], device="cpu")
    (group / "seed-1" / "config.yaml").unlink()
    (group / "seed-1").rmdir()
    make_run(group / "seed-1", other)
    with pytest.raises(InputError, match="holds different runs: seed-0 is of resnet20 on .*digits.* seed-1 of .*other"):
        evaluate(group, [str(other / "test.parquet")], device="cpu")


def test_a_score_that_cannot_be_fitted_is_left_out_of_all_but_not_if_named(data, weights, capsys, tmp_path):
    result = evaluate(weights, ["textures"], scores=["all"], device="cpu", out=tmp_path / "out")
    assert list(result["failed_scores"]) == ["she"]  # an untrained network is right about no image of some classes
    assert "she" not in result["mean"]
    assert set(result["mean"]) == set(result["id"]["aurc"])
    assert {"energy", "odin", "react"} <= set(result["mean"])
    print_evaluation(result)
    text = capsys.readouterr().out
    assert f"No figures for {result['failed_scores']['she']}" in text
    order = [line.split()[0] for line in text.splitlines() if line.split() and line.split()[0] in result["mean"]]
    best_first = sorted(result["mean"], key=lambda score: -result["mean"][score]["auroc"])
    assert order == best_first * 2  # AUROC, then FPR95
    with pytest.raises(InputError, match="score she: cannot be fitted"):
        evaluate(weights, ["textures"], scores=["energy", "she"], device="cpu", out=tmp_path / "out")


def test_the_command_has_every_option_and_prints_every_form(data, weights, tmp_path, monkeypatch, capfd):
    def srood(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["srood", "eval", str(weights), "--device", "cpu", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capfd.readouterr())

    out = tmp_path / "out"
    options = ["--ood", "textures", "--score", "msp", "--score", "energy", "--convention", "id-positive", "--tpr", 0.8]
    options += ["--draws", 3, "--draw-size", 5, "--draw-seed", 2, "--no-cache", "--batch-size", 7, "--out", out]
    printed = {form: srood(*options, "--format", form) for form in ("json", "csv", "markdown", "latex", "table")}
    assert [(code, err) for code, _, err in printed.values()] == [(0, "")] * 5
    assert not (out / "cache").exists()
    result = json.loads(printed["json"][1])
    assert result == json.loads((out / "eval.json").read_text())
    assert list(result["mean"]) == ["msp", "energy"]
    assert (result["convention"]["name"], result["convention"]["metric"]) == ("id-positive", "fpr80")
    assert result["draws"] == {"number": 3, "size": 5, "seed": 2}
    assert printed["csv"][1] == (out / "eval.csv").read_text()
    values, std = result["mean"]["msp"], result["mean_std"]["msp"]
    cells = [f"{100 * values[m]:.2f} ± {100 * std[m]:.2f}" for m in ("fpr80", "auroc", "aupr_in")]
    assert f"| textures | msp | 30 | {' | '.join(cells)} |" in printed["markdown"][1]
    assert f"textures & msp & 30 & {' & '.join(cells)}".replace("±", r"$\pm$") in printed["latex"][1]
    assert f"written to {out}" in printed["table"][1]

    code, text, err = srood("--ood", "nowhere")
    assert (code, text) == (2, "")
    assert err.startswith("error: nowhere: no such file, folder or named set")
    assert srood("--ood", "textures", "--format", "html")[2].startswith(
        "error: --format html: is unknown; choose table"
    )
