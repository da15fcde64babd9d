"""`curate select`, `merge` and `diff`: sets made from sets, and what two sets have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import SAME_COMMAND, SET, Json, print_json, print_set
from srood import commands
from srood.errors import InputError
from srood.stopping import going_on

Out = Annotated[Path, typer.Option(help="Manifest to write; the shards go beside it.")]
Overwrite = Annotated[bool, typer.Option(help="Replace another set at --out.")]


def select(
    file: Annotated[str, typer.Argument(help=f"The set to select from: {SET}.")],
    out: Out,
    label: Annotated[
        list[str] | None, typer.Option(help="Rows of this label: its name, word or WordNet id; may be repeated.")
    ] = None,
    exclude_label: Annotated[
        list[str] | None, typer.Option(help="No rows of this label; may be repeated. Rows without a label stay.")
    ] = None,
    cluster: Annotated[list[int] | None, typer.Option(help="Rows of this cluster; may be repeated.")] = None,
    id_ness: Annotated[
        str | None,
        typer.Option(help="Rows of this ID-ness: -1:0.5, or shares of the set 50%:90%; either end may be left open."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="The first rows that meet the conditions: 20000, 20k.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a set of the rows of a set that meet all conditions; order and columns are kept."""
    from curate.deriving.select import SelectConfig
    from curate.deriving.select import select as select_rows
    from srood.outlier_sources import local_manifest

    config = SelectConfig(
        file=local_manifest(file),
        out=out,
        label=tuple(label or ()),
        exclude_label=tuple(exclude_label or ()),
        cluster=tuple(cluster or ()),
        id_ness=id_ness,
        size=None if size is None else commands.parse_count(size),
        overwrite=overwrite,
    )
    print_set(select_rows(config), as_json)


def merge(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C...]", help=f"The sets to merge: each {SET}; or all parts of one build: mini.part-*."
        ),
    ],
    out: Out,
    keep_near_duplicates: Annotated[
        bool, typer.Option(help="Drop repeated pixels only, and keep copies that were changed.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the order of the rows; by default 0.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Join sets into one that holds every picture once, in an order of which any beginning is a sample.

    Parts that `curate build --rank R --world-size W` left are joined to the set that one run writes.
    """
    from curate.deriving.merge import MergeConfig
    from curate.deriving.merge import merge as merge_sets
    from curate.ranks import is_part, join
    from srood.outlier_sources import local_manifest

    if parts := [file for file in files if is_part(file)]:
        if len(parts) < len(files):
            raise InputError(f"merge: {parts[0]} is a part of a build; name all its parts and no sets")
        if keep_near_duplicates or seed is not None:
            raise InputError("--keep-near-duplicates, --seed: parts are joined by the options they were built with")
        with going_on(SAME_COMMAND):
            joined = join(list(map(Path, parts)), out, overwrite)
        print_set(joined, as_json)
        return
    parents = tuple(map(local_manifest, files))
    config = MergeConfig(parents, out, keep_near_duplicates=keep_near_duplicates, seed=seed or 0, overwrite=overwrite)
    print_set(merge_sets(config), as_json)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=f"A set: {SET}.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    fail_on_difference: Annotated[bool, typer.Option(help="Exit with code 1 unless they are identical.")] = False,
    as_json: Json = False,
) -> None:
    """Say whether two sets are identical, hold the same rows, or differ, and in what."""
    from curate.deriving.diff import IDENTICAL, compare
    from curate.tables import print_difference
    from srood.outlier_sources import local_manifest

    found = compare(local_manifest(a), local_manifest(b))
    if as_json:
        print_json(found.summary())
    else:
        print_difference(found)
    if fail_on_difference and found.verdict != IDENTICAL:
        raise typer.Exit(commands.CHECK_FAILED)
