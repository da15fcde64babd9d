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
        str, typer.Option(help="thumbnail, checkpoint:PATH of an ID classifier, onnx:PATH or timm:NAME.")
    ] = "thumbnail",
    exclude_labels: Annotated[
        str, typer.Option(help="Corpus labels to drop: auto (`curate exclusions ID` prints them), none, or a file.")
    ] = "auto",
    protect: Annotated[
        list[str] | None,
        typer.Option(
            help="Image spec that outliers must not leak, besides the ID set; may be repeated. 'none': nothing."
        ),
    ] = None,
    exclude_indices: Annotated[
        Path | None,
        typer.Option(help="Text file of row numbers of the corpus to leave out, such as 80mn_cifar_idxs.txt."),
    ] = None,
    exclude_indices_base: Annotated[
        int | None,
        typer.Option(help="What these numbers count from, 0 or 1; by default 1 for tiny_images.bin, else 0."),
    ] = None,
    source_license: Annotated[
        str | None, typer.Option(help="Licence to record for sources of which none is known, such as local files.")
    ] = None,
    quality: Annotated[
        str, typer.Option(help="default: drop blank and near-constant images; none: keep them.")
    ] = "default",
    max_upscale: Annotated[
        float | None, typer.Option(help="Drop images enlarged by more than this factor; by default none is.")
    ] = None,
    id_recall: Annotated[
        float | None,
        typer.Option(
            help="Share of held-out ID images that the ID-class filter would catch, 0 (off) to 1. "
            "By default 0.7 with a checkpoint, 0.9 with onnx and timm, 0 with thumbnails."
        ),
    ] = None,
    sample: Annotated[
        str, typer.Option(help="Which rows: uniform, stratified, clusters, hard:LOW-HIGH or diverse[:LOW-HIGH].")
    ] = "uniform",
    clusters: Annotated[
        int | None, typer.Option(help="k-means clusters; by default the square root of the rows, at most 256.")
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
        exclude_indices=exclude_indices,
        exclude_indices_base=exclude_indices_base,
        source_license=source_license,
        quality=quality,
        max_upscale=max_upscale,
        id_recall=id_recall,
        sample=sample,
        clusters=clusters,
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
def audit(
    a: Annotated[str, typer.Argument(metavar="A", help="Image spec: the images to be judged.")],
    against: Annotated[
        str | None, typer.Option(help="Image spec B to search for copies of them; without it, A itself is searched.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the pairs: .parquet or .csv.")] = None,
    html: Annotated[Path | None, typer.Option(help="Page with the pairs side by side.")] = None,
    image_size: Annotated[int, typer.Option(help="Side to which images are brought, in pixels.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the calibration.")] = 0,
    fail_on_match: Annotated[bool, typer.Option(help="Exit with code 1 if any pair is found.")] = False,
    workers: Annotated[int | None, typer.Option(help="Threads; by default one per processor.")] = None,
    as_json: JSON = False,
) -> None:
    """List every pair of images of A and B that are the same picture, exact or near."""
    from curate import audit as audits
    from curate.audit_page import write_page
    from curate.tables import print_audit

    audits.check_outputs(out, html)
    found = audits.audit(a, against, image_size=image_size, seed=seed, workers=workers)
    if out:
        audits.write_pairs(found, out)
    if html:
        write_page(found, html)
    if as_json:
        _print_json({**found.summary(), "out": out and str(out), "html": html and str(html)})
    else:
        print_audit(found, [path for path in (out, html) if path])
    if fail_on_match and len(found.pairs):
        raise typer.Exit(commands.CHECK_FAILED)


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
def report(
    file: FILE,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("report.html"),
) -> None:
    """Write one HTML page on an outlier set: what went in, what was dropped, contact sheets, the leak certificate."""
    from curate.report import write_report

    write_report(file, out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB, one page that needs no other file")


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
def exclusions(
    id: Annotated[str, typer.Argument(metavar="ID", help="ID set: a named set, or any image spec with class names.")],
    corpus: Annotated[
        str | None, typer.Option(help="Also say which labels of this corpus would be excluded, with their rows.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write them as a file to edit, for `curate build --exclude-labels FILE`.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Print which corpus labels --exclude-labels auto drops for an ID set, and why."""
    from curate.exclusions import explain, write
    from curate.tables import print_exclusions

    found = explain(id, corpus)
    text = found.pop("text")
    if out is not None:
        write(out, text)
    if as_json:
        _print_json(found)
    else:
        print_exclusions(found, out)


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
