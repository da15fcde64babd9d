"""`srood compare`: the figures are those of the evaluations, in every form, and unlike evaluations are refused."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from digits_images import write_digits
from digits_runs import make_group, make_run, write_ood
from PIL import Image

from srood.errors import InputError
from train import cli
from train.evaluation.compare import compare, score_pairs
from train.evaluation.evaluate import evaluate
from train.evaluation.score_files import read_scores, write_scores

METRICS = ("fpr95", "auroc", "aupr_in", "aupr_out", "detection_error")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Two runs and a seed group, evaluated; one has a set that the others lack."""
    folder = tmp_path_factory.mktemp("compare")
    id_set = write_digits(folder / "digits", train=20, test=30)
    near = write_ood(folder / "near.parquet", 20, noise=90)
    far = write_ood(folder / "far.parquet", 15)
    paths = {"id": id_set, "near": near, "far": far}
    paths |= {"a": make_run(folder / "a", id_set, 5), "b": make_run(folder / "b", id_set, 6)}
    paths["group"] = make_group(folder / "group", id_set, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.evaluation.evaluate.plot_histograms", lambda *_: None)
        patch.setattr("train.evaluation.evaluate.plot_roc", lambda *_: None)
        for name, ood in (("a", [near, far]), ("b", [near]), ("group", [near, far])):
            evaluate(paths[name], [str(path) for path in ood], device="cpu")
    return paths


def _json(path: Path) -> dict:
    return json.loads((path / "eval.json").read_text())


@pytest.fixture
def srood(monkeypatch, capfd):
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["srood", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capfd.readouterr())

    return run


def test_rows_hold_the_figures_of_the_evaluations(made):
    near, far = str(made["near"]), str(made["far"])
    comparison = compare([made["a"], made["group"] / "eval.json"], ["energy", "msp"])
    assert [(row.run.name, row.score) for row in comparison.rows] == [
        (name, score) for name in ("a", "group") for score in ("energy", "msp")
    ]
    assert comparison.columns == comparison.common == (near, far)
    for row in comparison.rows:
        result = _json(made[row.run.name])
        assert row.figures == {spec: result["ood"][spec]["scores"][row.score] for spec in (near, far)}
        assert row.mean == result["mean"][row.score]
        assert row.accuracy == result["id_accuracy"]
    group = _json(made["group"])
    assert comparison.rows[2].mean_std == group["mean_std"]["energy"]
    assert comparison.rows[2].accuracy_std == group["id_accuracy_std"]
    assert comparison.rows[2].std[far] == group["ood"][far]["std"]["energy"]
    assert comparison.rows[0].mean_std is None
    assert 0.001 < group["mean_std"]["energy"]["auroc"] < 0.5  # figures that say something


def test_the_mean_is_over_the_sets_that_all_have(made):
    near, far = str(made["near"]), str(made["far"])
    comparison = compare([made["a"], made["b"]])
    assert (comparison.columns, comparison.common) == ((near, far), (near,))
    a, b = comparison.rows
    assert a.mean == pytest.approx(_json(made["a"])["ood"][near]["scores"]["energy"])
    assert b.mean == _json(made["b"])["mean"]["energy"]
    assert far not in b.figures


def test_every_form_on_standard_output_holds_the_same_figures(made, srood):
    near, far = str(made["near"]), str(made["far"])
    a, b = _json(made["a"]), _json(made["b"])
    arguments = ["compare", made["a"], made["b"], "--format"]

    code, text, _ = srood(*arguments, "json")
    rows = {row["run"]: row for row in json.loads(text)["rows"]}
    assert code == 0
    assert rows["a"]["ood"][far] == a["ood"][far]["scores"]["energy"]
    assert rows["b"]["mean"] == b["mean"]["energy"]

    code, text, _ = srood(*arguments, "csv")
    cells = {(row["run"], row["ood"]): row for row in csv.DictReader(io.StringIO(text))}
    for name, result in (("a", a), ("b", b)):
        for metric in METRICS:
            assert float(cells[name, near][metric]) == result["ood"][near]["scores"]["energy"][metric]
        assert float(cells[name, near]["id_accuracy"]) == result["id_accuracy"]
    assert cells["b", far]["auroc"] == "" and cells["b", far]["missing"] == "not evaluated"
    assert cells["a", "mean"]["sets"] == "1 of 2"

    def pair(result, spec) -> str:
        values = result["ood"][spec]["scores"]["energy"]
        return f"{100 * values['fpr95']:.2f} / {100 * values['auroc']:.2f}"

    code, text, _ = srood(*arguments, "markdown")
    lines = [line.replace("*", "").strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["run", "ID accuracy", near, far, "mean of 1 of 2 sets"]
    assert lines[2] == ["a", f"{100 * a['id_accuracy']:.2f}", pair(a, near), pair(a, far), pair(a, near)]
    assert lines[3] == ["b", f"{100 * b['id_accuracy']:.2f}", pair(b, near), "–", pair(b, near)]
    assert "**" in text and "ood-positive: OOD positive" in text

    code, text, _ = srood(*arguments, "latex")
    plain = re.sub(r"\\textbf\{([^}]*)\}", r"\1", text)
    assert f"a & {100 * a['id_accuracy']:.2f} & {pair(a, near)} & {pair(a, far)} & {pair(a, near)} \\\\" in plain
    assert f"b & {100 * b['id_accuracy']:.2f} & {pair(b, near)} & -- & {pair(b, near)} \\\\" in plain
    assert "\\textbf{" in text

    code, text, _ = srood(*arguments, "table", "--compact")
    words = {line.split()[0]: line.replace("*", "").split()[1:] for line in text.splitlines() if line.split()}
    figures = [b["id_accuracy"], *(b["mean"]["energy"][metric] for metric in METRICS)]
    assert words["b"] == [f"{100 * value:.2f}" for value in figures]
    assert "The mean is over the sets that all have" in text


def test_deviations_of_a_seed_group_are_shown(made, srood):
    text = srood("compare", made["a"], made["group"])[1]
    group = _json(made["group"])
    auroc, std = group["mean"]["energy"]["auroc"], group["mean_std"]["energy"]["auroc"]
    assert f"{100 * auroc:.2f} ± {100 * std:.2f}" in text.replace("*", "")
    assert f"{100 * group['id_accuracy']:.2f} ± {100 * group['id_accuracy_std']:.2f}" in text.replace("*", "")
    assert "over 2 seeds" in text


def test_files_and_plots_are_written_and_say_the_same_twice(made, srood, tmp_path):
    for name in ("one", "two"):
        code, out, err = srood("compare", made["a"], made["b"], made["group"], "--out", tmp_path / name)
        assert (code, err) == (0, "")
        assert f"written to {tmp_path / name}" in out
    tables = {f"compare.{ending}" for ending in ("md", "csv", "tex", "json")}
    plots = {f"compare-{plot}.png" for plot in ("roc", "scores", "accuracy")}
    assert {path.name for path in (tmp_path / "one").iterdir()} == tables | plots
    for name in tables | plots:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for plot in plots:
        with Image.open(tmp_path / "one" / plot) as image:
            assert min(image.size) >= 400
            assert np.asarray(image.convert("L")).std() > 5  # not an empty page


def test_scores_of_each_image_come_from_where_the_figures_do(made):
    near = str(made["near"])
    comparison = compare([made["a"], made["group"]])
    (pair,) = score_pairs(comparison.rows[0], near)
    assert [len(values) for values in pair] == [30, 20]
    wins = np.mean(pair[1][:, None] > pair[0]) + 0.5 * np.mean(pair[1][:, None] == pair[0])
    assert wins == pytest.approx(comparison.rows[0].figures[near]["auroc"], abs=1e-3)
    assert len(score_pairs(comparison.rows[1], near)) == 2  # a pair for each seed


def test_two_scores_of_one_run_can_be_compared(made):
    comparison = compare([made["b"]], ["energy,sparsity"])
    assert [row.score for row in comparison.rows] == ["energy", "sparsity"]
    everything = compare([made["a"], made["b"]], ["all"])
    assert [row.score for row in everything.rows] == ["energy", "msp", "max-logit", "sparsity"] * 2


@pytest.fixture
def copy(made, tmp_path):
    """A copy of run b's evaluation with something changed."""

    def change(name: str, edit=None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("eval.json", "eval-scores.npz"):
            shutil.copy(made["b"] / file, folder / file)
        if edit is not None:
            result = _json(folder)
            edit(result)
            (folder / "eval.json").write_text(json.dumps(result))
        return folder

    return change


def test_evaluations_that_are_not_alike_are_refused(made, copy, tmp_path):
    near = str(made["near"])
    a = made["a"]
    other = "f" * 64
    edits = {
        "convention": (
            lambda r: r["convention"].update(name="paper"),
            "differ in --convention .*ood-positive and paper",
        ),
        "tpr": (lambda r: r["convention"].update(tpr=0.9), "differ in --tpr .*0.95 and 0.9"),
        "draws": (lambda r: r.update(draws={"number": 9, "size": 4, "seed": 0}), "differ in --draws .*all images and"),
        "id": (lambda r: r["id"].update(spec="cifar100:test"), "are of different ID sets .*cifar100:test"),
        "images": (lambda r: r["ood"][near].update(fingerprint=other), f"near.parquet is not the same .*{other[:12]}"),
        "test": (lambda r: r["id"].update(fingerprint=other), f"test.parquet is not the same .*{other[:12]}"),
        "nested": (lambda r: r["convention"].pop("tpr"), "eval.json: has no 'convention.tpr'; it is of another"),
        "set": (lambda r: r["ood"][near].pop("fingerprint"), "eval.json: has no 'ood.*near.parquet.fingerprint'"),
        "score": (
            lambda r: r["ood"][near]["scores"].pop("energy"),
            "eval.json: has no 'ood.*scores.energy' with fpr95, auroc",
        ),
        "figure": (lambda r: r["mean"]["msp"].pop("auroc"), "eval.json: has no 'mean.msp' with fpr95, auroc, aupr_in"),
        "kind": (lambda r: r.update(convention="paper"), "eval.json: 'convention' cannot be read"),
        "list": (lambda r: r.update(missing=[]), "eval.json: 'missing' cannot be read"),
        "version": (lambda r: r.pop("sets"), "eval.json: has no 'sets'; it is of another version"),
    }
    cases = [(copy(name, edit), message) for name, (edit, message) in edits.items()]
    cases += [(made["id"], "holds no eval.json; run `srood eval"), (tmp_path / "nowhere", "nowhere: no such file")]
    for path, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            compare([a, path])
        assert str(path) in str(caught.value)
    broken = copy("broken")
    (broken / "eval.json").write_text("{")
    with pytest.raises(InputError, match="broken/eval.json: cannot be read"):
        compare([a, broken])
    with pytest.raises(InputError, match="the same run is given twice"):
        compare([a, a / "." / ".." / "a"])
    with pytest.raises(InputError, match="the same run is given twice"):
        compare([a, a / "eval.json"])
    with pytest.raises(InputError, match="--score default: stands for scores of `srood eval`; name the scores here"):
        compare([a, made["b"]], ["default"])
    with pytest.raises(InputError, match="nothing to compare"):
        compare([a])
    with pytest.raises(InputError, match="--score knn: .* was evaluated with energy, msp, max-logit, sparsity"):
        compare([a, made["b"]], ["knn"])
    assert compare([a, copy("same")]).rows[1].run.name == "same"


def test_the_working_folder_has_its_name(made, copy, monkeypatch):
    monkeypatch.chdir(copy("here"))
    assert [row.run.name for row in compare([made["a"], Path(".")]).rows] == ["a", "here"]


def test_runs_of_one_name_are_told_apart_by_their_paths(copy):
    first, second = copy("one"), copy("two")
    (first / "run").mkdir()
    (second / "run").mkdir()
    for folder in (first, second):
        shutil.move(folder / "eval.json", folder / "run")
    comparison = compare([first / "run", second / "run"])
    assert [row.run.name for row in comparison.rows] == [str(first / "run"), str(second / "run")]


def test_two_results_in_one_folder_have_names_of_their_own_and_no_scores(made, tmp_path):
    files = [shutil.copy(made[name] / "eval.json", tmp_path / f"{name}.json") for name in ("a", "b")]
    shutil.copy(made["a"] / "eval-scores.npz", tmp_path)
    comparison = compare(files)
    assert [row.run.name for row in comparison.rows] == [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert [row.mean for row in comparison.rows] == [row.mean for row in compare([made["a"], made["b"]]).rows]
    for row in comparison.rows:  # whose the scores are is not known
        with pytest.raises(InputError, match=r"\.json: images' scores lie beside eval\.json alone"):
            score_pairs(row, comparison.common[0])


def test_scores_of_a_set_whose_name_is_another_with_an_ending(tmp_path):
    path = tmp_path / "eval-scores.npz"
    sets = {"far": np.ones(4), "far.npy": np.full(4, 2.0), "far.npy.npy": np.full(3, 3.0)}
    write_scores(path, {"energy": np.zeros(3)}, {name: {"energy": values} for name, values in sets.items()})
    found = read_scores(path, "energy")
    assert {name: values.tolist() for name, values in found.items()} == {
        "": [0.0] * 3,
        **{name: values.tolist() for name, values in sets.items()},
    }


def test_plots_need_the_scores_of_that_evaluation_and_tables_do_not(made, copy, srood, tmp_path):
    without = copy("without")
    (without / "eval-scores.npz").unlink()
    assert srood("compare", made["a"], without)[0] == 0
    code, _, err = srood("compare", made["a"], without, "--out", tmp_path / "out")
    assert code == 2
    assert "eval-scores.npz: no such file; run `srood eval` again" in err
    mixed = copy("mixed")
    shutil.copy(made["a"] / "eval-scores.npz", mixed)
    code, _, err = srood("compare", made["a"], mixed, "--out", tmp_path / "out")
    assert code == 2
    assert "is not of the same evaluation" in err
    (mixed / "eval-scores.npz").write_bytes(b"PK")
    assert "cannot be read" in srood("compare", made["a"], mixed, "--out", tmp_path / "out")[2]
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_found_first(made, srood, tmp_path):
    code, out, err = srood("compare", made["a"], tmp_path / "nothing", "--out", made["near"] / "sub")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: --out {made['near'] / 'sub'}: cannot be made, for {made['near']} is a file")


def test_missing_sets_are_shown_as_missing(made, copy, srood):
    far = str(made["far"])

    def lacks(result):
        result["sets"].append(far)
        result["missing"][far] = {"groups": ["far"], "reason": "the Hub cannot be reached"}
        result["mean_of"] = {"sets": 1, "of": 2}

    text = srood("compare", made["a"], copy("lacking", lacks), "--format", "markdown")[1]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert lines[3][3] == "missing"
    assert lines[0][4] == "mean of 1 of 2 sets"
    assert f"missing: {far}, in lacking because: the Hub cannot be reached" in text
