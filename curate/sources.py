"""The corpus: one or more image sets, read one after the other in batches of rows."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curate.excluded_rows import REASON, ExcludedRows, read_excluded_rows
from srood import datasets, manifests
from srood.datasets import ImageSource, Row
from srood.errors import InputError
from srood.images import MAX_BYTES, Unusable

ENOUGH = 2.0  # a named source's later sets are left unread once the earlier ones hold this many rows per row asked for


@dataclass(frozen=True)
class Corpus:
    """Resolved image sets in reading order; labels of set i are shifted by `label_offsets[i]` into `class_names`."""

    name: str
    sources: tuple[ImageSource, ...]
    class_names: tuple[str, ...]
    label_offsets: tuple[int, ...]
    missing: tuple[dict[str, str], ...]
    unread: tuple[str, ...]
    excluded_rows: ExcludedRows | None = None

    def num_rows(self) -> int:
        """Rows of all sets together."""
        return sum(source.num_rows() for source in self.sources)

    def names_labels(self) -> bool:
        """Whether a label without a name is none: its number would be taken for a label of another set."""
        return bool(self.class_names) or len(self.sources) > 1

    def notes(self) -> list[str]:
        """For people: sets whose labels are bare numbers, and therefore none; a row of such sets is read."""
        return [
            f"{source.name}: its labels are numbers without names, so they are left out among several sets (-1); "
            "Parquet files of one set in a folder are one --source"
            for source in self.sources
            if len(self.sources) > 1 and not source.class_names and _has_labels(source)
        ]

    def describe(self) -> list[dict[str, Any]]:
        """What the manifest records of each set: rows, revision, licence, citation, fingerprint, and rows left out."""
        left_out = self.excluded_rows
        return [
            {
                "name": source.name,
                "origin": source.origin,
                "rows": source.num_rows(),
                "revision": source.revision or "unknown",
                "license": source.license,
                "citation": source.citation,
                "fingerprint": source.fingerprint(),
                **({"excluded_rows": left_out.describe()} if left_out and left_out.source == number else {}),
            }
            for number, source in enumerate(self.sources)
        ]


def named_sets(name: str) -> list[dict[str, Any]] | None:
    """The sets of a named source (manifests/sources), in order of preference, or None where there is no such source."""
    path = manifests.find("sources", name)
    return None if path is None else list(manifests.read_yaml(path)["sources"])


def set_spec(entry: dict[str, Any]) -> str:
    """The image spec of one entry of a named source."""
    return entry["set"] + (f":{entry['split']}" if entry.get("split") else "")


def open_corpus(
    specs: Sequence[str],
    size: int,
    license: str | None = None,
    exclude_indices: Path | None = None,
    exclude_indices_base: int | None = None,
) -> Corpus:
    """Resolve named sources and image specs; what lies on the Hub is streamed rather than downloaded.

    A set of a named source that cannot be found is recorded as missing; a spec that was named itself must be found.

    Args:
        specs: named sources and image specs, in reading order.
        size: rows wanted; later sets of a named source are left unread once there are enough.
        license: recorded for sets of which none is known.
        exclude_indices: text file of row numbers to leave out (see `curate.excluded_rows`).
        exclude_indices_base: 0 or 1, what these count from.

    Raises:
        InputError: a spec resolves nowhere, none of a named source's sets can be found, two sets have one name, or the
            list does not fit.
    """
    found: list[ImageSource] = []
    missing: list[dict[str, str]] = []
    unread: list[str] = []
    for spec in specs:
        entries = named_sets(spec)
        if entries is None:
            found.append(datasets.resolve(spec, stream=True))
            continue
        of_this: list[ImageSource] = []
        for entry in entries:
            inner = set_spec(entry)
            if sum(source.num_rows() for source in of_this) >= ENOUGH * size:
                unread.append(inner)
                continue
            try:
                of_this.append(datasets.resolve(inner, stream=True))
            except InputError as error:
                missing.append({"set": inner, "why": str(error)})
        if not of_this:
            reasons = " | ".join(entry["why"] for entry in missing)
            raise InputError(f"--source {spec}: none of its sets can be found. {reasons}")
        found += of_this
    _check_names(specs, found)
    if license:
        found = [replace(source, license=license) if source.license == "unknown" else source for source in found]
    left_out = read_excluded_rows(exclude_indices, exclude_indices_base, found) if exclude_indices else None
    return one_after_another(specs, found, missing, unread, left_out)


def _check_names(specs: Sequence[str], found: Sequence[ImageSource]) -> None:
    """Two sets of one name would have rows of one key, and what a key names could not be told."""
    names = [source.name for source in found]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        again = "name each once, and give files and folders names of their own"
        raise InputError(f"--source {', '.join(specs)}: two sets are called {twice}; {again}")


def _has_labels(source: ImageSource) -> bool:
    first = next(source.rows(), None)
    return first is not None and first.label >= 0


def one_after_another(
    specs: Sequence[str],
    found: Sequence[ImageSource],
    missing: Sequence[dict[str, str]],
    unread: Sequence[str],
    excluded_rows: ExcludedRows | None,
) -> Corpus:
    """The corpus of sets that were found, in reading order; each set's labels get numbers of their own."""
    names: list[str] = []
    offsets = []
    for source in found:
        offsets.append(len(names))
        names += source.class_names
    sets = (tuple(found), tuple(names), tuple(offsets))
    return Corpus("+".join(specs), *sets, tuple(missing), tuple(unread), excluded_rows)


@dataclass(frozen=True)
class RawBatch:
    """Consecutive rows of one set, not decoded yet: a batch or, where its images are large, a part of one.

    `number` counts batches over the whole corpus, `start` is the first row in its set.
    """

    number: int
    source: int
    start: int
    rows: list[Row]


def raw_batches(
    corpus: Corpus,
    batch_rows: int,
    source: int = 0,
    start: int = 0,
    number: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Iterator[RawBatch]:
    """Batches of a fixed number of rows, never across two sets, from row `start` of set `source` on, in parts.

    Rows that are to be left out stand in them without their data. A label that has no name is no label where there are
    other sets or names: the numbers would be taken for theirs. Of archives' members at most `max_bytes` are read.
    """
    left_out = corpus.excluded_rows
    for index in range(source, len(corpus.sources)):
        first = start
        known = len(corpus.sources[index].class_names) if corpus.names_labels() else None
        for rows in datasets.batched(corpus.sources[index].rows(start, max_bytes), batch_rows):
            if left_out and left_out.source == index:
                for row in left_out.among(start, len(rows)):
                    rows[row] = replace(rows[row], data=Unusable(REASON))
            if known is not None:
                rows = [row if row.label < known else replace(row, label=-1) for row in rows]
            count = len(rows)
            yield RawBatch(number, index, start, rows)
            start += count
            number += (start - first) % batch_rows == 0
        number += (start - first) % batch_rows != 0
        start = 0


def batch_counts(corpus: Corpus, batch_rows: int) -> list[int]:
    """How many batches each set of the corpus has; no batch lies across two."""
    return [-(-source.num_rows() // batch_rows) for source in corpus.sources]


def batch_place(corpus: Corpus, number: int, batch_rows: int) -> tuple[int, int]:
    """The set in which a batch lies, and its first row there."""
    for source, batches in enumerate(batch_counts(corpus, batch_rows)):
        if number < batches:
            return source, number * batch_rows
        number -= batches
    raise AssertionError("no such batch")


def prefetch(items: Iterator[Any], depth: int = 2) -> Iterator[Any]:
    """Run an iterator on a thread of its own, at most `depth` items ahead; its exceptions are raised here."""
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, item: Any) -> bool:
        while not stop.is_set():
            try:
                waiting.put((kind, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # handed to the thread that consumes the items
            put("error", error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
    finally:
        stop.set()
        thread.join()


def describe_named() -> dict[str, Any]:
    """Named sources and sets, and where each would be read from, without asking the Hub."""
    described = []
    for name in manifests.names("sources"):
        path = manifests.find("sources", name)
        assert path is not None
        entry = manifests.read_yaml(path)
        members = [_place(set_spec(member)) for member in entry["sources"]]
        described.append({"name": name, "title": entry.get("title", ""), "sets": members})
    specs = []
    for name in manifests.names("datasets"):
        info = datasets.dataset_info(name)
        assert info is not None
        specs += [f"{name}:{split}" for split in info.splits] or [name]
    return {"sources": described, "sets": [_place(spec) for spec in specs]}


def _place(spec: str) -> dict[str, str]:
    info = datasets.dataset_info(spec.partition(":")[0])
    licence = info.license if info else "unknown"
    return {"spec": spec, "place": datasets.place(spec), "license": licence}
