"""Outputs are computed once: what is found again, what is not, and what becomes of a damaged file."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_images import write_digits
from digits_runs import SIZE, make_run, write_ood
from safetensors.torch import load_file, save_file

from srood.errors import InputError
from srood.models import build_model
from train.evaluation import eval_images, output_cache, passes
from train.evaluation.evaluate import evaluate
from train.evaluation.output_cache import OutputCache
from train.evaluation.outputs import forward_code
from train.evaluation.score_files import read_scores


@pytest.fixture
def id_set(tmp_path) -> Path:
    return write_digits(tmp_path / "digits", train=30, test=20)


@pytest.fixture
def run(tmp_path, id_set) -> Path:
    return make_run(tmp_path / "run", id_set)


@pytest.fixture
def ood(tmp_path) -> str:
    return str(write_ood(tmp_path / "ood.parquet", 12))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes most of the time of an evaluation as small as these."""
    monkeypatch.setattr("train.evaluation.evaluate.plot_histograms", lambda *_: None)
    monkeypatch.setattr("train.evaluation.evaluate.plot_roc", lambda *_: None)


@pytest.fixture
def passed(monkeypatch) -> list[int]:
    """Numbers of images of the passes that were made, forward ones and ODIN's batches."""
    made: list[int] = []
    real_forward, real_odin = passes.forward, passes.odin

    def forward(model, images, *rest):
        made.append(len(images))
        return real_forward(model, images, *rest)

    def odin(model, x, *rest):
        made.append(-len(x))
        return real_odin(model, x, *rest)

    monkeypatch.setattr(passes, "forward", forward)
    monkeypatch.setattr(passes, "odin", odin)
    return made


def _figures(result) -> dict:
    return {key: result[key] for key in ("id_accuracy", "ood", "mean", "weights", "convention")}


def test_more_scores_need_no_further_pass_over_what_was_seen(run, ood, passed):
    first = evaluate(run, [ood], device="cpu")
    assert passed == [20, 12]
    passed.clear()
    assert evaluate(run, [ood], device="cpu") == first
    evaluate(run, [ood], device="cpu", scores=["energy", "gen"], tpr=0.9)
    assert passed == []
    evaluate(run, [ood], device="cpu", scores=["react"])  # is fitted on the training images
    assert passed == [30]
    passed.clear()
    evaluate(run, [ood], device="cpu", scores=["odin", "vra"])  # has a pass of its own
    assert passed == [-20, -12]
    passed.clear()
    evaluate(run, [ood], device="cpu", scores=["all"])
    assert passed == []
    assert len(list((run / "cache").glob("*.safetensors"))) == 5


def test_without_a_cache_the_figures_are_the_same_and_nothing_is_kept(run, ood, passed):
    cached = evaluate(run, [ood], device="cpu")
    again = evaluate(run, [ood], device="cpu")
    shutil.rmtree(run / "cache")
    fresh = evaluate(run, [ood], device="cpu", cache=False)
    assert _figures(cached) == _figures(again) == _figures(fresh)
    assert passed == [20, 12] * 2
    assert not (run / "cache").exists()


def test_other_weights_images_or_precision_are_computed_anew(run, ood, passed, id_set, tmp_path):
    before = evaluate(run, [ood], device="cpu")
    scores_before = read_scores(run / "eval-scores.npz", "energy")
    passed.clear()
    evaluate(run, [ood], device="cpu", precision="bf16-mixed")
    assert passed == [20, 12]
    passed.clear()

    write_ood(Path(ood), 12, seed=1)  # other images under the same name
    other = evaluate(run, [ood], device="cpu")
    assert passed == [12]
    assert other["ood"][ood]["fingerprint"] != before["ood"][ood]["fingerprint"]
    assert not np.array_equal(read_scores(run / "eval-scores.npz", "energy")[ood], scores_before[ood])
    passed.clear()

    shutil.copy(make_run(tmp_path / "other", id_set, seed=1) / "model.safetensors", run / "model.safetensors")
    assert evaluate(run, [ood], device="cpu")["weights"] != other["weights"]
    assert passed == [20, 12]


def test_a_damaged_file_is_ignored_and_written_anew(run, ood, passed):
    expected = evaluate(run, [ood], device="cpu")
    files = sorted((run / "cache").glob("*.safetensors"))
    whole = files[0].read_bytes()
    last_byte = bytearray(whole)
    last_byte[-1] ^= 1
    tensors = {name: value.clone() for name, value in load_file(files[0]).items()}
    damages = [
        lambda: files[0].write_bytes(bytes(last_byte)),
        lambda: files[0].write_bytes(whole[:-100]),
        lambda: files[0].write_bytes(b""),
        lambda: save_file(tensors, files[0]),  # whole, but nothing says of what
        lambda: shutil.copy(files[1], files[0]),
        files[0].unlink,
    ]
    for damage in damages:
        damage()
        passed.clear()
        assert evaluate(run, [ood], device="cpu") == expected
        assert len(passed) == 1
        again = load_file(files[0])
        assert all(torch.equal(again[name], values) for name, values in tensors.items())
    assert not list((run / "cache").glob("*.partial"))


def test_a_cache_that_cannot_be_written_costs_only_time(run, ood, passed, capfd):
    (run / "cache").touch()  # a file where the folder should be
    result = evaluate(run, [ood], device="cpu")
    assert "cannot be written" in capfd.readouterr().err
    assert _figures(result) == _figures(evaluate(run, [ood], device="cpu", cache=False))
    assert passed == [20, 12] * 2


def test_a_weights_file_keeps_its_outputs_in_the_output_folder(run, ood, passed, tmp_path):
    for _ in range(2):
        evaluate(run / "model.safetensors", [ood], device="cpu", out=tmp_path / "out")
    assert passed == [20, 12]
    assert len(list((tmp_path / "out" / "cache").iterdir())) == 2
    assert not (run / "cache").exists()


def test_what_was_not_used_for_longest_goes_when_there_is_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(output_cache, "LIMIT", 3500)
    cache = OutputCache(tmp_path / "cache", {"weights": "w"})
    for number in range(4):
        cache.store("outputs", f"set {number}", {"logits": torch.full((200,), float(number))})  # about 1,000 bytes
        for path in (tmp_path / "cache").iterdir():
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))  # time passes
        if number < 3:
            assert torch.equal(cache.load("outputs", "set 0")["logits"], torch.zeros(200))  # which is a use
    kept = [number for number in range(4) if cache.load("outputs", f"set {number}") is not None]
    assert kept == [0, 2, 3]


def test_the_code_of_another_network_or_package_is_another_code(monkeypatch):
    resnet = forward_code(build_model("resnet20", 10))
    assert resnet == forward_code(build_model("resnet20", 3))
    assert resnet != forward_code(build_model("wrn-40-2", 10))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    assert resnet != forward_code(build_model("resnet20", 10))


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Makes an imported module one whose file was changed."""

    def change(name: str) -> None:
        module = sys.modules[name]
        copy = tmp_path / f"{name}.py"
        copy.write_text(Path(module.__file__).read_text() + "\n# changed\n")
        monkeypatch.setattr(module, "__file__", str(copy))

    return change


@pytest.mark.parametrize("module", ["srood.normalisation", "srood.precision", "srood.models.resnet"])
def test_a_change_of_a_module_that_outputs_come_from_is_another_code(edit, module):
    before = forward_code(build_model("resnet20", 10))
    edit(module)
    assert forward_code(build_model("resnet20", 10)) != before


def test_odin_is_computed_anew_with_other_code_and_outputs_are_not(run, ood, passed, edit, monkeypatch):
    def again() -> list[int]:
        passed.clear()
        evaluate(run, [ood], device="cpu", scores=["energy", "odin"])
        return list(passed)

    assert again() == [20, 12, -20, -12]
    assert again() == []
    edit("srood.odin")
    assert again() == [-20, -12]
    version = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0" if name == "pytorch-ood" else version(name))
    assert again() == [-20, -12]


def test_images_beyond_what_is_held_in_memory_are_read_again(run, ood, passed, monkeypatch):
    expected = evaluate(run, [ood], device="cpu", cache=False)
    monkeypatch.setattr(eval_images, "KEEP", 20 * SIZE * SIZE * 3)  # the test images and no more
    assert evaluate(run, [ood], device="cpu", cache=False) == expected
    assert passed == [20, 12] * 2

    real = eval_images.load_images

    def changed(*arguments):
        found = real(*arguments)
        write_ood(Path(ood), 12, seed=2)
        return found

    monkeypatch.setattr(eval_images, "load_images", changed)
    with pytest.raises(InputError, match="has changed while it was evaluated"):
        evaluate(run, [ood], device="cpu", cache=False)


def test_what_is_kept_is_what_the_network_gives(run, ood, id_set):
    from train.evaluation.subject import open_subject

    evaluate(run, [ood], device="cpu")
    sets = eval_images.load_images(ood, SIZE).images
    model = open_subject(run).classifier.eval()
    x = torch.from_numpy(((sets / 255 - 0.3) / 0.4).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        features = model.features(x)
        logits = features @ model.fc.weight.T + model.fc.bias
    kept = [load_file(path) for path in (run / "cache").iterdir()]
    (of_ood,) = [tensors for tensors in kept if len(tensors["logits"]) == 12]
    torch.testing.assert_close(of_ood["features"], features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(of_ood["logits"], logits, atol=1e-4, rtol=1e-4)
