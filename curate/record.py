"""What a build counts and records: rows per stage, contamination by labels, versions of the software."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import version
from typing import Any

import numpy as np

import srood

_WEAKENED_BY = {  # the option, by the reason for which rows were dropped or by the stage
    "blank": "--quality none",
    "near-constant": "--quality none",
    "enlarged too much": "--max-upscale",
    "excluded labels": "--exclude-labels",
    "ID-class neighbours": "--id-recall",
}


class Tally:
    """Rows that each stage saw, and how many it dropped for which reason. Tallies of batches add up."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, Any]] = {}
        self.labelled = {"rows": 0, "showing_id": 0}

    def add(self, stage: str, seen: int, dropped: dict[str, int]) -> None:
        """Count rows a stage saw and dropped."""
        entry = self.stages.setdefault(stage, {"seen": 0, "dropped": {}})
        entry["seen"] += seen
        for reason, count in dropped.items():
            if count:
                entry["dropped"][reason] = entry["dropped"].get(reason, 0) + count

    def labels_before(self, labels: np.ndarray, showing_id: dict[int, str]) -> None:
        """Count labelled rows, and those whose label shows an ID class, before labels are excluded."""
        self.labelled["rows"] += int((labels >= 0).sum())
        self.labelled["showing_id"] += _showing(labels, showing_id)

    def left(self, stage: str) -> int:
        """Rows that a stage has let through so far."""
        entry = self.stages.get(stage, {"seen": 0, "dropped": {}})
        return int(entry["seen"] - sum(entry["dropped"].values()))

    def table(self) -> list[dict[str, Any]]:
        """One entry a stage, in order: name, seen, dropped (by reason), left."""
        return [
            {"stage": name, "seen": entry["seen"], "dropped": entry["dropped"], "left": self.left(name)}
            for name, entry in self.stages.items()
        ]

    def reasons(self, most: int = 3) -> str:
        """The reasons for which most rows were dropped, with their counts: "1,200 unreadable file, 3 too dark"."""
        counts: Counter[str] = Counter()
        for entry in self.stages.values():
            counts.update(entry["dropped"])
        return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(most))

    def weakened_by(self) -> list[str]:
        """The options that would let rows through which were dropped, in the order of the stages."""
        dropped = [(reason, stage) for stage, entry in self.stages.items() for reason in entry["dropped"]]
        options = [_WEAKENED_BY.get(reason, _WEAKENED_BY.get(stage, "")) for reason, stage in dropped]
        return [option for option in dict.fromkeys(options) if option]

    def to_json(self) -> str:
        """As text, to be stored with a part."""
        return json.dumps({"stages": self.stages, "labelled": self.labelled})

    def add_json(self, text: str) -> None:
        """Add a stored tally to this one."""
        stored = json.loads(text)
        for stage, entry in stored["stages"].items():
            self.add(stage, entry["seen"], entry["dropped"])
        for key, count in stored["labelled"].items():
            self.labelled[key] += count


def _showing(labels: np.ndarray, showing_id: dict[int, str]) -> int:
    return int(np.isin(labels, np.fromiter(showing_id, np.int64, len(showing_id))).sum())


def measured_contamination(
    tally: Tally, kept: np.ndarray, showing_id: dict[int, str]
) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """Share of labelled rows whose label shows an ID class, in the corpus and among the kept rows.

    None where labels say nothing: no labels, or none of them is known to show an ID class. Beside the shares, the
    counts that they are of: rows showing an ID class, rows with a label.
    """
    labelled = int((kept >= 0).sum())
    known = bool(showing_id) and tally.labelled["rows"] > 0
    counts = {
        "corpus": (tally.labelled["showing_id"], tally.labelled["rows"]),
        "kept": (_showing(kept, showing_id), labelled),
    }
    shares = {
        "measured_by": "labels" if known else None,
        "corpus": round(tally.labelled["showing_id"] / tally.labelled["rows"], 6) if known else None,
        "kept": round(_showing(kept, showing_id) / labelled, 6) if known and labelled else None,
        "labelled_rows_kept": labelled,
    }
    return shares, counts


def versions() -> dict[str, str]:
    """Versions of the software that decides what is written."""
    names = ("numpy", "pillow", "faiss-cpu", "torch", "h5py", "pyarrow")
    return {"srood": srood.__version__, **{name: version(name) for name in names}}
