"""Tables that a person reads: a build's stages, a manifest, the named sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curate import prose
from curate.workspace import folder_of

if TYPE_CHECKING:
    from curate.audit import Audit
    from curate.deriving.diff import Difference
    from curate.outputs import BuildResult
    from curate.rebuilding.recorded_sets import Found


def _console() -> Console:
    console = Console(emoji=False, markup=False)  # names of files and labels may have square brackets
    if not console.is_terminal:
        console = Console(width=110, emoji=False, markup=False)  # a pipe or a file: do not fold at 80 columns
    return console


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def stage_table(manifest: dict[str, Any]) -> Table:
    """Rows in, dropped and left, stage by stage, with the reasons."""
    table = _table("stage", "rows in", "dropped", "left", "why", right=("rows in", "dropped", "left"))
    for entry in prose.stages(manifest):
        table.add_row(*(entry[name] for name in ("stage", "seen", "dropped", "left", "why")))
    return table


def print_build(result: BuildResult) -> None:
    """The final table of a build and the lines that follow from it."""
    console = _console()
    manifest = result.manifest
    console.print(stage_table(manifest))
    for line in findings(manifest):
        console.print(line, highlight=False, soft_wrap=True)
    if result.written:
        shards = manifest["shards"]
        megabytes = sum(entry["bytes"] for entry in shards) / 1e6
        console.print(
            f"wrote {result.out}: {rows_in_shards(manifest)}, {megabytes:.1f} MB",
            highlight=False,
            soft_wrap=True,
        )
    else:
        kept = f"what was worked out is kept in {folder_of(result.out)} for the build"
        console.print(f"dry run: no set was written; {kept}", highlight=False, soft_wrap=True)


def rows_in_shards(manifest: Mapping[str, Any]) -> str:
    """``1,000 rows in 1 shard``."""
    counts = ((manifest["rows"], "row"), (len(manifest["shards"]), "shard"))
    return " in ".join(f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def findings(manifest: dict[str, Any]) -> list[str]:
    """What a build found out about leaks and contamination, a line each."""
    lines = []
    certificate = manifest.get("leak_certificate") or {}
    if certificate.get("protected"):
        names = ", ".join(f"{prose.name_of(entry)} ({prose.rows_of(entry)})" for entry in certificate["protected"])
        most = "at most " if manifest.get("derived") else ""  # what a set made from sets knows is its parents' largest
        left = certificate.get("largest_similarity_left")
        lines.append(f"leaks: checked against {names}; largest similarity left {most}{left}")
    elif manifest.get("derived"):
        lines.append("leaks: not certified against any set (see the notes)")
    else:
        lines.append("leaks: not checked (--protect none)")
    id_filter = manifest.get("id_filter") or {}
    at = "" if id_filter.get("id_ness") is None else f" (ID-ness {id_filter['id_ness']:.4f} or more)"
    lines.append(
        f"ID-class filter: {id_filter.get('embedder')}, catches {id_filter['recall']:.0%} of held-out ID images{at}"
        if id_filter.get("recall")
        else "ID-class filter: off"
    )
    measured = manifest.get("contamination") or {}
    if measured.get("measured_by"):
        shares = ["none" if measured.get(of) is None else f"{measured[of]:.2%}" for of in ("corpus", "kept")]
        corpus = "" if measured.get("corpus") is None else f"{shares[0]} of the corpus, "
        lines.append(f"contamination by labels: {corpus}{shares[1]} of the rows kept")
    else:
        why = "labels do not tell for every row" if manifest.get("derived") else "no corpus labels to tell"
        lines.append(f"contamination: not measured ({why})")
    if estimated := (measured.get("estimated") or {}).get("kept"):
        low, high = estimated["low"], estimated["high"]
        interval = f"95 % interval {low:.1%} to {high:.1%}"
        lines.append(f"contamination estimated from ID-ness: {estimated['point']:.1%} of the rows kept ({interval})")
    return lines


def print_manifest(file: str, manifest: dict[str, Any]) -> None:
    """A manifest, in the order in which one asks."""
    console = _console()
    config, asked = manifest.get("config") or {}, manifest.get("requested_rows")
    size = f" of {config['image_size']}x{config['image_size']} RGB" if "image_size" in config else ""
    asked_for = f" (asked for {asked:,})" if asked is not None else ""
    console.print(
        f"{file}: {manifest['rows']:,} rows{size}{asked_for}, schema {manifest['schema_version']}",
        highlight=False,
        soft_wrap=True,
    )
    for line in prose.derivation(manifest):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(stage_table(manifest))
    for line in findings(manifest):
        console.print(line, highlight=False, soft_wrap=True)
    table = _table("source", "rows", "licence", "read from", "fingerprint", right=("rows",))
    for entry in manifest.get("sources") or ():
        license, origin, fingerprint = (str(entry.get(of, "unknown")) for of in ("license", "origin", "fingerprint"))
        table.add_row(prose.name_of(entry), prose.rows_of(entry), license, origin, fingerprint[:16])
    console.print(table)
    for name in manifest.get("missing_sources") or ():
        console.print(f"missing: {name} could not be found when the set was built", highlight=False, soft_wrap=True)
    table = _table("shard", "rows", "bytes", "SHA-256", right=("rows", "bytes"))
    for entry in manifest["shards"]:
        table.add_row(entry["file"], f"{entry['rows']:,}", f"{entry['bytes']:,}", entry["sha256"][:16])
    console.print(table)
    table = _table("setting", "value")
    for key, value in sorted(config.items()):
        table.add_row(key, str(value))
    for key, value in sorted((manifest.get("versions") or {}).items()):
        table.add_row(f"version of {key}", value)
    console.print(table)


def print_inputs(found: Sequence[Found]) -> None:
    """The inputs of a set to be made again, each beside its record."""
    table = _table("input", "name", "read from", "fingerprint", "recorded")
    for entry in found:
        agrees = "the same" if entry.fingerprint == entry.recorded else entry.recorded[:16] or "nothing"
        table.add_row(entry.role, entry.name, entry.place or "not found", entry.fingerprint[:16], agrees)
    _console().print(table, highlight=False)


def print_audit(found: Audit, written: list[Path]) -> None:
    """What an audit found, its closest pairs, and where all are."""
    from curate.audit_page import facts

    console = _console()
    table = _table("", "")
    table.show_header = False
    for name, value in facts(found):
        table.add_row(name, value)
    console.print(table, highlight=False)
    closest = found.summary()["closest"]
    if closest:
        table = _table("similarity", "kind", "A", "B", right=("similarity",))
        for pair in closest:
            table.add_row(f"{pair['similarity']:.4f}", pair["kind"], pair["key_a"], pair["key_b"])
        console.print(table)
    for path in written:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if not written:
        console.print("nothing written: give --out pairs.parquet or --html report.html to see every pair")


def print_difference(found: Difference) -> None:
    """The verdict first, then rows, columns and fields of the manifests."""
    console = _console()
    console.print(found.headline(), highlight=False, soft_wrap=True)
    table = _table("", "A", "B", right=("A", "B"))
    table.add_row("set", found.a.name, found.b.name)
    table.add_row("rows", f"{found.rows[0]:,}", f"{found.rows[1]:,}")
    table.add_row("rows in both", f"{found.common:,}", f"{found.common:,}")
    table.add_row("rows only here", f"{found.only[0]:,}", f"{found.only[1]:,}")
    for names, there in zip(found.only_columns, (("there", "missing"), ("missing", "there")), strict=True):
        for name in names:
            table.add_row(f"column {name}", *there)
    console.print(table, highlight=False)
    order = "the same" if found.same_order else "another"
    console.print(f"order of the common rows: {order}; shards: {'the same' if found.same_shards else 'other'} bytes")
    if found.columns:
        table = _table("column", "common rows that differ", "largest difference", right=("common rows that differ",))
        for name, column in found.columns.items():
            table.add_row(name, f"{column.rows:,}", "" if column.largest is None else f"{column.largest:.6g}")
        console.print(table, highlight=False)
    if found.fields:
        table = _table("manifest", "A", "B")
        for field, *values in found.fields:
            table.add_row(field, *(prose.in_short(value) for value in values))
        console.print(table, highlight=False, soft_wrap=True)


def print_exclusions(found: dict[str, Any], written: Path | None) -> None:
    """What is excluded for each ID class, then which labels of a corpus, then those that deserve a look."""
    console = _console()
    table = _table("ID class", "synset", "words", "why", "WNIDs at or below", right=("WNIDs at or below",))
    for entry in found["classes"]:
        for number, root in enumerate(entry["synsets"] or [{"wnid": "", "words": "", "why": ""}]):
            why = root["why"] or "by word only: " + ", ".join(entry["by_word"])
            first = (entry["class"], f"{entry['wnids']:,}") if number == 0 else ("", "")
            table.add_row(first[0], root["wnid"], root["words"], why, first[1])
    console.print(f"{found['id']}: {found['source']}", highlight=False, soft_wrap=True)
    console.print(table, highlight=False)
    for entry in found["without"]:
        console.print(f"left in: {entry['wnid']} {entry['words']} ({entry['why']})", highlight=False, soft_wrap=True)
    corpus = found.get("corpus")
    if corpus:
        share = corpus["rows_excluded"] / max(1, corpus["rows"])
        console.print(
            f"{corpus['name']}: {len(corpus['excluded'])} of {corpus['labels']:,} labels would be excluded, "
            f"{corpus['rows_excluded']:,} of {corpus['rows']:,} rows ({share:.1%})",
            highlight=False,
            soft_wrap=True,
        )
        for title, entries in (("excluded label", corpus["excluded"]), ("look at these", corpus["borderline"])):
            table = _table(title, "rows", "why", right=("rows",))
            for entry in entries:
                table.add_row(entry["label"], f"{entry['rows']:,}", entry["why"])
            if entries:
                console.print(table, highlight=False)
    for note in found["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    if written:
        console.print(f"wrote {written}", highlight=False, soft_wrap=True)


def print_sources(entries: dict[str, Any]) -> None:
    """Named sources with their sets, then all named sets, each with the place it would be read from."""
    console = _console()
    for entry in entries["sources"]:
        console.print(Text.assemble((entry["name"], "bold"), f": {entry['title']}"), highlight=False)
        table = _table("set", "read from", "licence")
        for member in entry["sets"]:
            table.add_row(member["spec"], member["place"], member["license"].split(";")[0])
        console.print(table)
    console.print(Text.assemble(("named sets", "bold"), " (any option that takes images)"), highlight=False)
    table = _table("set", "read from", "licence")
    for member in entries["sets"]:
        table.add_row(member["spec"], member["place"], member["license"].split(";")[0])
    console.print(table)
