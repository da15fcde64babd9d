"""What a run prints where there is no terminal."""

from __future__ import annotations

import json

import train.reporting
from train.reporting import training_progress
from train.runs import METRICS_FILE
from train.summary import say_summary


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train.reporting.time, "monotonic", lambda: now[0])
    with training_progress("sr resnet20", 100, 1100) as report:
        for step in range(101, 1101):  # exact in binary, unlike a tenth
            now[0] += 0.125
            report(step, f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    # 1000 steps of an eighth of a second: a line every 30 seconds, and one at the end
    assert [line.split("loss ")[1].split()[0] for line in lines] == ["340", "580", "820", "1060", "1100"]
    assert lines[0] == "sr resnet20: step 340 of 1,100  loss 340  1.6 min left"


def test_a_summary_names_the_run_as_it_is(tmp_path, capsys):
    run = tmp_path / "sr [u]" / "red]"
    run.mkdir(parents=True)
    line = {"step": 8, "seconds": 2.0, "images_per_second": 64.0, "loss": 0.5}
    (run / METRICS_FILE).write_text(json.dumps(line) + "\n")
    say_summary(run)
    assert f"measure it with: srood eval {run} --ood SET" in capsys.readouterr().err
