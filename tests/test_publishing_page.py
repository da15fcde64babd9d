"""The commands and programs of docs/publishing.md, one after the other, against a Hub on this machine."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from digits_images import write_digits
from hub_server import HubServer
from published_sets import hub_environment

from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights

PAGE = (Path(__file__).parent.parent / "docs" / "publishing.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    ((?:curate|srood) .*)$", PAGE, flags=re.M)
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
MODULES = {"curate": "curate", "srood": "train"}


@pytest.fixture
def desk(built_set, tmp_path) -> Path:
    """A working folder with a set in manifests/, small ID images and a classifier to start from."""
    shutil.copytree(built_set.parent, tmp_path / "desk" / "manifests")
    write_digits(tmp_path / "desk" / "digits", train=16)
    info = WeightsInfo("resnet20", None, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    torch.manual_seed(0)
    save_weights(tmp_path / "desk" / "start.safetensors", build_model("resnet20", 10).state_dict(), info)
    return tmp_path / "desk"


def test_every_command_and_program_runs(desk, token, tmp_path):
    assert len(COMMANDS) >= 9 and len(PROGRAMS) == 2
    with HubServer() as server:
        server.writers[token] = ["owner"]
        environment = hub_environment(server, tmp_path / "hf", HF_TOKEN=token)

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command], cwd=desk, env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, (command, done.stderr)
            assert token not in done.stdout + done.stderr
            return done.stdout

        for number, line in enumerate(COMMANDS):
            program, *arguments = shlex.split(line)
            if program == "srood":  # the page trains on CIFAR-10
                small = f"--id digits --model resnet20 --checkpoint start.safetensors --max-steps 1 --out run-{number}"
                arguments += [*small.split(), "--batch-size", "8", "--outlier-batch-size", "8", "--device", "cpu"]
            shutil.rmtree(desk / "repo", ignore_errors=True)  # a dry run wants a new folder
            run("-m", MODULES[program], *arguments)
        assert (desk / "sets" / "mini.h5").is_file()
        outputs = [run("-c", program) for program in PROGRAMS]
    assert outputs[0].startswith("(32, 32) things.parquet#")
    assert outputs[1] == "(2, 32, 32, 3)\n"
