"""Killed (SIGKILL) at random points and run again: the bytes of a run that nothing disturbed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from torture import processes
from torture.trial import Effort, Trial
from torture.works import (
    Case,
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

OFTEN = ("curate build", "curate publish", "srood train")
SELDOM = ("curate merge", "curate select", "curate export", "curate rebuild", "curate pull")
TRIES = 5  # draws of a point until one lies within the run
AGAIN = 4  # every so many trials, the run that goes on is killed too


def killed(effort: Effort) -> Iterator[Trial]:
    """SIGKILL of every command that writes."""
    known = works(effort.folder)
    for name in OFTEN + (() if effort.quick else SELDOM):
        work, number = known[name], effort.times(50 if name in OFTEN else 10, 1)
        whole = undisturbed(work, effort.folder / name.replace(" ", "-"))
        yield from several(effort, number, lambda i, work=work, whole=whole: _trial(effort, work, whole, i))


def _trial(effort: Effort, work: Work, whole: Undisturbed, number: int) -> list[Trial]:
    made: list[Trial] = []
    for attempt in range(TRIES):
        dice = dice_of(effort, "killed", work.name, number, attempt)
        twice = number % AGAIN == AGAIN - 1
        folder = scratch(effort)
        try:
            with work.case(folder) as case:
                fault = f"`{work.name}` killed{', and killed again as it goes on' if twice else ''}"
                process = case.start()
                within = strike_at(case, process, whole, dice)
                processes.kill(process)
                processes.finish(process)
                if within and twice:
                    process = case.start(case.again())
                    strike_at(case, process, whole, dice)
                    processes.kill(process)
                    processes.finish(process)
                made.append(_finished(fault, case, whole, within, f"{work.name}, trial {number}, draw {attempt}"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if within:
            break
    return made


def _finished(fault: str, case: Case, whole: Undisturbed, within: bool, which: str) -> Trial:
    ended = case.go_on()
    wrong = difference(case.result(), whole.result)
    if ended.code or wrong:
        return Trial(fault, "did not go on to the same bytes", False, f"{which}: {wrong} {said(ended)}")
    return Trial(fault, "went on to the same bytes" if within else "was over before; drawn again", True)
