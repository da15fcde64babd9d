"""Two processes that write one output: the second is refused while the first runs, and a dead one holds nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

from torture import processes
from torture.processes import Ended
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
    undisturbed,
    until_begun,
    works,
)

NAMES = ("curate build", "srood train", "curate pull", "curate export")


def races(effort: Effort) -> Iterator[Trial]:
    """The same command twice at random delays, and again after the first was killed."""
    known = works(effort.folder)
    for name in NAMES[:1] if effort.quick else NAMES:
        work = known[name]
        whole = undisturbed(work, effort.folder / name.replace(" ", "-"))
        yield from several(effort, effort.times(20, 1), lambda i, w=work, u=whole: _race(effort, w, u, i))
        yield from several(effort, effort.times(5, 0), lambda i, w=work, u=whole: _dead_holder(effort, w, u, i))


def _race(effort: Effort, work: Work, whole: Undisturbed, number: int) -> Trial:
    """Both begin at the same time, or one while the other writes."""
    dice = dice_of(effort, "race", work.name, number)
    fault = f"two `{work.name}` into one place"
    folder = scratch(effort)
    try:
        with work.case(folder) as case:
            first = case.start()
            if number % 2:
                until_begun(case, first)
            time.sleep(dice.uniform(0, 0.3))
            second = case.start(case.again())
            ended = [processes.finish(first), processes.finish(second)]
            outcome, right = _outcome(ended)
            wrong = "" if right else " and ".join(map(said, ended))
            wrong = wrong or _wrong_at_last(case, whole)
            return Trial(fault, outcome, not wrong, f"{work.name}, trial {number}: {wrong}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _outcome(ended: list[Ended]) -> tuple[str, bool]:
    refused = [one for one in ended if one.code == 2]
    if (
        any(one.traceback for one in ended)
        or sum(one.code == 0 for one in ended) + len(refused) != 2
        or len(refused) > 1
    ):
        return "neither both done nor one refused", False
    if not refused:
        return "one after the other; the same bytes", True
    (line,) = refused[0].errors or [""]
    if "is being written by process" in line:
        return "the second refused by a line that names the first; the same bytes", True
    if "is not empty" in line or "holds files already" in line or "exists with other content" in line:
        return "the second came when the first was done, and was refused; the same bytes", True
    return "refused by another line", False


def _wrong_at_last(case: Case, whole: Undisturbed) -> str:
    return difference(case.result(), whole.result)


def _dead_holder(effort: Effort, work: Work, whole: Undisturbed, number: int) -> Trial:
    """The first is killed while it holds the lock."""
    dice = dice_of(effort, "dead", work.name, number)
    fault = f"`{work.name}` where one was killed that held the lock"
    folder = scratch(effort)
    try:
        with work.case(folder) as case:
            first = case.start()
            until_begun(case, first)
            time.sleep(dice.uniform(0, 0.2))
            processes.kill(first)
            processes.finish(first)
            again = case.go_on()
            wrong = said(again) if again.code else _wrong_at_last(case, whole)
            return Trial(fault, "not refused; the same bytes", not wrong, f"{work.name}, trial {number}: {wrong}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
