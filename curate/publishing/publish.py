"""Publishing an outlier set as a dataset repository on the Hugging Face Hub.

The repository holds the rows twice: as Parquet, which the viewer of the Hub shows and `datasets` loads, and as the
shards and the manifest that `srood train` reads. All is made from the set alone: the same set gives the same files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from curate.exporting.parquet import features, write_parquet
from curate.publishing.card import COLUMNS, CardFacts, dataset_card, license_notes
from curate.publishing.croissant import ENCODINGS, croissant
from curate.publishing.rights import SourceRights, check_rights, rights, set_license
from curate.sheets import drawn_rows, sprite
from srood.errors import InputError
from srood.files import check_folder, scratch_beside, write_text
from srood.hashes import file_sha256
from srood.hub_upload import Pushed, check_branch, check_repo_name, upload
from srood.manifest_fields import lacking
from srood.outliers import OutlierSet, check_shard_names, is_manifest_name, read_manifest, verify

CARD, NOTES, CROISSANT, SHEET, MANIFEST = (
    "README.md",
    "LICENSES.md",
    "croissant.json",
    "contact-sheet.png",
    "manifest.json",
)
NEEDED = ("config.image_size", "recipe", "sources.name", "versions.srood")  # of the manifest
DATA, SHARDS = "data", "hdf5"
SHEET_ROWS, SHEET_COLUMNS, SHEET_SIDE = 96, 12, 64  # pictures, pictures a line, pixels
ROWS = re.compile(rf"{DATA}/train-\d{{5}}-of-\d{{5}}\.parquet")
OWNED = re.compile(
    rf"{ROWS.pattern}|{SHARDS}/[^/]+\.h5|{re.escape(SHEET)}"
)  # what is ours, once it is known whose it is


@dataclass(frozen=True)
class PublishConfig:
    """What is published and where; the command's options of the same names.

    Attributes:
        file: manifest of the set
        repo: ``owner/name``; made where there is none
        revision: the branch; made, from ``main``, where there is none
        private: whether a new repository is private; one that is public is refused
        message: of the commit
        license: of the set, as the Hub abbreviates it; by default what follows from the sources
        index_only: publish keys, hashes and the recipe instead of pixels
        rights_confirmed: a person has made sure that images may be passed on where nothing is known of it
        overwrite: publish into a repository that holds something else
    """

    file: Path
    repo: str
    revision: str = "main"
    private: bool = False
    message: str | None = None
    license: str | None = None
    index_only: bool = False
    rights_confirmed: bool = False
    overwrite: bool = False


def publish(config: PublishConfig) -> tuple[Pushed, dict[str, int]]:
    """Upload a set; nothing where the repository holds it already.

    Returns:
        what the upload came to, and the files with their sizes in bytes.

    Raises:
        InputError: as `prepare`; nobody is logged in, the repository holds something else, or the Hub refuses or cannot
            be reached. What was uploaded until then is not sent again the next time.
    """
    rows = read_manifest(config.file)["rows"]
    with ExitStack() as stack:
        try:  # on the same disk, if possible: shards are linked, not copied
            scratch = stack.enter_context(scratch_beside(config.file, "publish"))
        except OSError:
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="curate-publish-")))
        files = prepare(config, scratch, link=True)
        pushed = upload(
            scratch,
            config.repo,
            config.message or f"{config.file.name}: {rows:,} rows{', index only' if config.index_only else ''}",
            repo_type="dataset",
            revision=config.revision,
            private=config.private,
            owned=lambda name: bool(OWNED.fullmatch(name)),
            order=lambda name: _order(name, config.file.name),
            check=lambda names: _check_repository(config, names),
        )
    return pushed, files


def prepare(config: PublishConfig, folder: Path, link: bool = False) -> dict[str, int]:
    """Write what `publish` uploads into a folder, without the network.

    Args:
        config: what is published
        folder: new or empty
        link: let the shards there be those of the set under another name, rather than copies

    Returns:
        the files, relative to the folder, with their sizes in bytes.

    Raises:
        InputError: a set that does not verify, a source that may not be passed on, a name or licence that cannot be
            one, a folder that is not empty or cannot be written to.
    """
    check_repo_name(config.repo)
    check_branch(config.revision)
    if "/" in config.revision and not config.revision.startswith("refs/"):
        raise InputError(f"--revision {config.revision}: hf:// addresses have no branches with a slash; name another")
    if config.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", config.license):
        raise InputError(
            f"--license {config.license}: is not as the Hub abbreviates licences; write cc-by-4.0, other, ..."
        )
    check_folder(folder, "--dry-run ")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--dry-run {folder}: is not empty; choose another folder")
    if problems := verify(config.file):
        more = f" (and {len(problems) - 1} more; `curate verify {config.file}` lists them)" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}; a set that does not verify is not published")
    opened = OutlierSet.open(config.file, check_hashes=False)
    check_shard_names(config.file, opened.manifest)
    if not is_manifest_name(config.file.name):
        again = f"make it again with `curate rebuild {config.file} --out NAME.h5` and publish that"
        raise InputError(f"{config.file}: is named as a shard or evidence is, and would not be found; {again}")
    if missing := lacking(opened.manifest, NEEDED):
        raise InputError(f"{config.file}: its manifest has no {', '.join(missing)}; build the set with `curate build`")
    sources = rights(opened.manifest)
    if not config.index_only:
        try:
            check_rights(sources, config.rights_confirmed)
        except InputError as error:
            raise InputError(f"{config.file}: {error}") from error

    try:
        (folder / DATA).mkdir(parents=True)
        (folder / SHARDS).mkdir()
        _write(config, opened, sources, folder, _link if link else shutil.copyfile)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); free space, or name another folder"
        ) from error
    return {name: (folder / name).stat().st_size for name in _names(folder)}


def _write(
    config: PublishConfig,
    opened: OutlierSet,
    sources: Sequence[SourceRights],
    folder: Path,
    copy: Callable[[Path, Path], object],
) -> None:
    parquet = write_parquet(opened, folder / DATA, images=not config.index_only)
    shards = [] if config.index_only else [entry["file"] for entry in opened.manifest["shards"]]
    for name in [config.file.name, *shards]:
        copy(config.file.parent / name, folder / SHARDS / name)
    write_text(folder / MANIFEST, json.dumps(opened.manifest, indent=1, sort_keys=True) + "\n")
    shown = drawn_rows(opened.num_rows, SHEET_ROWS)
    if not config.index_only:
        (folder / SHEET).write_bytes(sprite(list(opened.read_images(shown)), SHEET_COLUMNS, SHEET_SIDE))
    (folder / NOTES).write_text(license_notes(sources, config.index_only, config.rights_confirmed), encoding="utf-8")

    columns = features(opened, images=not config.index_only)
    facts = CardFacts(
        repo=config.repo,
        revision=config.revision,
        manifest=opened.manifest,
        fingerprint=opened.fingerprint,
        file=config.file.name,
        sources=sources,
        features=columns,
        num_bytes=sum(_uncompressed(path) for path in parquet),
        download_bytes=sum(path.stat().st_size for path in parquet),
        shown=len(shown),
        sheet=None if config.index_only else SHEET,
        license=config.license,
    )
    (folder / CARD).write_text(dataset_card(facts), encoding="utf-8")
    (folder / CROISSANT).write_text(_croissant(config, opened, facts, folder), encoding="utf-8")


def _croissant(config: PublishConfig, opened: OutlierSet, facts: CardFacts, folder: Path) -> str:
    from huggingface_hub import constants

    endpoint = re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)  # without a name and a password
    files = {name: folder / name for name in _names(folder) if Path(name).suffix in ENCODINGS}
    # of the shards they are known, and were verified just now
    hashes = {f"{SHARDS}/{entry['file']}": str(entry["sha256"]) for entry in opened.manifest["shards"]}
    chosen = config.license or set_license(facts.sources)
    address = f"{endpoint}/datasets/{config.repo}/blob/{config.revision}/{NOTES}"
    document = croissant(
        repo=config.repo,
        revision=config.revision,
        description=(
            f"An outlier set for out-of-distribution detection: {opened.num_rows:,} images, curated against "
            f"{opened.manifest['config'].get('id')}" + (", as an index without pixels." if config.index_only else ".")
        ),
        license=[address] if chosen == "other" else [chosen] if isinstance(chosen, str) else chosen,
        features=facts.features,
        columns=COLUMNS,
        files={name: (path.stat().st_size, hashes.get(name) or file_sha256(path)) for name, path in files.items()},
        endpoint=endpoint,
    )
    return json.dumps(document, indent=1) + "\n"


def _order(name: str, manifest: str) -> int:
    """Shards first, by which a repository is known; manifest and card last, without which there is no set."""
    if name in (CARD, MANIFEST, CROISSANT, f"{SHARDS}/{manifest}"):
        return 2
    return 0 if name.startswith(f"{SHARDS}/") else 1


def _check_repository(config: PublishConfig, names: Sequence[str]) -> None:
    """Refuse a repository that holds what is not this set: a mistyped name must not replace another's work.

    A set is known by its manifest or, where it was interrupted, by its shards: they are named after the manifest.
    """
    stem = re.escape(config.file.stem)
    of_this = re.compile(rf"{SHARDS}/{stem}(-\d{{5}}-of-\d{{5}})?\.h5")
    known = any(of_this.fullmatch(name) for name in names)
    if known:
        others = [
            name
            for name in names
            if name.startswith((f"{DATA}/", f"{SHARDS}/")) and not of_this.fullmatch(name) and not ROWS.fullmatch(name)
        ]
    else:
        others = [name for name in names if name not in (CARD, ".gitattributes")]
    if others and not config.overwrite:
        raise InputError(
            f"{config.repo}: holds something else ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}); name "
            f"another repository, or give --overwrite to replace its card and what it holds in {DATA}/ and {SHARDS}/"
        )


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system cannot do so."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _uncompressed(path: Path) -> int:
    described = pq.read_metadata(path)
    return sum(described.row_group(number).total_byte_size for number in range(described.num_row_groups))
