"""The model card of a run: a README.md with the metadata that the Hugging Face Hub reads, from what the run recorded.

https://huggingface.co/docs/hub/model-cards says what the metadata mean. Everything stated comes from the run's own
files, so that a run has one card.
"""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from srood.citations import METHOD_BIBTEX
from srood.methods import METHODS
from srood.models.weights import WeightsInfo
from srood.named_sets import dataset_info

PER_CENT = {"auroc": "AUROC", "aupr_in": "AUPR-in", "aupr_out": "AUPR-out"}  # after the FPR


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from; nothing in it may name a place on this machine.

    Attributes:
        repo: ``owner/name``
        revision: the branch
        config: what config.yaml says
        record: what run.json says
        info: what the weights file says of itself
        evaluation: what eval.json says; None where the run was not evaluated
        detector: what detector.json says; None where no threshold was calibrated
        plots: names of the plots beside the card
        license: identifier of a licence as the Hub knows it
    """

    repo: str
    config: dict[str, Any]
    record: dict[str, Any]
    info: WeightsInfo
    evaluation: dict[str, Any] | None = None
    detector: dict[str, Any] | None = None
    plots: Sequence[str] = field(default_factory=tuple)
    license: str | None = None
    revision: str = "main"


def model_card(facts: CardFacts) -> str:
    """The card's text, metadata first."""
    environment = Environment(  # nosec B701  # Markdown, not HTML; names are escaped where they are put in
        loader=PackageLoader("train.publishing"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    record, evaluation, detector = facts.record, facts.evaluation, facts.detector
    name = facts.repo.partition("/")[2]
    method = method_name(facts)
    known = dataset_info(str(record["id"]["name"]))
    id_title = known.title if known else str(record["id"]["name"])
    outliers = outlier_records(record)
    return environment.get_template("model_card.md").render(
        metadata=metadata(facts).to_yaml().rstrip(),
        name=name,
        repo=facts.repo,
        revision=facts.revision,
        revision_argument=f', revision="{facts.revision}"' if facts.revision != "main" else "",
        summary=f"{record['model']} for {id_title}, {method.upper() if method != 'pretrain' else 'pretrained'}.",
        version=record.get("versions", {}).get("srood", ""),
        classes=record["id"]["classes"],
        evaluated=evaluation is not None,
        **(measured(evaluation, detector) if evaluation is not None else {}),
        plots=facts.plots,
        calibrated=detector is not None,
        threshold=_threshold(detector or {}),
        size=facts.info.image_size or 32,
        method=_method_text(method, facts.config),
        command=training_command(facts.config),
        facts=[
            *(_outliers_text(entry) for entry in outliers),
            *_start(record),
            f"ID images: {record['id']['images']:,} of {record['id']['spec']} (fingerprint "
            f"`{record['id']['fingerprint']}`)",
            f"{record['steps']:,} steps in {record['precision']} on {record['device']}; "
            f"{record['parameters']:,} parameters",
            f"versions: {', '.join(f'{package} {version}' for package, version in record['versions'].items())}",
        ],
        settings=yaml.safe_dump(facts.config, sort_keys=False, allow_unicode=True).rstrip(),
        id_title=id_title,
        citation=METHOD_BIBTEX,
        data=_data_text(id_title, known.license if known else "", known.citation if known else ""),
    )


def method_name(facts: CardFacts) -> str:
    """What the run was tuned by: its method where it names one, else its workflow."""
    return str(facts.config.get("method") or facts.record["workflow"])


def outlier_records(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What run.json says of each outlier set; none, one or several."""
    outliers = record.get("outliers") or []
    return outliers if isinstance(outliers, list) else [outliers]


def metadata(facts: CardFacts) -> Any:
    """The card's metadata, a `huggingface_hub.ModelCardData`; shares are in [0, 1], as in eval.json."""
    from huggingface_hub import ModelCardData

    known = dataset_info(str(facts.record["id"]["name"]))
    sets = [known.hub_repo] if known and known.hub_repo else []
    for entry in outlier_records(facts.record):
        if str(entry["file"]).startswith("hf://"):
            sets.append("/".join(str(entry["file"]).removeprefix("hf://").partition("@")[0].split("/")[:2]))
    results = _results(facts.evaluation, facts.detector) if facts.evaluation is not None else []
    return ModelCardData(
        library_name="srood",
        pipeline_tag="image-classification",
        license=facts.license,
        tags=["out-of-distribution-detection", "ood-detection", str(facts.record["model"]), method_name(facts)],
        datasets=sets or None,
        metrics=["accuracy", "roc_auc"] if results else None,
        model_name=facts.repo.partition("/")[2] if results else None,
        eval_results=results or None,
    )


def ood_specs(evaluation: dict[str, Any]) -> list[str]:
    """The OOD sets that were asked for, those that could not be had among them."""
    return list(evaluation.get("sets") or evaluation["ood"])


def metric_titles(evaluation: dict[str, Any]) -> dict[str, str]:
    """The metrics that a card shows and how it calls them; the FPR first, at the TPR of the evaluation."""
    fpr = evaluation["convention"].get("metric", "fpr95")
    return {fpr: fpr.upper(), **PER_CENT}


def headline_score(evaluation: dict[str, Any], detector: dict[str, Any] | None) -> str:
    """The score that the table shows: the detector's, else energy, else the first that was measured."""
    found = list(evaluation["mean"])
    wanted = [(detector or {}).get("score"), "energy", *found[:1]]
    return next((str(name) for name in wanted if name in found), "energy")


def measured(evaluation: dict[str, Any], detector: dict[str, Any] | None) -> dict[str, Any]:
    """What the card shows of an evaluation: rows of cells, in per cent; a set that could not be had says so."""
    score, titles, convention = (
        headline_score(evaluation, detector),
        metric_titles(evaluation),
        evaluation["convention"],
    )

    def cells(metrics: dict[str, Any]) -> list[str]:
        values = [metrics.get(key) for key in titles]
        return [f"{100 * value:.2f}" if isinstance(value, (int, float)) else "-" for value in values]

    sets = []
    specs = ood_specs(evaluation)
    for spec in specs:
        entry = evaluation["ood"].get(spec)
        images = "missing" if entry is None else f"{entry['images']:,}"
        sets.append([_cell(spec), images, *cells(entry["scores"].get(score, {}) if entry else {})])
    mean = "mean" if len(evaluation["ood"]) == len(specs) else f"mean of {len(evaluation['ood'])} of {len(specs)} sets"
    if len(specs) > 1:
        sets.append([f"**{mean}**", "", *cells(evaluation["mean"].get(score, {}))])
    deviation = evaluation.get("deviation")
    return {
        "accuracy": f"{100 * evaluation['id_accuracy']:.2f}",
        "id_images": f"{evaluation['id']['images']:,}",
        "id_spec": evaluation["id"]["spec"],
        "score": score,
        "titles": list(titles.values()),
        "sets": sets,
        "mean": mean,
        "scores": [[name, *cells(metrics)] for name, metrics in evaluation["mean"].items()],
        "convention": convention["name"],
        "definition": convention.get(next(iter(titles)), ""),
        "deviation": f" Means over {deviation['number']} {deviation['over']}." if deviation else "",
    }


def _results(evaluation: dict[str, Any], detector: dict[str, Any] | None) -> list[Any]:
    from huggingface_hub import EvalResult

    found = _described(evaluation["id"]["spec"])
    accuracy = evaluation["id_accuracy"]
    results = [EvalResult(task_type="image-classification", metric_type="accuracy", metric_value=accuracy, **found)]
    score = headline_score(evaluation, detector)
    for spec, entry in evaluation["ood"].items():
        for key, title in metric_titles(evaluation).items():
            value = entry["scores"].get(score, {}).get(key)
            if value is not None and math.isfinite(value):
                result = EvalResult(
                    task_type="out-of-distribution-detection",
                    task_name="Out-of-distribution detection",
                    metric_type={"auroc": "roc_auc"}.get(key, key),
                    metric_name=f"{title} ({score}, {evaluation['convention']['name']})",
                    metric_value=value,
                    **_described(spec),
                )
                results.append(result)
    return results


def training_command(config: dict[str, Any]) -> str:
    """The command that trains with a run's settings; those at their default, and the device, are left out."""
    from train.commands import training

    name, command = ("pretrain", training.pretrain) if config["workflow"] == "pretrain" else ("train", training.train)
    defaults = {option: parameter.default for option, parameter in inspect.signature(command).parameters.items()}
    values = {
        **config,
        "method_option": [f"{key}={value!r}".removesuffix(".0") for key, value in _unusual_options(config).items()],
    }
    words = ["srood", name]
    for option, default in defaults.items():
        value = values.get(option)
        if option in ("device", "resume", "out") or value in (None, [], default):
            continue
        flag = "--" + option.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [flag, str(item)]
    return shlex.join(words)


def _unusual_options(config: dict[str, Any]) -> dict[str, float]:
    """The options of a run's method that are not at their published value."""
    method = METHODS.get(config["workflow"])
    known: dict[str, Any] = {} if method is None else dict(method.options)
    given = config.get("method_options") or {}
    # a value that depends on the number of classes is always given
    return {key: value for key, value in given.items() if value != known.get(key)}


def _method_text(method: str, config: dict[str, Any]) -> str:
    if method not in METHODS:
        return "Trained from a random start by cross entropy."
    options = ", ".join(f"{key} {value:g}" for key, value in (config.get("method_options") or {}).items())
    known = METHODS[method]
    return f"Tuned by {known.title} (`{method}`; {known.source}){' with ' if options else ''}{options}."


def _described(spec: str) -> dict[str, Any]:
    """A set as the Hub's results name it: its repository where it has one."""
    if spec.startswith("hf://"):
        address, _, split = spec.removeprefix("hf://").partition(":")
        repo, _, revision = address.partition("@")
        return {
            "dataset_type": repo,
            "dataset_name": repo,
            "dataset_split": split or None,
            "dataset_revision": revision or None,
        }
    name, _, split = spec.partition(":")
    known = dataset_info(name)
    if known is None:
        return {"dataset_type": spec, "dataset_name": spec}
    return {"dataset_type": known.hub_repo or name, "dataset_name": known.title, "dataset_split": split or None}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _threshold(detector: dict[str, Any]) -> str:
    if "threshold" not in detector:
        return ""
    score = f" of the score {detector['score']}" if "score" in detector else ""
    share = f", fixed so that {100 * detector['tpr']:g} % of ID images are accepted" if "tpr" in detector else ""
    return f"The threshold{score} is {detector['threshold']}{share}; `detector.json` says on which images."


def _outliers_text(entry: dict[str, Any]) -> str:
    weight = f", weight {entry['weight']:g}" if entry.get("weight", 1) != 1 else ""
    return f"outliers: {entry['rows']:,} of {entry['file']}{weight} (fingerprint `{entry['fingerprint']}`)"


def _start(record: dict[str, Any]) -> list[str]:
    start = record.get("start")
    return [f"starting weights: {start['file']} (SHA-256 `{start['sha256']}`)"] if start else []


def _data_text(title: str, licence: str, citation: str) -> str:
    said = f"Licence of the training images: {licence.rstrip('.')}." if licence else "Its licence is not recorded."
    return f"{title}. {said}{f' {citation}.' if citation else ''}"
