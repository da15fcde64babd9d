"""`curate publish` and `pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import File, Json, print_json

Token = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File that holds the token, or - for standard input; by default HF_TOKEN or what `hf auth login` stored.",
    ),
]


def publish(
    file: File,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Dataset repository on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str, typer.Option(help="Branch to publish to; made if need be.")] = "main",
    message: Annotated[str | None, typer.Option(help="Of the commit. By default the set's name and size.")] = None,
    license: Annotated[
        str | None,
        typer.Option(help="Licence of the set as the Hub abbreviates it. By default what follows from the sources."),
    ] = None,
    index_only: Annotated[
        bool, typer.Option("--index-only", help="Publish keys, hashes and the recipe instead of pixels.")
    ] = False,
    rights_confirmed: Annotated[
        bool,
        typer.Option("--rights-confirmed", help="You made sure that images of sources of unknown licence may go out."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Publish into a repository that holds something else.")
    ] = False,
    token: Token = None,
    dry_run: Annotated[
        Path | None,
        typer.Option(help="Write what would be uploaded into this folder, and ask nothing of the network."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish an outlier set on the Hugging Face Hub: Parquet, shards, manifest, card, licences, Croissant metadata.

    Interrupted, the same command goes on; what was uploaded is not sent again.
    """
    from curate.publishing import publish as publishing
    from srood.hub_token import use_token

    config = publishing.PublishConfig(
        file=file,
        repo=repo,
        revision=revision,
        private=private,
        message=message,
        license=license,
        index_only=index_only,
        rights_confirmed=rights_confirmed,
        overwrite=overwrite,
    )
    if dry_run is not None:
        files = publishing.prepare(config, dry_run)
        if as_json:
            print_json({"files": files, "folder": str(dry_run), "uploaded": False})
            return
        _print_files(files)
        print(f"written to {dry_run}; nothing was uploaded")
        return
    use_token(token)
    pushed, files = publishing.publish(config)
    if as_json:
        print_json({"files": files, "url": pushed.url, "commit": pushed.commit, "changed": pushed.changed})
        return
    _print_files(files)
    print(f"commit {pushed.commit}" if pushed.changed else f"nothing changed since commit {pushed.commit}")
    print(pushed.url)


def pull(
    repo: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Dataset repository on the Hub, or an hf:// address.")
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; by default main.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the manifest and the shards.")] = Path("manifests"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another set of the same name.")] = False,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Download an outlier set from the Hugging Face Hub, verify it, and put it into a folder."""
    from curate.publishing.pull import pull as pull_set
    from srood.hub_token import use_token

    use_token(token)
    pulled = pull_set(repo, out, revision=revision, overwrite=overwrite)
    if as_json:
        print_json({"out": str(pulled.path), "from": pulled.address, "rows": pulled.rows, "changed": pulled.changed})
        return
    if pulled.changed:
        print(f"wrote {pulled.path}: {pulled.rows:,} rows of {pulled.address}, verified")
    else:
        print(f"{pulled.path} already holds this set, {pulled.rows:,} rows of {pulled.address}, verified")


def _print_files(files: dict[str, int]) -> None:
    for name, size in files.items():
        print(f"{size:>13,} {name}")
