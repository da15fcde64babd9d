"""The model card says what the run recorded, to people and to the Hub."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import torch
import typer.main
import yaml
from hub_server import front_matter
from huggingface_hub import ModelCard, snapshot_download

from srood.models.weights import WeightsInfo, load_model
from srood.outliers import OutlierSet
from train import cli
from train.publishing.model_card import CardFacts, model_card, training_command
from train.publishing.push import prepare, push


def card_of(folder: Path) -> tuple[dict, str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return front_matter(text), text


def test_the_card_shows_what_was_measured(evaluated_run, tmp_path):
    prepare(evaluated_run, "owner/first", tmp_path / "dry", license="apache-2.0")
    metadata, text = card_of(tmp_path / "dry")
    result = json.loads((evaluated_run / "eval.json").read_text())
    assert {key: metadata[key] for key in ("library_name", "pipeline_tag", "license", "metrics")} == {
        "library_name": "srood",
        "pipeline_tag": "image-classification",
        "license": "apache-2.0",
        "metrics": ["accuracy", "roc_auc"],
    }
    assert "datasets" not in metadata  # the digits are no set of the Hub
    assert {"out-of-distribution-detection", "resnet20", "pretrain"} <= set(metadata["tags"])
    (index,) = metadata["model-index"]
    assert index["name"] == "first"
    accuracy, ood = index["results"]
    assert accuracy["task"]["type"] == "image-classification"
    assert accuracy["metrics"] == [{"type": "accuracy", "value": result["id_accuracy"]}]
    energy = result["ood"]["inverted.parquet"]["scores"]["energy"]
    assert ood["dataset"] == {"name": "inverted.parquet", "type": "inverted.parquet"}
    assert {metric["type"]: metric["value"] for metric in ood["metrics"]} == {
        "fpr95": energy["fpr95"],
        "roc_auc": energy["auroc"],
        "aupr_in": energy["aupr_in"],
        "aupr_out": energy["aupr_out"],
    }
    assert [metric["name"] for metric in ood["metrics"]][:2] == [
        "FPR95 (energy, ood-positive)",
        "AUROC (energy, ood-positive)",
    ]

    def row(first: str, metrics: dict) -> str:
        return f"| {first} | " + " | ".join(
            f"{100 * metrics[m]:.2f}" for m in ("fpr95", "auroc", "aupr_in", "aupr_out")
        )

    assert row("inverted.parquet | 30", energy) in text
    for score, metrics in result["mean"].items():
        assert row(score, metrics) in text
    assert f"ID accuracy: **{100 * result['id_accuracy']:.2f} %** on 40 images of test.parquet." in text
    assert f"convention `ood-positive`: {result['convention']['fpr95']}" in text
    assert "![eval-roc.png](eval-roc.png)" in text and "10.1038/s41598-024-79934-7" in text
    assert ModelCard(text).data.eval_results[0].metric_value == result["id_accuracy"]  # the Hub's own reader


def test_the_card_says_how_the_run_was_tuned_and_how_the_detector_is_loaded(local_run, tmp_path):
    prepare(local_run, "owner/first", tmp_path / "dry")
    _, text = card_of(tmp_path / "dry")
    record = json.loads((local_run / "run.json").read_text())
    outliers = OutlierSet.open(record["outliers"][0]["file"])
    assert "Tuned by sparsity regularisation with outlier exposure (`sroe`; Scientific Reports 14:28444" in text
    assert f"outliers: {outliers.num_rows} of mini.h5 (fingerprint `{outliers.fingerprint}`)" in text
    assert f"starting weights: model.safetensors (SHA-256 `{record['start']['sha256']}`)" in text
    (line,) = re.findall(r"^    (srood train .*)$", text, flags=re.MULTILINE)
    words = shlex.split(line)
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--outliers": "mini.h5",
        "--id": "photos of mine",
        "--model": "resnet20",
        "--checkpoint": "model.safetensors",
        "--method": "sroe",
        "--method-option": "alpha=0.03",
        "--batch-size": "16",
        "--outlier-batch-size": "16",
        "--precision": "32-true",
        "--max-steps": "2",
    }
    options = {o for p in typer.main.get_command(cli.app).commands["train"].params for o in p.opts}  # type: ignore[attr-defined]
    assert set(words[2::2]) <= options
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert yaml.safe_load(settings) == yaml.safe_load((tmp_path / "dry/config.yaml").read_text())
    assert 'detector = srood.load_detector(snapshot_download("owner/first"))' in text
    assert "srood detect first image.png" in text and "The threshold of the score energy is -1.25" in text
    assert "so that 95 % of ID images are accepted" in text


def test_the_card_of_an_uncalibrated_run_loads_the_weights_it_came_with(writable_hub, evaluated_run):
    push(evaluated_run, "owner/first")
    _, text = card_of(Path(snapshot_download("owner/first")))
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    found: dict = {}
    exec(code, found)
    classifier, info = load_model(evaluated_run / "model.safetensors")
    scaled = (found["images"] - torch.tensor(info.mean).view(3, 1, 1)) / torch.tensor(info.std).view(3, 1, 1)
    with torch.inference_mode():
        expected = -torch.log(torch.exp(classifier.eval()(scaled)).sum(dim=1))
    assert torch.allclose(found["energy"], expected, atol=1e-5)


def test_the_card_names_the_sets_of_the_hub_and_what_is_missing():
    scores = {"msp": {"fpr90": 0.5, "auroc": 0.75, "aupr_in": 0.875, "aupr_out": float("nan")}}
    evaluation = {
        "id": {"spec": "cifar10:test", "images": 10_000},
        "id_accuracy": 0.9375,
        "convention": {"name": "paper", "tpr": 0.9, "metric": "fpr90", "fpr90": "as published"},
        "sets": ["hf://a/b@1f:test", "svhn:test"],
        "ood": {"svhn:test": {"images": 26_032, "scores": scores}},
        "missing": {"hf://a/b@1f:test": {"groups": [], "reason": "no network"}},
        "mean": scores,
        "deviation": {"over": "draws", "number": 10},
    }
    ids = {"name": "cifar10", "spec": "cifar10:train", "fingerprint": "f", "images": 50_000, "classes": 10}
    outliers = [
        {"file": "hf://me/one@0123/mini.h5", "fingerprint": "one", "rows": 5, "weight": 1.0},
        {"file": "hf://me/two@0123/mini.h5", "fingerprint": "two", "rows": 6, "weight": 0.5},
    ]
    record = {"workflow": "oe", "model": "wrn-40-2", "id": ids, "outliers": outliers, "steps": 1, "parameters": 2}
    record |= {"precision": "32-true", "device": "cpu", "versions": {"srood": "9"}}
    config = {"workflow": "oe", "method": "oe", "method_options": {"beta": 0.5}}
    text = model_card(CardFacts("me/it", config, record, WeightsInfo(), evaluation))
    metadata = front_matter(text)
    assert metadata["datasets"] == ["uoft-cs/cifar10", "me/one", "me/two"]
    accuracy, svhn = metadata["model-index"][0]["results"]
    assert accuracy["dataset"] == {"name": "CIFAR-10", "type": "uoft-cs/cifar10", "split": "test"}
    assert {m["type"]: m["value"] for m in svhn["metrics"]} == {"fpr90": 0.5, "roc_auc": 0.75, "aupr_in": 0.875}
    assert "| OOD set, score msp | images | FPR90 | AUROC | AUPR-in | AUPR-out |" in text
    assert "| svhn:test | 26,032 | 50.00 | 75.00 | 87.50 | nan |" in text
    assert "| hf://a/b@1f:test | missing | - | - | - | - |" in text
    assert "| **mean of 1 of 2 sets** |" in text
    assert "FPR90 under the convention `paper`: as published." in text and "Means over 10 draws." in text
    assert "Tuned by outlier exposure (`oe`; Hendrycks et al., ICLR 2019, arXiv 1812.04606) with beta 0.5." in text
    assert "outliers: 6 of hf://me/two@0123/mini.h5, weight 0.5 (fingerprint `two`)" in text
    assert "    srood train --method oe\n" in text
    assert "Licence of the training images: none stated" in text and "Krizhevsky" in text


def test_the_command_of_a_run_leaves_out_what_is_at_its_default():
    assert training_command({"workflow": "pretrain", "id": "cifar10", "lr": 0.1, "device": "cuda"}) == "srood pretrain"
    config = {"workflow": "energy", "method": "energy", "lr": 0.1, "compile": True, "outliers": ["a.h5", "b c.h5:2"]}
    config["method_options"] = {"beta": 0.1, "m_in": -20.0, "m_out": -5.0}
    assert training_command(config) == (
        "srood train --outliers a.h5 --outliers 'b c.h5:2' --method energy --method-option m_in=-20 --lr 0.1 --compile"
    )
    config = {"workflow": "oe", "method": "oe", "method_options": {"beta": 0.123456789}}
    assert training_command(config).endswith("--method-option beta=0.123456789")
