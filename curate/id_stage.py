"""The ID stage: rows as much like ID images as held-out ID images are. It sees the whole corpus at once."""

from __future__ import annotations

import numpy as np

from curate import idness
from curate.evidence import ID, ID_NESS, Batch, Evidence
from curate.record import Tally
from curate.reference import Reference
from curate.workspace import Workspace

STAGE = "ID-class neighbours"
REASON = "as near as held-out ID images"


def drop_id_rows(
    parts: list[dict[str, np.ndarray]],
    embedding: np.ndarray,
    reference: Reference,
    work: Workspace,
    tally: Tally,
    evidence: Evidence,
) -> list[np.ndarray]:
    """Give every row its ID-ness, and cut the columns in `parts` to the rows below the threshold.

    ID-ness is relative to the corpus (`curate.idness`), so that this stage comes after the stream: then it depends
    neither on batches nor on the order in which they came.

    Args:
        parts: columns of each batch; rows stand in the same order in `embedding` (N, D).

    Returns:
        which rows of each part stay, bool, for the columns that are not in memory.
    """
    similarity = np.concatenate([part["id_similarity"] for part in parts])
    energy = np.concatenate([part["energy"] for part in parts]) if "energy" in parts[0] else None
    id_ness = reference.calibrate_id(idness.Measured(embedding, similarity, energy))
    dropped = reference.id_threshold.reached(id_ness)
    tally.add(STAGE, len(dropped), {REASON: int(dropped.sum())})
    for of, values in ((ID, similarity), (ID_NESS, id_ness)):
        evidence.count(of, "dropped", values[dropped])
    keep, start = [], 0
    for number, part in enumerate(parts):
        rows = slice(start, start + len(part["key"]))
        start = rows.stop
        gone = np.flatnonzero(dropped[rows])
        if len(gone):
            seen = Batch.of_columns({**part, "image": work.read_array(f"part-{number:06d}", "image")})
            evidence.drop(STAGE, seen, gone, [REASON] * len(gone), similarity=part["id_similarity"][gone])
        part["id_ness"] = id_ness[rows]
        keep.append(~dropped[rows])
        for name in part.keys() - {"leaked_descriptor"}:
            part[name] = part[name][keep[-1]]
    return keep


def compact(rows: np.ndarray, keep: np.ndarray, block: int = 65536) -> np.ndarray:
    """Move the rows to keep to the front of an array, which may be a memory-mapped file, and return these."""
    end = 0
    for start in range(0, len(rows), block):
        chosen = rows[start : start + block][keep[start : start + block]]
        rows[end : end + len(chosen)] = chosen
        end += len(chosen)
    return rows[:end]
