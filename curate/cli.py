"""The `curate` command: parsing and printing only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from srood import __version__, commands

app = typer.Typer(
    help="Build small auxiliary outlier sets out of large image corpora.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FILE = Annotated[Path, typer.Argument(help="Manifest of an outlier set, such as manifests/mini.h5.")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def main() -> None:
    """Entry point of the console script."""
    commands.run(app)


def _show_version(value: bool) -> None:
    if value:
        print(f"curate (srood {__version__})")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command()
def build(
    source: Annotated[
        list[str] | None,
        typer.Option(help="Corpus: a named source (`curate sources`) or any image spec; may be repeated."),
    ] = None,
    size: Annotated[str, typer.Option(help="Rows wanted: 20000, 20k, 300k, 1M.")] = "300k",
    id: Annotated[
        str, typer.Option("--id", help="ID set: a named set, or a folder with train/ and test/.")
    ] = "cifar10",
    out: Annotated[Path, typer.Option(help="Manifest to write; the shards go beside it.")] = Path("manifests/mini.h5"),
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of sampling and calibration.")] = 0,
    embedder: Annotated[
        str, typer.Option(help="Semantic descriptor: thumbnail, or checkpoint:PATH of an ID classifier.")
    ] = "thumbnail",
    exclude_labels: Annotated[
        str, typer.Option(help="Corpus labels to drop: auto (manifests/exclusions), none, or a file.")
    ] = "auto",
    protect: Annotated[
        list[str] | None,
        typer.Option(
            help="Image spec that outliers must not leak, besides the ID set; may be repeated. 'none': nothing."
        ),
    ] = None,
    id_recall: Annotated[
        float | None,
        typer.Option(
            help="Share of held-out ID images that the ID-class filter would catch, 0 (off) to 1. "
            "By default 0.7 with a checkpoint, 0 with thumbnails."
        ),
    ] = None,
    strict_size: Annotated[bool, typer.Option(help="Fail if the corpus gives fewer rows than --size.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Stop before writing.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace another set at --out.")] = False,
    workers: Annotated[int | None, typer.Option(help="Decoding threads; by default one per processor.")] = None,
    as_json: JSON = False,
) -> None:
    """Build an outlier set: decode, deduplicate, drop leaks and ID classes, sample, write shards and manifest.

    Interrupted, the same command goes on where it stopped and writes the same bytes.
    """
    from curate.build import build as build_set
    from curate.config import BuildConfig
    from curate.tables import print_build

    config = BuildConfig(
        source=tuple(source or ["tinyimages-alt"]),
        size=commands.parse_count(size),
        id=id,
        out=out,
        image_size=image_size,
        seed=seed,
        embedder=embedder,
        exclude_labels=exclude_labels,
        protect=tuple(protect or ()),
        id_recall=id_recall,
        strict_size=strict_size,
        overwrite=overwrite,
        dry_run=dry_run,
        workers=workers,
    )
    try:
        result = build_set(config)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        _print_json({"out": str(result.out), "written": result.written, "manifest": result.manifest})
    else:
        print_build(result)


@app.command()
def inspect(file: FILE, as_json: JSON = False) -> None:
    """Print the manifest of an outlier set."""
    from curate.tables import print_manifest
    from srood.outliers import read_manifest

    manifest = read_manifest(file)
    if as_json:
        _print_json(manifest)
    else:
        print_manifest(file, manifest)


@app.command()
def verify(file: FILE) -> None:
    """Hash every shard and every row again; exit with code 1 on any difference."""
    from srood.outliers import read_manifest
    from srood.outliers import verify as verify_set

    problems = verify_set(file)
    for problem in problems:
        print(problem)
    manifest = read_manifest(file)
    if problems:
        print(f"{file}: {len(problems)} difference{'s' if len(problems) > 1 else ''}; build the set again")
        raise typer.Exit(commands.CHECK_FAILED)
    print(f"{file}: {manifest['rows']:,} rows in {len(manifest['shards'])} shards agree with the manifest")


@app.command()
def sources(as_json: JSON = False) -> None:
    """List named sources and image sets, and where each would be read from."""
    from curate.sources import describe_named
    from curate.tables import print_sources

    entries = describe_named()
    if as_json:
        _print_json(entries)
    else:
        print_sources(entries)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
