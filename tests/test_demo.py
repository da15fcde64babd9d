"""`srood demo` as a process; its steps are tested where they live."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srood.errors import InputError
from train import demo

pytest.importorskip("skimage")


def test_a_demo_from_end_to_end_with_fewer_epochs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PRETRAIN_EPOCHS", 1)
    monkeypatch.setattr(demo, "TUNE_EPOCHS", 1)
    results = demo.demo(tmp_path / "demo", device="cpu")
    assert list(results) == ["pretrained", "SR", "SROE"]
    printed = capsys.readouterr().out
    for result in results.values():
        assert f"{100 * result['id_accuracy']:.2f}" in printed
        assert [Path(name).stem for name in result["ood"]] == ["photographs", "textures", "print"]


def test_the_folder_of_a_demo_may_be_the_working_one_or_a_link_but_no_file(tmp_path, monkeypatch):
    def seen(folder: Path, seed: int) -> None:
        assert [path.name for path in folder.iterdir()] == ["made-by-srood-demo"]
        raise InputError("as far as this")

    monkeypatch.setattr(demo, "write_demo_images", seen)
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (Path("."), tmp_path / "link", tmp_path / "new"):
        with pytest.raises(InputError, match="as far as this"):
            demo.demo(folder)
        (folder / "earlier").mkdir()
        (folder / "earlier.h5").touch()
        with pytest.raises(InputError, match="as far as this"):  # what an earlier demo left is gone
            demo.demo(folder)
    with pytest.raises(InputError, match="--out .*file: is a file; name a folder"):
        demo.demo(tmp_path / "file")
    (tmp_path / "here" / "made-by-srood-demo").unlink()
    (tmp_path / "here" / "mine").touch()
    with pytest.raises(InputError, match="holds something else; name a new folder"):
        demo.demo(tmp_path / "here")
    assert (tmp_path / "here" / "mine").exists()


def test_a_demo_that_is_told_to_stop_says_so_in_one_line(tmp_path):
    out = tmp_path / "demo"
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "demo", "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = out / "pretrained" / "metrics.jsonl"  # written from the loop, which listens
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in said
    assert "stopped by SIGTERM after step" in said and "or all of it anew with the same `srood demo`" in said
