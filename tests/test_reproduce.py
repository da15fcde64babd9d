"""`srood reproduce` from end to end, on the digits of the smoke profile."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, roc_auc_score

from srood.datasets import load_images
from srood.models.weights import load_model
from train import cli
from train.reproduce import documents, reproduce
from train.reproduce.cells import Choices, chosen, plan_cells
from train.reproduce.experiments import load
from train.reproduce.reproduce import Planned

pytest.importorskip("skimage")
slow = pytest.mark.slow
ONLY = ("ce", "sroe/seed-0")
STEPS = 12
OOD = ("photographs", "textures", "print")


def arguments(folder: Path, *only: str) -> list[str]:
    chosen_cells = [word for text in only for word in ("--only", text)]
    places = ["--out", str(folder / "out"), "--results", str(folder / "results")]
    return ["reproduce", "table1", "--smoke", "--steps", str(STEPS), *chosen_cells, *places]


def call(*words: str) -> int:
    before, sys.argv = sys.argv, ["srood", *words]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def document_in(folder: Path) -> documents.Document:
    (path,) = (folder / "results").glob("*.json")
    return documents.read_document(path)


def files_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the smoke profile of table1 was made in full."""
    folder = tmp_path_factory.mktemp("whole")
    words = ["--out", str(folder / "out"), "--results", str(folder / "results")]
    assert call("reproduce", "table1", "--smoke", *words) == 0
    return folder


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which three cells of table1 were made, of runs cut to a few steps."""
    folder = tmp_path_factory.mktemp("smoke")
    assert call(*arguments(folder, *ONLY)) == 0
    return folder


@pytest.fixture
def again(smoke: Path, tmp_path: Path) -> Path:
    """A copy of what was made, so that a test can take parts away."""
    return Path(shutil.copytree(smoke, tmp_path / "again"))


def moved(folder: Path, changes: dict, only: tuple[str, ...]) -> Planned:
    """Cells of a changed experiment, with the inputs and runs that a folder holds."""
    experiment = load("table1", "smoke").model_copy(update=changes)
    choices = Choices(out=folder / "out", steps=STEPS)
    cells = plan_cells(experiment, choices)
    return Planned(experiment, "smoke", choices, tuple(cells), tuple(chosen(cells, only)))


def test_figures_are_those_of_another_computation(whole):
    cell = next(cell for cell in document_in(whole).cells if cell.name == "default/digits/resnet20/sroe/seed-0")
    (run,) = (whole / "out").glob("digits-resnet20-sroe-s0-*")
    model, info = load_model(run / "model.safetensors")
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (info.mean, info.std))

    def logits(images: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            return model.eval()((x - mean) / std).double()

    inputs = whole / "out/inputs/demo"
    test = load_images(str(inputs / "id/test.parquet"), 16)
    id_logits = logits(test.images)
    accuracy = float((id_logits.argmax(1).numpy() == test.labels).mean())
    assert cell.id_accuracy == pytest.approx(accuracy, abs=1e-6)
    energy = -torch.logsumexp(id_logits, 1).numpy()
    threshold = np.sort(energy)[int(np.ceil(0.95 * len(energy))) - 1]  # accepts 95 % of the ID images
    for name in OOD:
        other = -torch.logsumexp(logits(load_images(str(inputs / f"ood/{name}.parquet"), 16).images), 1).numpy()
        is_ood = np.repeat([0, 1], [len(energy), len(other)])
        both = np.concatenate([energy, other])
        found = cell.ood[name]
        assert found["auroc"] == pytest.approx(roc_auc_score(is_ood, both), abs=2e-4)
        assert found["aupr_in"] == pytest.approx(average_precision_score(1 - is_ood, -both), abs=2e-4)
        assert found["fpr95"] == pytest.approx((other <= threshold).mean(), abs=2 / len(other))


@slow
def test_cells_that_were_not_asked_for_are_not_run(smoke):
    document = document_in(smoke)
    states = {cell.name.removeprefix("default/digits/resnet20/"): cell.status for cell in document.cells}
    done = {"ce/seed-0", "ce/seed-1", "sroe/seed-0"}
    assert states == {
        f"{method}/seed-{seed}": "done" if f"{method}/seed-{seed}" in done else "not run"
        for method in ("baseline", "ce", "sr", "sroe")
        for seed in (0, 1)
    }
    text = (smoke / "results" / f"table1-smoke-{STEPS}-steps.md").read_text()
    assert "| SR | not run | – | – | 0 of 2 |" in text and "Of 8 cells: 3 done, 5 not run." in text


def test_what_is_recorded_of_a_cell(whole):
    document = document_in(whole)
    cell = next(cell for cell in document.cells if cell.name.endswith("sroe/seed-0"))
    assert {name: entry["images"] for name, entry in cell.data["ood"].items()} == dict.fromkeys(OOD, 600)
    assert cell.data["outliers"][0]["rows"] == 600 and len(cell.data["id"]["fingerprint"]) == 64
    assert set(cell.seconds) == {"pretraining", "tuning", "evaluation"} and min(cell.seconds.values()) > 0
    assert document.environments[cell.environment]["versions"]["torch"] == version("torch")
    assert cell.fingerprint != next(c for c in document.cells if c.name.endswith("ce/seed-0")).fingerprint


@slow
def test_a_second_call_makes_nothing(smoke, capfd):
    before, document = files_in(smoke / "out"), document_in(smoke)
    (smoke / "results" / "notes.json").write_text("{}")  # somebody else's
    assert call(*arguments(smoke, *ONLY)) == 0
    assert files_in(smoke / "out") == before and document_in(smoke) == document
    assert "3 finished, 0 to make" in capfd.readouterr().err


@slow
def test_figures_of_another_machine_stay(again):
    before = document_in(again)
    shutil.rmtree(again / "out")  # the runs are elsewhere
    assert call(*arguments(again, "baseline/seed-0")) == 0
    after = {cell.name: cell for cell in document_in(again).cells}
    for cell in before.cells:
        if cell.status == "done":
            assert after[cell.name] == cell
    assert after["default/digits/resnet20/baseline/seed-0"].status == "done"


def test_a_table_shows_cells_whose_figures_another_table_holds(again, tmp_path):
    table1 = {cell.name: cell for cell in document_in(again).cells}
    experiment, choices = load("table2", "smoke"), Choices(out=tmp_path / "elsewhere", steps=STEPS)
    planned = Planned(experiment, "smoke", choices, tuple(plan_cells(experiment, choices)), chosen=())
    document = reproduce.run(planned, again / "results")
    done = {cell.name: cell for cell in document.cells if cell.status == "done"}
    assert done and done == {name: cell for name, cell in table1.items() if cell.status == "done"}
    assert set(document.environments) == {cell.environment for cell in done.values()}


def test_figures_stay_where_images_cannot_be_had(again, tmp_path, capfd):
    before = document_in(again)
    done = {cell.name: cell for cell in before.cells if cell.status == "done"}
    experiment, choices = before.experiment, Choices(out=tmp_path / "elsewhere", steps=STEPS)
    cells = plan_cells(experiment, choices)
    without_sets = [replace(cell, missing={"print": "not found"}, evaluation=None) for cell in cells]
    found = reproduce.run(Planned(experiment, "smoke", choices, tuple(without_sets), ()), again / "results")
    assert done == {cell.name: cell for cell in found.cells if cell.status == "done"}
    nothing = [replace(cell, reason="no such ID set", run=None, evaluation=None) for cell in cells]
    assert reproduce.run(Planned(experiment, "smoke", choices, tuple(nothing), ()), again / "results") == found
    assert document_in(again) == found and "(no such ID set)" in capfd.readouterr().err
    other = experiment.model_copy(update={"metrics": ("auroc",)})  # no longer the same: they may be of other settings
    changed = reproduce.run(Planned(other, "smoke", choices, tuple(nothing), ()), again / "results")
    assert {cell.status for cell in changed.cells} == {"missing"}


def test_figures_of_the_same_run_by_another_score_are_not_taken(again, tmp_path):
    planned = moved(tmp_path / "elsewhere", {"methods": {"ce": load("table1", "smoke").methods["ce"]}}, ())
    for score, states in (("energy", {"done"}), ("msp", {"not run"})):
        methods = {"ce": planned.experiment.methods["ce"].model_copy(update={"score": score})}
        experiment = planned.experiment.model_copy(update={"name": f"by-{score}", "methods": methods})
        # the evaluation's name stands for all scores of it: here it is that of the energy's cells
        one = Planned(experiment, "smoke", planned.choices, planned.cells, chosen=())
        assert {cell.status for cell in reproduce.run(one, again / "results").cells} == states


@slow
def test_the_recorded_commands_make_the_same_weights(smoke, tmp_path):
    cell = next(cell for cell in document_in(smoke).cells if cell.name.endswith("ce/seed-1"))
    inputs, pretraining, tuning, _ = cell.commands
    assert inputs.endswith("--inputs") and pretraining.startswith("srood pretrain ")
    words = tuning.split()
    words[words.index("--out") + 1] = str(tmp_path / "run")
    assert call(*words[1:]) == 0
    from srood.hashes import file_sha256

    assert file_sha256(tmp_path / "run/model.safetensors") == cell.weights


@slow
def test_an_interrupted_cell_goes_on_to_the_same_weights(again):
    (run,) = (again / "out").glob("digits-resnet20-ce-s1-*")
    weights = load_file(run / "model.safetensors")
    document = document_in(again)
    shutil.rmtree(run)
    shutil.rmtree(again / "results")
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *arguments(again, "ce/seed-1")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (run / "checkpoints").is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, 128 + signal.SIGTERM)  # stopped at a step, or before it could listen
    assert run.is_dir() and not (run / "model.safetensors").exists()
    assert call(*arguments(again, *ONLY)) == 0
    after = load_file(run / "model.safetensors")
    assert all(torch.equal(after[name], values) for name, values in weights.items())
    figures = {cell.name: (cell.id_accuracy, cell.ood) for cell in document.cells}
    assert {cell.name: (cell.id_accuracy, cell.ood) for cell in document_in(again).cells} == figures


@slow
def test_sets_that_cannot_be_had_are_missing_and_the_rest_goes_on(again, tmp_path):
    nowhere = str(tmp_path / "nowhere.parquet")
    changes = {"ood": ("made:photographs", nowhere), "id_sets": ("made:digits", str(tmp_path / "no-id"))}
    planned = moved(again, changes, ("ce/seed-0",))
    document = reproduce.run(planned, tmp_path / "results")
    here, elsewhere = (cell for cell in document.cells if cell.name.endswith("ce/seed-0"))
    assert here.status == "done" and list(here.ood) == ["photographs"] and "no such file" in here.missing[nowhere]
    assert elsewhere.status == "missing" and "neither a named set" in elsewhere.reason
    assert not list((again / "out").glob("no-id*"))
    text = (tmp_path / "results" / f"table1-smoke-{STEPS}-steps.md").read_text()
    assert "mean over 1 of 2 OOD sets" in text and f"OOD set {nowhere}: " in text


@slow
def test_a_training_that_fails_is_said_and_the_rest_goes_on(again, tmp_path):
    experiment = load("table1", "smoke")
    broken = experiment.methods["sr"].model_copy(update={"train": {"method": "sr", "lr": 1e9}})
    planned = moved(again, {"methods": {**experiment.methods, "sr": broken}}, ("sr/seed-0", "ce/seed-0"))
    document = reproduce.run(planned, tmp_path / "results")
    states = {cell.method: cell for cell in document.cells if cell.seed == 0}
    assert states["sr"].status == "failed" and "loss" in states["sr"].reason
    assert states["ce"].status == "done"


def test_dry_run_lists_cells_and_makes_nothing(tmp_path, capfd):
    assert call(*arguments(tmp_path, "sroe/seed-1"), "--dry-run") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "default/digits/resnet20/sroe/seed-1: to make"
    kinds = [" ".join(line.split()[:2]) for line in lines[1:]]
    assert kinds == ["srood reproduce", "srood pretrain", "curate build", "srood train", "srood eval"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reproduce"], "TABLE is missing"),
        (["reproduce", "--page", "page.md", "--only", "sr"], "--only: is about the cells of an experiment"),
        (["reproduce", "--page", "page.md", "--dry-run"], "--dry-run: is about the cells of an experiment"),
        (["reproduce", "table1", "--smoke", "--profile", "gpu"], "--smoke: is --profile smoke, and --profile gpu"),
        (["reproduce", "table9"], "table9: no such experiment; choose one of table1"),
        (["reproduce", "table1", "--profile", "tpu"], "--profile tpu: is unknown"),
        (["reproduce", "table1", "--smoke", "--only", "srx"], "--only srx: names no cell"),
        (["reproduce", "table1", "--smoke", "--checkpoint", "no.safetensors"], "no such weights file"),
        (["reproduce", "table1", "--profile", "gpu", "--checkpoint", "x"], "several networks or ID sets"),
    ],
)
def test_what_cannot_be_used_is_one_line(words, message, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_the_smoke_profile_in_full(whole):
    cells = document_in(whole).cells
    assert [cell.status for cell in cells] == ["done"] * 8
    assert {(cell.method, cell.seed) for cell in cells} == {
        (method, seed) for method in ("baseline", "ce", "sr", "sroe") for seed in (0, 1)
    }
    text = (whole / "results/table1-smoke.md").read_text()
    assert "not run" not in text and "missing" not in text
