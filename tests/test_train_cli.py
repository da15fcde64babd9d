"""The `srood` command from its arguments to its exit codes, and the settings behind it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from digits_images import write_digits, write_noise
from PIL import Image
from safetensors.torch import load_file, save_file

from srood import __version__
from srood.errors import InputError
from srood.losses import ALPHA, BETA
from srood.methods import METHODS
from srood.metrics import DEFAULT_CONVENTION
from srood.models import MODELS, build_model
from srood.models.weights import WeightsInfo, load_model, save_weights
from srood.scores import SCORES
from train import cli
from train.commands import evaluation, training
from train.commands.options import MODEL_HELP
from train.config import PretrainConfig, TuneConfig, make_config, read_config
from train.devices import resolve_precision
from train.evaluation.evaluate import evaluate
from train.evaluation.protocol import settings_of

SMALL = ["--model", "resnet20", "--batch-size", "8", "--max-steps", "2", "--device", "cpu", "--precision", "32-true"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder, so that ``runs`` is the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def srood(here, monkeypatch, capfd):
    """Runs the command in this process; returns (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["srood", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = 0 if end.value.code is None else end.value.code
        return (code, *capfd.readouterr())

    return run


def _error(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 2, err
    assert out == ""
    lines = err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in err
    return lines[-1]


def test_help_and_version_are_quick():
    for arguments, expected in ((["--help"], "pretrain"), (["--version"], f"srood {__version__}")):
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "train.cli", *arguments], capture_output=True, text=True)
        assert done.returncode == 0
        assert expected in done.stdout
        assert time.monotonic() - started < 10
    code = "import sys, train.cli; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0  # what makes it quick


def test_defaults_of_the_command_are_those_of_the_configuration():
    for command, config in ((training.pretrain, PretrainConfig()), (training.train, TuneConfig())):
        for name, parameter in inspect.signature(command).parameters.items():
            if name not in ("context", "out", "resume", "seeds", "protocol", "method_option", "outliers"):
                assert parameter.default == getattr(config, name), name
        left_out = set(type(config).model_fields) - set(inspect.signature(command).parameters)
        assert left_out == ({"method_options", "outlier_blocks"} if command is training.train else set())
    assert METHODS["sroe"].options == {"alpha": ALPHA, "beta": BETA, "outlier_sparsity": 0}
    assert (ALPHA, BETA) == (0.02, 0.5)
    of_command, of_function = (inspect.signature(f).parameters for f in (evaluation.evaluate, evaluate))
    for name in set(of_command) - {"run", "ood", "score", "id", "format"}:
        assert of_command[name].default == of_function[name].default, name
    settings = settings_of(None, None, 0.95, ["default"], None, None, None)
    assert (settings.convention, settings.scores, settings.draws) == (DEFAULT_CONVENTION, tuple(SCORES), None)
    assert all(name in MODEL_HELP for name in MODELS)


def test_the_recipe_is_the_papers():
    pretrain, tune = PretrainConfig(), TuneConfig(outliers="mini.h5")
    assert (pretrain.epochs, pretrain.batch_size, pretrain.lr) == (100, 128, 0.1)
    assert (tune.epochs, tune.batch_size, tune.outlier_batch_size, tune.lr) == (10, 128, 256, 0.001)
    for config in (pretrain, tune):
        assert (config.momentum, config.weight_decay, config.final_lr, config.crop_padding) == (0.9, 5e-4, 1e-6, 4)
    assert [pretrain.workflow, TuneConfig().workflow, tune.workflow] == ["pretrain", "sr", "sroe"]


def test_the_whole_path(srood, here):
    id_set = write_digits(here / "digits", train=40, test=40)
    outliers = write_noise(here / "outliers")
    code, out, err = srood("train", "--id", id_set, "--outliers", outliers, "--seed", 1, *SMALL)
    assert (code, out) == (0, "runs/digits-resnet20-sroe-s1\n"), err
    assert "pretraining first" in err
    first = Path("runs/digits-resnet20-pretrain-s1")
    assert read_config(first).max_steps == 2
    assert read_config(Path(out.strip())).checkpoint == first / "model.safetensors"  # type: ignore[union-attr]

    code, out, err = srood("pretrain", "--id", id_set, *SMALL)
    assert (code, out) == (0, "runs/digits-resnet20-pretrain-s0\n")
    code, out, err = srood("train", "--id", id_set, *SMALL)
    assert (code, out) == (0, "runs/digits-resnet20-sr-s0\n")
    assert "starting from the newest pretrained run, runs/digits-resnet20-pretrain-s0 (2 steps)" in err
    code, out, err = srood("train", "--id", id_set, *SMALL)
    assert (code, out) == (0, "runs/digits-resnet20-sr-s0-2\n")
    a, b = (load_file(f"runs/digits-resnet20-sr-s0{suffix}/model.safetensors") for suffix in ("", "-2"))
    assert all(torch.equal(a[name], b[name]) for name in a)

    code, out, err = srood("eval", "runs/digits-resnet20-sr-s0", "--ood", id_set / "train.parquet")
    assert code == 0, err
    assert "FPR95 ood-positive" in out
    assert json.loads(Path("runs/digits-resnet20-sr-s0/eval.json").read_text())["id"]["images"] == 40

    before = sorted(path.name for path in Path("runs/digits-resnet20-sr-s0").iterdir())
    Path("runs/digits-resnet20-sr-s0/.lock").write_text("process 1 on a host that was switched off\n")
    assert srood("train", "--resume", "runs/digits-resnet20-sr-s0")[0] == 0  # finished: nothing to do
    assert sorted(path.name for path in Path("runs/digits-resnet20-sr-s0").iterdir()) == before
    assert "--lr: cannot be given with --resume" in _error(srood("train", "--resume", "runs/x", "--lr", 0.1))


def test_mistakes_give_one_line_and_leave_nothing(srood, here):
    id_set = write_digits(here / "digits", train=16, test=8)
    large = write_noise(here / "large", size=64)
    torch.manual_seed(0)
    start, nine = here / "start.safetensors", here / "nine.safetensors"
    save_weights(start, build_model("resnet20", 10).state_dict(), WeightsInfo("resnet20"))
    save_weights(nine, build_model("resnet20", 9).state_dict(), WeightsInfo("resnet20"))
    bare = here / "bare.safetensors"
    save_file(build_model("wrn-40-2", 10).state_dict(), bare)
    pickled = here / "old.pth"
    torch.save({}, pickled)
    taken = here / "taken"
    taken.mkdir()
    (taken / "file").touch()
    broken = write_noise(here / "broken")
    shard = next(broken.parent.glob("mini-*.h5"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))

    cases: list[tuple[list[object], list[str]]] = [
        (["--checkpoint", here / "nothing"], ["nothing", "no such run folder or weights file"]),
        (["--checkpoint", taken], ["taken", "is not a run folder"]),
        (["--checkpoint", bare], ["bare.safetensors", "not those of resnet20", "fc.weight has shape (10, 128)"]),
        (["--checkpoint", nine], ["nine.safetensors", "has 9 classes", "has 10"]),
        (["--checkpoint", pickled], ["old.pth", "not a safetensors file"]),
        (["--outliers", here / "nothing.h5"], ["nothing.h5", "no such outlier set"]),
        (["--outliers", broken], [shard.name, "was altered"]),
        (["--outliers", large], ["mini.h5", "64x64", "32x32", "--image-size 32"]),
        (["--model", "alexnet"], ["alexnet", "resnet20, wrn-40-2"]),
        (["--device", "tpu9"], ["--device tpu9"]),
        (["--precision", "fp8"], ["--precision 'fp8'"]),
        (["--outlier-batch-size", "8"], ["--outlier-batch-size", "there are no outliers; give --outliers"]),
        (["--lr", "-1"], ["--lr -1"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--id", here / "nowhere"], ["nowhere", "neither a named set"]),
        (["--out", taken], ["taken", "not empty", "--resume"]),
        (["--resume", here / "nowhere"], ["nowhere", "not a run folder"]),
    ]
    before = {path for path in here.rglob("*")}
    for options, words in cases:
        shared: list[object] = [] if options[0] == "--resume" else ["--id", id_set, *SMALL, "--checkpoint", start]
        line = _error(srood("train", *shared, *options))
        for word in words:
            assert word in line, line
        assert {path for path in here.rglob("*")} == before, options
    shard.unlink()
    assert "is missing" in _error(srood("train", "--id", id_set, "--outliers", broken, *SMALL, "--checkpoint", start))
    assert "no such run folder" in _error(srood("eval", here / "nothing", "--ood", "textures"))


def test_an_id_set_without_labels_is_refused(srood, here):
    id_set = write_digits(here / "digits", train=16, test=8)
    flat = here / "flat"
    flat.mkdir()
    Image.new("RGB", (32, 32)).save(flat / "a.png")
    assert "1 of 1 images have no label" in _error(srood("pretrain", "--id", flat, *SMALL))
    assert srood("pretrain", "--id", id_set, *SMALL)[0] == 0


def test_an_unfinished_run_is_not_overwritten(srood, here):
    id_set = write_digits(here / "digits", train=16, test=8)
    assert srood("pretrain", "--id", id_set, *SMALL)[0] == 0
    run = Path("runs/digits-resnet20-pretrain-s0")
    (run / "model.safetensors").unlink()
    line = _error(srood("pretrain", "--id", id_set, *SMALL))
    assert f"--resume {run}" in line
    assert "not finished" in _error(srood("eval", run, "--ood", id_set / "test.parquet"))
    assert srood("pretrain", "--resume", run)[0] == 0  # from the checkpoint of its last step
    assert load_model(run / "model.safetensors")[1].arch == "resnet20"


def test_a_configuration_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(InputError, match=r"--alhpa is unknown"):
        make_config(TuneConfig, {"alhpa": 1.0})
    values = {"workflow": "sr", "lr": 0.1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert read_config(tmp_path).lr == 0.1
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**values, "learning_rate": 1}))
    with pytest.raises(InputError, match=r"config\.yaml: setting learning_rate is unknown"):
        read_config(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**values, "workflow": "dpo"}))
    with pytest.raises(InputError, match=r"config\.yaml: workflow is 'dpo'"):
        read_config(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        TuneConfig().lr = 1.0  # type: ignore[misc]


def test_precision_names():
    cpu = torch.device("cpu")
    assert resolve_precision("32-true", cpu) == "32-true"
    assert resolve_precision("bf16-mixed", cpu) == "bf16-mixed"
    assert resolve_precision("auto", torch.device("mps")) == "32-true"
    with pytest.raises(InputError, match="--precision 16"):
        resolve_precision("16", cpu)


def test_an_id_set_of_folders_in_a_size_of_its_own(srood, here):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cups", "ñandúes"):
            for number in range(6):
                folder = here / "photos" / split / name
                folder.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    options = ["--id", "photos", "--image-size", "64", *SMALL]
    code, out, err = srood("pretrain", *options)
    assert (code, out) == (0, "runs/photos-resnet20-pretrain-s0\n"), err
    info = load_model(Path(out.strip()) / "model.safetensors")[1]
    assert (info.class_names, info.image_size, info.dataset) == (("cups", "ñandúes"), 64, "photos")
    code, out, err = srood("eval", out.strip(), "--ood", "photos/train")
    assert code == 0, err
    assert "12 images of photos/test" in out
    code, out, err = srood("train", *options)  # SR, from the pretrained run
    assert (code, out) == (0, "runs/photos-resnet20-sr-s0\n"), err
