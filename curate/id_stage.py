"""The ID stage: rows as much like ID images as held-out ID images are. It sees the whole corpus at once."""

from __future__ import annotations

import numpy as np

from curate import idness
from curate.evidence import ID, ID_NESS, Evidence
from curate.record import Tally
from curate.reference import Reference
from curate.survivors import Survivors

STAGE = "ID-class neighbours"
REASON = "as near as held-out ID images"


def drop_id_rows(survivors: Survivors, reference: Reference, tally: Tally, evidence: Evidence) -> None:
    """Give every row its ID-ness, `id_ness`, and drop those at or above the threshold.

    ID-ness is relative to the corpus (`curate.idness`), so that this stage comes after the stream: then it depends
    neither on batches nor on the order in which they came.
    """
    columns = survivors.columns
    similarity = columns["id_similarity"]
    id_ness = reference.calibrate_id(idness.Measured(survivors.embedding, similarity, columns.get("energy")))
    dropped = reference.id_threshold.reached(id_ness)
    tally.add(STAGE, len(dropped), {REASON: int(dropped.sum())})
    for of, values in ((ID, similarity), (ID_NESS, id_ness)):
        evidence.count(of, "dropped", values[dropped])
    gone = np.flatnonzero(dropped)
    evidence.drop_all(STAGE, REASON, survivors.batch(), gone, similarity=similarity[gone])
    columns["id_ness"] = id_ness
    survivors.keep(~dropped)
