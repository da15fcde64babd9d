"""What a run prints where there is no terminal."""

from __future__ import annotations

import train.reporting
from train.reporting import training_progress


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
