"""`curate build`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.commands.options import SAME_COMMAND, Json, MaxBytes, MaxPixels, limits_of, print_json, print_set
from srood import commands
from srood.errors import InputError
from srood.stopping import going_on

if TYPE_CHECKING:
    from curate.ranks import PartResult


def build(
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Corpus: a named source (`curate sources`) or any image spec; may be repeated.",
            show_default="tinyimages-alt",
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="Rows wanted: 20000, 20k, 300k, 1M.")] = "300k",
    id: Annotated[
        str, typer.Option("--id", help="ID set: a named set, or a folder with train/ and test/.")
    ] = "cifar10",
    out: Annotated[Path, typer.Option(help="Manifest to write; the shards go beside it.")] = Path("manifests/mini.h5"),
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of sampling and calibration.")] = 0,
    embedder: Annotated[
        str, typer.Option(help="thumbnail, checkpoint:PATH of an ID classifier (file or run), onnx:PATH or timm:NAME.")
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
    max_pixels: MaxPixels = None,
    max_bytes: MaxBytes = None,
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
    dry_run: Annotated[
        bool, typer.Option(help="Count only: run every stage, keep their work, and write no set.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace another set at --out.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(help="Decoding threads; by default one per processor. With Ray: processors of each worker."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="Where batches are worked at: local, or ray on this machine's or a cluster's processors."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to join: HOST:PORT of its head, or auto; by default Ray is started here."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Build this part only, counted from 0, into a folder beside --out; `curate merge` joins them."
        ),
    ] = None,
    world_size: Annotated[int | None, typer.Option(help="The number of parts; needs --rank.")] = None,
    as_json: Json = False,
) -> None:
    """Build an outlier set: decode, deduplicate, drop leaks and ID classes, sample, write shards and manifest.

    Interrupted, the same command goes on where it stopped and writes the same bytes.
    """
    with going_on(SAME_COMMAND):
        from curate.build import build as build_set
        from curate.config import BuildConfig
        from curate.engines.engine import open_engine
        from curate.ranks import build_part

        limits = limits_of(max_pixels, max_bytes)
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
            max_pixels=limits.pixels,
            max_bytes=limits.bytes,
            id_recall=id_recall,
            sample=sample,
            clusters=clusters,
            strict_size=strict_size,
            overwrite=overwrite,
            dry_run=dry_run,
            workers=workers,
        )
        if (rank is None) != (world_size is None):
            raise InputError("--rank and --world-size: give both, or neither")
        if ray_address is not None and engine == "local":
            raise InputError(f"--ray-address {ray_address}: needs --engine ray")
        if rank is not None and engine != "local":
            raise InputError(f"--engine {engine}: does not go with --rank; let Ray or the ranks share the batches out")
        if rank is not None and world_size is not None:
            print_part(build_part(config, rank, world_size), as_json)
            return
        with open_engine(engine, ray_address) as opened:
            result = build_set(config, engine=opened)
        print_set(result, as_json)


def print_part(part: PartResult, as_json: bool) -> None:
    """Print what a rank came to."""
    for note in part.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json({"out": str(part.folder), "batches": len(part.batches), "rows": part.rows})
    else:
        print(f"wrote {part.folder}: {part.rows:,} rows of the corpus in {len(part.batches):,} batches")
