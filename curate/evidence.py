"""Evidence of a build: pictures of what each stage dropped, the closest leak pairs, and histograms of similarities.

Rows are drawn by a hash of seed and key, so that the draw depends neither on batches nor on workers, and evidence of
parts adds up to the evidence of the whole. It lies beside the shards, for `curate report`; training never reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.partitions import Rows
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.hdf5 import check_stored, open_plain

PER_GROUP = 24  # rows shown of a stage and reason
ROWS = 1 << 16  # rows that are drawn from at once
SIDE = 64  # larger pictures are made this small
CANDIDATE_PAIRS = 2048  # the closest rows that passed, whose partners are held until it is known which are kept
PREFIX = "evidence."
PAIRS = "leak pairs"  # a group beside the stages: pairs around the threshold, whatever became of the row
CLEAREST, DOUBTFUL, LEFT = "most similar, dropped", "least similar, dropped", "most similar, kept"
LEAK, ID, ID_NESS = "leak similarity", "ID similarity", "ID-ness"  # what histograms are of
BINS = 2000
EDGES = {of: np.linspace(-end, end, BINS + 1) for of, end in ((LEAK, 1), (ID, 1), (ID_NESS, 10))}


@dataclass(frozen=True)
class _Keys(Sequence[str]):
    """Keys that are decoded when they are asked for: as texts, those of millions of rows take much memory."""

    encoded: np.ndarray

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: Any) -> Any:
        return self.encoded[row].decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Batch:
    """Rows to draw from: keys, images uint8 (N, H, W, 3), an array or a file that is read like one, and labels (N,), -1
    where there is none."""

    keys: Sequence[str]
    images: Rows
    labels: np.ndarray | None = None

    @classmethod
    def of_columns(cls, columns: Mapping[str, Any]) -> Batch:
        """The rows of columns as a shard has them."""
        return cls(_Keys(columns["key"]), columns["image"], columns["label"])


@dataclass(frozen=True)
class Partners:
    """What rows are shown beside: row `rows[i]` of `batch`, -1 for none; None where there is nothing to be beside."""

    batch: Batch | None
    rows: np.ndarray


@dataclass(frozen=True)
class Shown:
    """One row as it is shown; `similarity` is NaN where none was measured, `image` None where none was decoded."""

    stage: str
    reason: str
    key: str
    label: int
    similarity: float
    rank: float
    image: np.ndarray | None
    partner_key: str = ""
    partner: np.ndarray | None = None


class Evidence:
    """What is kept to be shown: at most PER_GROUP rows of each stage and reason, and histograms over EDGES."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.groups: dict[tuple[str, str], list[Shown]] = {}
        self.histograms: dict[str, np.ndarray] = {}

    def drop(
        self,
        stage: str,
        batch: Batch,
        rows: np.ndarray,
        reasons: Sequence[str | None],
        similarity: np.ndarray | None = None,
        partners: Partners | None = None,
        pictures: bool = True,
    ) -> None:
        """Draw from the rows that a stage dropped.

        Args:
            rows: the rows of `batch` that the stage saw; `reasons`, `similarity` and `partners` have an entry for each.
            reasons: why a row was dropped, None where it was not.
            pictures: False where the rows could not be decoded.
        """
        by_reason: dict[str, list[int]] = {}
        for place, reason in enumerate(reasons):
            if reason is not None:
                by_reason.setdefault(reason, []).append(place)
        for reason, places in by_reason.items():
            ranks = [self._draw(batch.keys[int(rows[place])]) for place in places]
            self._add(stage, reason, batch, rows, places, ranks, similarity, partners, pictures)

    def drop_all(
        self,
        stage: str,
        reason: str,
        batch: Batch,
        rows: np.ndarray,
        partners: Partners | None = None,
        similarity: np.ndarray | None = None,
    ) -> None:
        """Draw from `rows`, all of which a stage dropped for one reason; they may be many, and are taken in turns."""
        for start in range(0, len(rows), ROWS):
            some = slice(start, start + ROWS)
            beside = Partners(partners.batch, partners.rows[some]) if partners else None
            near = None if similarity is None else similarity[some]
            self.drop(stage, batch, rows[some], [reason] * len(rows[some]), near, beside)

    def pairs(
        self, reason: str, batch: Batch, rows: np.ndarray, similarity: np.ndarray, partners: Partners, largest: bool
    ) -> None:
        """Keep the pairs with the `largest`, or else the smallest, similarity; entries are those of `rows`."""
        ranks = [float(-value if largest else value) for value in similarity]
        self._add(PAIRS, reason, batch, rows, range(len(rows)), ranks, similarity, partners, True)

    def add_kept(
        self,
        batch: Batch,
        columns: Mapping[str, np.ndarray],
        chosen: np.ndarray,
        narrow: dict[int, tuple[str, np.ndarray]],
    ) -> None:
        """Count the similarities of the `chosen` rows, and keep those that passed the leak check most narrowly."""
        rows = np.intersect1d(np.fromiter(narrow, np.int64, len(narrow)), chosen)
        self.count(LEAK, "kept", columns["leak_similarity"][chosen])
        self.count(ID, "kept", columns["id_similarity"][chosen])
        self.count(ID_NESS, "kept", columns["id_ness"][chosen])
        if len(rows):
            beside = Batch(
                [narrow[row][0] for row in rows.tolist()], np.stack([narrow[row][1] for row in rows.tolist()])
            )
            partners = Partners(beside, np.arange(len(rows)))
            self.pairs(LEFT, batch, rows, columns["leak_similarity"][rows], partners, largest=True)

    def count(self, of: str, which: str, values: np.ndarray | None) -> None:
        """Add `values`, clipped to EDGES, to the histogram `of` `which` rows; None adds nothing."""
        if values is None:
            return
        edges = EDGES[of]
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(np.int64)
        name = f"{of}, {which}"
        self.histograms[name] = self.histograms.get(name, np.zeros(BINS, np.int64)) + counts

    def merge(self, other: Evidence) -> None:
        """Add the evidence of another part."""
        for (stage, reason), rows in other.groups.items():
            self._keep(stage, reason, rows)
        for name, counts in other.histograms.items():
            self.histograms[name] = self.histograms.get(name, 0) + counts

    def _draw(self, key: str) -> float:
        """A number in [0, 1) that is uniform over keys."""
        digest = hashlib.sha256(f"{self.seed}\0{key}".encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def _add(
        self,
        stage: str,
        reason: str,
        batch: Batch,
        rows: np.ndarray,
        places: Sequence[int],
        ranks: Sequence[float],
        similarity: np.ndarray | None,
        partners: Partners | None,
        pictures: bool,
    ) -> None:
        few: Sequence[int] = range(len(places))
        if len(few) > PER_GROUP:  # the rest need no key to be compared by
            few = np.flatnonzero(ranks <= np.partition(ranks, PER_GROUP - 1)[PER_GROUP - 1]).tolist()
        order = sorted(few, key=lambda i: (ranks[i], batch.keys[int(rows[places[i]])]))[:PER_GROUP]
        shown = []
        for i in order:
            place, row = places[i], int(rows[places[i]])
            beside = int(partners.rows[place]) if partners else -1
            other = partners.batch if partners and beside >= 0 else None
            shown.append(
                Shown(
                    stage,
                    reason,
                    batch.keys[row],
                    -1 if batch.labels is None else int(batch.labels[row]),
                    float("nan") if similarity is None else float(similarity[place]),
                    ranks[i],
                    _small(batch.images[row]) if pictures else None,
                    other.keys[beside] if other else "",
                    _small(other.images[beside]) if other else None,
                )
            )
        self._keep(stage, reason, shown)

    def _keep(self, stage: str, reason: str, more: Sequence[Shown]) -> None:
        rows = [*self.groups.get((stage, reason), ()), *more]
        if rows:
            self.groups[stage, reason] = sorted(rows, key=lambda row: (row.rank, row.key))[:PER_GROUP]

    # ---- as arrays, for the parts of a build and for the file ---------------------------------------------------

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Columns of equal length for the rows (by stage, reason and rank), pictures once each, and the histograms."""
        rows = [row for group in sorted(self.groups) for row in self.groups[group]]
        pool: list[np.ndarray] = []

        def place(picture: np.ndarray | None) -> int:
            if picture is None:
                return -1
            pool.append(picture)
            return len(pool) - 1

        names = sorted(self.histograms)
        return {
            "stage": _text(row.stage for row in rows),
            "reason": _text(row.reason for row in rows),
            "key": _text(row.key for row in rows),
            "label": np.array([row.label for row in rows], np.int64),
            "similarity": np.array([row.similarity for row in rows], np.float32),
            "rank": np.array([row.rank for row in rows], np.float64),
            "picture": np.array([place(row.image) for row in rows], np.int64),
            "partner_key": _text(row.partner_key for row in rows),
            "partner_picture": np.array([place(row.partner) for row in rows], np.int64),
            "image": np.stack(pool) if pool else np.zeros((0, 1, 1, 3), np.uint8),
            "histogram_name": _text(names),
            "histogram": np.array([self.histograms[name] for name in names], np.int64).reshape(-1, BINS),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], seed: int = 0) -> Evidence:
        """The inverse of `to_arrays`."""
        evidence = cls(seed)
        text = {
            name: [value.decode("utf-8", "surrogateescape") for value in arrays[name].tolist()]
            for name in ("stage", "reason", "key", "partner_key", "histogram_name")
        }
        pool = arrays["image"]
        for i, (stage, reason) in enumerate(zip(text["stage"], text["reason"], strict=True)):
            picture, partner = int(arrays["picture"][i]), int(arrays["partner_picture"][i])
            row = Shown(
                stage,
                reason,
                text["key"][i],
                int(arrays["label"][i]),
                float(arrays["similarity"][i]),
                float(arrays["rank"][i]),
                pool[picture] if picture >= 0 else None,
                text["partner_key"][i],
                pool[partner] if partner >= 0 else None,
            )
            evidence.groups.setdefault((stage, reason), []).append(row)
        evidence.histograms = dict(zip(text["histogram_name"], arrays["histogram"], strict=True))
        return evidence

    def to_part(self) -> dict[str, np.ndarray]:
        """`to_arrays` under names that do not clash with a part's own."""
        return {PREFIX + name: values for name, values in self.to_arrays().items()}

    def take_part(self, part: dict[str, np.ndarray]) -> None:
        """Merge the evidence in a part of a build, and remove it from the part."""
        names = [name for name in part if name.startswith(PREFIX)]
        self.merge(Evidence.from_arrays({name.removeprefix(PREFIX): part.pop(name) for name in names}))


def narrowest(
    similarity: np.ndarray, nearest: np.ndarray, protected: Batch | None
) -> dict[int, tuple[str, np.ndarray]]:
    """The CANDIDATE_PAIRS rows that passed the leak check most narrowly, and the protected image each is nearest to.

    Args:
        similarity: (N,) of each row to row `nearest` (N,) of `protected`, -1 where there is none.
    """
    if protected is None:
        return {}
    rows = np.lexsort((-similarity, nearest < 0))[:CANDIDATE_PAIRS]
    return {
        int(row): (protected.keys[nearest[row]], _small(protected.images[nearest[row]]))
        for row in rows
        if nearest[row] >= 0
    }


def read_evidence(path: Path, manifest: Mapping[str, Any]) -> Evidence | None:
    """The evidence of an outlier set, or None where it was built without, or the file is gone.

    Raises:
        InputError: the file is not the one that the manifest names, or is no evidence.
    """
    entry = manifest.get("evidence")
    if not entry or not (file := path.parent / entry["file"]).is_file():
        return None
    if file_sha256(file) != entry["sha256"]:
        raise InputError(f"{file}: was altered (its SHA-256 is not the manifest's); build the set again, or remove it")
    with open_plain(file) as stored:
        if missing := set(Evidence(0).to_arrays()) - set(stored):
            raise InputError(f"{file}: has no dataset {', '.join(sorted(missing))}; build the set again, or remove it")
        for name in stored:
            try:
                check_stored(stored[name])
            except ValueError as error:
                raise InputError(f"{file}: its '{name}' {error}; do not use this file") from error
        return Evidence.from_arrays({name: stored[name][()] for name in stored})


def _small(image: np.ndarray) -> np.ndarray:
    """A copy, no larger than SIDE; never a view, which would keep the whole batch in memory."""
    if max(image.shape[:2]) <= SIDE:
        return np.array(image)
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def _text(values: Any) -> np.ndarray:
    encoded = [value.encode("utf-8", "surrogateescape") for value in values]
    return np.array(encoded, dtype=f"S{max(1, *map(len, encoded))}" if encoded else "S1")
