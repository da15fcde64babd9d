"""Counts of trials, and the table of docs/reliability.md that is made of them."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torture.trial import Trial

EVERY = 60.0  # seconds between two lines that say how far an area is
BEGIN, END = "<!-- made by `make torture` -->\n", "<!-- end -->\n"


def count(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """One entry a fault, in the order in which they came: how often tried, outcomes with counts, failures."""
    outcomes: dict[str, Counter[str]] = {}
    failures: dict[str, list[str]] = {}
    notes: dict[str, list[str]] = {}
    for trial in trials:
        outcomes.setdefault(trial.fault, Counter())[trial.outcome] += 1
        if not trial.passed:
            failures.setdefault(trial.fault, []).append(trial.detail)
        if trial.note:
            notes.setdefault(trial.fault, []).append(trial.note)
    return [
        {
            "fault": fault,
            "tried": sum(found.values()),
            "outcomes": dict(found.most_common()),
            "failed": len(failures.get(fault, [])),
            "details": failures.get(fault, [])[:20],
            **({"notes": notes[fault]} if fault in notes else {}),
        }
        for fault, found in outcomes.items()
    ]


def watched(area: str, trials: Iterable[Trial]) -> Iterator[Trial]:
    """Trials as they come; says each minute how many there were, and at once which failed.

    Where the trials themselves break, that is one more that failed, and what came before them counts.
    """
    number = failed = 0
    said = time.monotonic()
    try:
        for trial in trials:
            number += 1
            if not trial.passed:
                failed += 1
                print(f"failed: {trial.fault}: {trial.outcome}: {trial.detail}", file=sys.stderr, flush=True)
            if time.monotonic() - said > EVERY:
                said = time.monotonic()
                print(f"{area}: {number:,} trials, {failed:,} failed", file=sys.stderr, flush=True)
            yield trial
    except Exception:
        detail = traceback.format_exc(limit=-3)
        print(f"failed: {area}: {detail}", file=sys.stderr, flush=True)
        yield Trial("the trials of this area", "ended early by an error of their own", False, detail)


def lines(results: dict[str, Any]) -> str:
    """The table of all areas in Markdown: `results` is what `python -m torture --json` writes."""
    made = []
    for area, found in results["areas"].items():
        entries = found["faults"]
        tried, failed = (sum(entry[key] for entry in entries) for key in ("tried", "failed"))
        part = "" if found["share"] == 1 else f", {found['share']:.0%} of the repetitions"
        made.append(f"\n### {area}\n")
        made.append(f"{tried:,} trials, {failed:,} failed; {max(1, round(found['seconds'] / 60)):,} minutes{part}.\n")
        made += ["| fault or bad input | tried | what happened | failed |", "|---|---:|---|---:|"]
        for entry in entries:
            several = len(entry["outcomes"]) > 1
            what = "; ".join(f"{name} ({times:,})" if several else name for name, times in entry["outcomes"].items())
            what = ". ".join([what, *entry.get("notes", [])])
            made.append(f"| {_cell(entry['fault'])} | {entry['tried']:,} | {_cell(what)} | {entry['failed']:,} |")
    return "\n".join(made) + "\n"


def put_into(page: Path, results: dict[str, Any]) -> None:
    """Replace the tables of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(before + BEGIN + lines(results) + END + rest.partition(END)[2], encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
