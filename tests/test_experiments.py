"""The files of manifests/experiments, what they are merged to, and tables and pages of their results."""

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from scipy import stats
from typer.main import get_command

from curate.cli import app
from srood.errors import InputError
from train.config import PretrainConfig, TuneConfig
from train.reproduce import page, tables
from train.reproduce.documents import CellResult, Document, read_document
from train.reproduce.experiments import PROFILES, BuildOption, Experiment, load, merged, names, parse
from train.reproduce.figures import rows_of, value
from train.reproduce.statistics import estimate, paired

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", names())
def test_every_experiment_can_be_read_under_every_profile(name, profile):
    experiment = load(name, profile)
    PretrainConfig(**experiment.pretrain)
    for method in experiment.methods.values():
        TuneConfig(**{**experiment.tune, **(method.train or {})})
    of_gpu = load(name, "gpu")
    assert experiment.published == of_gpu.published
    assert len(experiment.seeds) == (2 if profile == "smoke" else 3)


def test_the_tables_of_the_paper_are_all_there():
    assert names()[:4] == ["table1", "table2", "table3", "table4"] and "accuracy" in names()
    table1 = load("table1", "gpu")
    assert set(table1.networks) == {"wrn-40-2", "densenet", "resnet18", "allconv"}
    assert table1.protocols == ("paper", "default") and table1.pretrain["epochs"] == 100 and table1.tune["epochs"] == 10
    # published means over sets are those of the single sets, as printed
    table2 = load("table2", "gpu").published
    for id_set, method in (("cifar10", "baseline"), ("cifar10", "sr"), ("cifar100", "baseline"), ("cifar100", "sr")):
        single = table2[id_set]["wrn-40-2"][method]
        mean = np.mean([entry["fpr95"] for name, entry in single.items() if name != "mean"])
        assert single["mean"]["fpr95"] == pytest.approx(mean, abs=0.8)  # as printed, they differ by up to 0.76


def test_a_profile_changes_what_it_names():
    base = {"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 3}
    assert merged(base, {"a": {"c": None, "f": 4}, "d": [3], "e": None}) == {"a": {"b": 1, "f": 4}, "d": [3]}
    child = {"profiles": {"cpu": {"methods": {"sr": None}}}, "e": None}
    assert merged({**base, "profiles": {"cpu": {"x": 1}}}, child, keep="profiles") == {
        **{"a": {"b": 1, "c": 2}, "d": [1, 2]},
        "profiles": {"cpu": {"x": 1, "methods": {"sr": None}}},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"netwroks": []}, "x.yaml: netwroks: is unknown; remove it"),
        ({"seeds": [0, 0]}, "a seed is listed twice"),
        ({"control": "none"}, "control none is none of the methods"),
        ({"methods": {"a": {"title": "A", "train": {}, "outliers": "b"}}}, "outlier set b, which is not described"),
        ({"metrics": ["fpr99"]}, "metrics.0: input should be"),
        ({"outliers": {"o": {"source": "a", "size": 1, "build": {"sampel": "hard"}}}}, "build.sampel.* should be"),
    ],
)
def test_mistakes_in_a_file_are_named(changes, message):
    good = small().model_dump()
    with pytest.raises(InputError, match=message):
        parse({**good, **changes}, Path("x.yaml"))


def test_recipes_can_set_what_curate_build_has():
    assert set(get_args(BuildOption)) <= {option.name for option in get_command(app).commands["build"].params}


def small(**changes) -> Experiment:
    settings = {
        "name": "table1",
        "title": "T",
        "about": "A",
        "networks": ["wrn-40-2"],
        "id_sets": ["cifar10"],
        "ood": ["textures", "svhn"],
        "metrics": ["fpr95", "id_error"],
        "seeds": [0, 1, 2],
        "control": "ce",
        "methods": {"ce": {"title": "CE", "train": {}}, "sr": {"title": "SR", "train": {}}},
        "published": {"cifar10": {"wrn-40-2": {"sr": {"mean": {"fpr95": 16.3, "id_error": 5.13}}}}},
    }
    return Experiment(**{**settings, **changes})


def cell(method: str, seed: int, fpr: tuple[float, ...], accuracy: float, **changes) -> CellResult:
    shares = dict(zip(("textures", "svhn")[: len(fpr)], fpr, strict=True))
    ood = {name: {"fpr95": share, "auroc": 0.5, "aupr_in": 0.5} for name, share in shares.items()}
    fields = {"name": f"default/cifar10/wrn-40-2/{method}/seed-{seed}", "protocol": "default", "id_set": "cifar10"}
    fields |= {"network": "wrn-40-2", "method": method, "seed": seed, "status": "done", "id_accuracy": accuracy}
    data = {"ood": {name: {"images": 10} for name in ood}}
    return CellResult(**{**fields, "ood": ood, "data": data, "environment": "e", "seconds": {"tuning": 9.0}, **changes})


def small_document(**changes) -> Document:
    cells = [cell("ce", seed, (0.4 + seed / 100, 0.2), 0.95) for seed in range(3)]
    cells += [cell("sr", seed, (0.2, 0.1 + seed / 50), 0.94) for seed in range(3)]
    machine = {"cpu": "C", "cores": 2, "gpu": None, "versions": {"torch": "2"}}
    return Document(profile="gpu", steps=None, experiment=small(), cells=cells, environments={"e": machine}, **changes)


def test_hours_count_what_cells_share_once_and_what_lasts_equally_long_twice():
    document = small_document()
    first = {
        "weights": "a",
        "fingerprint": "f",
        "seconds": {"pretraining": 3600.0, "tuning": 1800.0, "evaluation": 900.0},
    }
    cells = [
        cell("ce", 0, (0.4, 0.2), 0.95, **first),
        cell("sr", 0, (0.4, 0.2), 0.95, **first),  # the same evaluation by another score
        cell("ce", 1, (0.4, 0.2), 0.95, **{**first, "weights": "b", "fingerprint": "g"}),  # from the same start
    ]
    text = page.made_on(document.model_copy(update={"cells": cells}), "file")
    assert text.startswith("3 cells on C, 2 cores, torch 2; 2.5 hours.")  # 1 + 2 * 0.5 + 2 * 0.25
    assert page.made_on(document.model_copy(update={"cells": cells[:1]}), "file").startswith("1 cell on C")


def test_intervals_are_students():
    values = [41.0, 42.5, 40.2]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert (found.low, found.high, found.count) == (40.2, 42.5, 3)
    assert estimate([1.0]).half is None
    difference = paired({0: 5.0, 1: 7.0, 4: 1.0}, {0: 4.0, 1: 5.0, 2: 9.0})
    assert difference.mean == 1.5 and difference.count == 2
    assert difference.half == pytest.approx(12.7062 * np.std([1, 2], ddof=1) / np.sqrt(2), rel=1e-4)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_a_table_has_published_ours_and_their_difference():
    text = tables.markdown(small_document())
    # SR by hand: means over the two sets are 15, 16 and 17; CE's are 30, 30.5 and 31; t(2) = 4.3027
    half, paired_half = 4.3027 * 1 / np.sqrt(3), 4.3027 * 0.5 / np.sqrt(3)
    sr = f"| SR | 16.30 | 16.00 ± {half:.2f} | -0.30 | 15.00 to 17.00 | -14.50 ± {paired_half:.2f} | 3 of 3 |"
    assert sr in text
    assert "| SR | 5.13 | 6.00 ± 0.00 | +0.87 |" in text and "mean over 2 OOD sets" in text
    assert "| CE | – | 30.50" in text


def test_no_difference_is_taken_where_sets_are_missing():
    document = small_document()
    fewer = [
        cell("sr", seed, (0.2,), 0.94, missing={"svhn": "not found"}) if one.method == "sr" else one
        for one in document.cells
        for seed in [one.seed]
    ]
    text = tables.markdown(document.model_copy(update={"cells": fewer}))
    assert "| SR | 16.30 | 20.00 ± 0.00 | – |" in text and "OOD set svhn: not found" in text


def test_rows_without_figures_say_why():
    document = small_document()
    cells = [one.model_copy(update={"status": "missing", "reason": "no such set"}) for one in document.cells[:3]]
    found = document.model_copy(update={"cells": [*cells, *document.cells[3:]]})
    assert [row.state for row in rows_of(found)] == ["missing", "done"]
    text = tables.markdown(found)
    assert "| CE | – | missing | – | – | – | 0 of 3 |" in text and "CE, missing: no such set" in text
    assert value(document.cells[0], "id_error", ()) == pytest.approx(5.0)


def test_the_page_of_results_is_current(tmp_path):
    results = ROOT / "results" / "reproduce"
    if results.is_dir():
        shutil.copytree(results, tmp_path / "results" / "reproduce")
    (tmp_path / "docs").mkdir()
    written = page.write_page(tmp_path / "docs" / "results.md", tmp_path / "results" / "reproduce")
    message = "make it again with: srood reproduce --page docs/results.md"
    assert (tmp_path / "docs/results.md").read_text() == (ROOT / "docs/results.md").read_text(), message
    plots = {path.name for path in written[1:]}
    assert plots == {path.name for path in (ROOT / "docs/results").glob("*.png")}, message


@pytest.mark.parametrize("name, doc", [("table4", "methods.md"), ("scores", "scores.md"), ("held-out", "scores.md")])
def test_tables_in_other_documents_are_those_of_the_results(name, doc):
    document = read_document(ROOT / "results" / "reproduce" / f"{name}-cpu.json")
    text = (ROOT / "docs" / doc).read_text()
    for method, settings in document.experiment.methods.items():
        cells = [cell for cell in document.cells if cell.method == method and cell.status == "done"]
        if not cells:
            continue
        columns = []
        for values in (
            [100 * np.mean([one["fpr95"] for one in cell.ood.values()]) for cell in cells],
            [100 * np.mean([one["auroc"] for one in cell.ood.values()]) for cell in cells],
            [100 * (1 - cell.id_accuracy) for cell in cells],
        ):
            half = (
                stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5 if values[1:] else 0
            )
            columns.append(f"{np.mean(values):.2f}" + (f" ± {half:.2f}" if values[1:] else ""))
        assert f"| {settings.title} | {' | '.join(columns)} |" in text


def test_the_page_shows_tables_and_plots_of_what_was_run_and_says_what_was_not(tmp_path):
    from train.reproduce.documents import write_document

    document = small_document()
    experiment = document.experiment.model_copy(update={"plots": ("by-set", "by-method", "accuracy")})
    results = tmp_path / "results" / "reproduce"
    write_document(results / "table1-gpu.json", document.model_copy(update={"experiment": experiment}))
    (tmp_path / "docs").mkdir()
    written = page.write_page(tmp_path / "docs/results.md", results)
    plots = ("accuracy", "by-method", "by-set")
    assert written[1:] == [tmp_path / f"docs/results/table1-gpu-{plot}.png" for plot in plots]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[1:])
    text = written[0].read_text()
    assert "| SR | 16.30 | 16.00 ±" in text and "(results/table1-gpu-by-set.png)" in text
    assert "6 cells on C, 2 cores, torch 2" in text
    assert text.count("Not run.") == 2 * len(names()) - 1
    title = "Four networks, two ID sets, before and after SR"
    assert f"| table1 | [{title}](#four-networks-two-id-sets-before-and-after-sr) | 6 of 6 cells | not run |" in text
    assert f"\n## {title}\n" in text and text.count("](#") == len(names())
