"""Told to stop by Ctrl-C (SIGINT) or SIGTERM at random points: one line, the right exit code, and a way to go on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator

from torture import processes
from torture.processes import Ended
from torture.trial import Effort, Trial
from torture.works import (
    Undisturbed,
    Work,
    dice_of,
    difference,
    said,
    scratch,
    several,
    strike_at,
    undisturbed,
    works,
)

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
OFTEN = ("curate build", "srood train")
SELDOM = ("curate publish", "curate pull", "curate merge", "curate select", "curate export", "curate rebuild")
SAVES = ("curate build", "curate rebuild", "srood train")  # exit with 0 after SIGTERM: what was done is kept


def told_to_stop(effort: Effort) -> Iterator[Trial]:
    """Both signals to every command that takes long."""
    known = works(effort.folder)
    for name in OFTEN[:1] if effort.quick else OFTEN + SELDOM:
        work = known[name]
        whole = undisturbed(work, effort.folder / name.replace(" ", "-"))
        for number in NAMES:
            times = effort.times(20 if name in OFTEN else 5, 1)
            yield from several(
                effort, times, lambda i, work=work, whole=whole, number=number: _trial(effort, work, whole, number, i)
            )


def _trial(effort: Effort, work: Work, whole: Undisturbed, number: int, which: int) -> Trial:
    dice = dice_of(effort, "told to stop", work.name, number, which)
    fault = f"{NAMES[number]} to `{work.name}`"
    folder = scratch(effort)
    try:
        with work.case(folder) as case:
            process = case.start()
            strike_at(case, process, whole, dice)
            # a terminal sends Ctrl-C to all processes of a command, a scheduler SIGTERM to the first
            processes.kill(process, number) if number == signal.SIGINT else process.send_signal(number)
            ended = processes.finish(process)
            outcome, wrong = _judged(ended, work, number)
            again = case.go_on()
            wrong = wrong or (said(again) if again.code else difference(case.result(), whole.result))
            return Trial(fault, outcome, not wrong, f"{work.name}, trial {which}: {wrong}; first {said(ended)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(ended: Ended, work: Work, number: int) -> tuple[str, str]:
    """What happened, and what is wrong with it."""
    told = [line for line in ended.err.splitlines() if f"stopped by {signal.Signals(number).name}" in line]
    if not told:
        if ended.code == 0 and not ended.traceback:
            return "was over before; the same bytes", ""
        if ended.code == -number and (not ended.traceback or "srood/commands.py" not in ended.err):
            return "came before Python had loaded the command, or after its end; goes on to the same bytes", ""
        return "did not end by one line", said(ended)
    kept = 0 if number == signal.SIGTERM else 128 + number
    allowed = {kept, 128 + number} if work.name in SAVES else {128 + number}  # 143 where nothing was begun
    wrong = "" if ended.code in allowed and len(told) == 1 and not ended.traceback else said(ended)
    return "one line that says how to go on, which gives the same bytes", wrong
