"""Counting trials, and the page made of the counts."""

import json
from pathlib import Path

from torture import table
from torture.areas import AREAS
from torture.processes import ROOT
from torture.trial import Effort, Trial


def area(entries, share=1.0):
    return {"share": share, "seed": 0, "seconds": 250.0, "faults": entries}


def test_trials_are_counted_by_fault_and_outcome():
    tried = [Trial("disk full", "one line", True)] * 3 + [Trial("killed", "same bytes", True)]
    tried += [Trial("disk full", "traceback", False, "seed 4")]
    assert table.count(tried) == [
        {
            "fault": "disk full",
            "tried": 4,
            "outcomes": {"one line": 3, "traceback": 1},
            "failed": 1,
            "details": ["seed 4"],
        },
        {"fault": "killed", "tried": 1, "outcomes": {"same bytes": 1}, "failed": 0, "details": []},
    ]


def test_only_the_tables_of_the_page_are_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Top\n\n{table.BEGIN}old\n{table.END}\nrest\n")
    table.put_into(page, {"areas": {"disks": area(table.count([Trial("a | b", "one line", True)] * 1200))}})
    text = page.read_text()
    assert text.startswith("# Top\n\n" + table.BEGIN + "\n### disks\n") and text.endswith(table.END + "\nrest\n")
    assert "| a \\| b | 1,200 | one line | 0 |" in text and "old" not in text


def test_measured_figures_stand_beside_the_outcome():
    entries = table.count(
        [Trial("an hour", "flat", True, note="512 MB to 514 MB"), Trial("killed", "same bytes", True)]
    )
    assert [entry.get("notes") for entry in entries] == [["512 MB to 514 MB"], None]
    lines = table.lines({"areas": {"load": area(entries, 0.25)}})
    assert "| an hour | 1 | flat. 512 MB to 514 MB | 0 |" in lines and "| killed | 1 | same bytes | 0 |" in lines

    assert "\n2 trials, 0 failed; 4 minutes, 25% of the repetitions.\n" in lines


def test_trials_that_break_count_as_one_that_failed(capsys):
    def trials():
        yield Trial("disk full", "traceback", False, "seed 4")
        raise RuntimeError("no such folder")

    found = list(table.watched("disks", trials()))
    assert [trial.passed for trial in found] == [False, False]
    assert found[1].outcome == "ended early by an error of their own"
    assert found[1].detail.endswith("RuntimeError: no such folder\n")
    assert capsys.readouterr().err.startswith("failed: disk full: traceback: seed 4\nfailed: disks: ")


def test_a_share_of_the_repetitions_is_never_none():
    effort = Effort(Path("somewhere"), share=0.1)
    assert [effort.times(*both) for both in ((50, 1), (300, 10), (4, 1), (4, 0), (0, 0))] == [5, 30, 1, 1, 0]
    assert Effort(Path("somewhere"), quick=True, share=0.1).times(50, 1) == 1


def test_the_page_says_what_the_last_run_counted():
    results = json.loads((ROOT / "results" / "torture.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert table.BEGIN + table.lines(results) + table.END in page
    assert set(results["areas"]) <= set(AREAS)
