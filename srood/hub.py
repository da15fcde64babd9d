"""Image sets on the Hugging Face Hub: which Parquet files a repository holds at a commit, and fetching them."""

from __future__ import annotations

import fnmatch
from functools import partial
from pathlib import Path

from srood.errors import InputError
from srood.parquet import ParquetPart


def parquet_parts(repo: str, revision: str, pattern: str) -> tuple[str, tuple[ParquetPart, ...]]:
    """The Parquet files of a dataset repository that match a glob, in order of name, not downloaded yet.

    Returns:
        the commit the revision stands for, and the files.

    Raises:
        InputError: the Hub cannot be reached and nothing is cached, or there is no such repository, revision or file.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=20)
    except Exception as error:
        cached = _cached(repo, revision, pattern)
        if cached:
            return cached
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"hf://{repo}@{revision}: {_explain(error)} ({reason[:160]})") from error
    commit = info.sha or revision
    parts = []
    for file in sorted(info.siblings or [], key=lambda sibling: sibling.rfilename):
        if fnmatch.fnmatch(file.rfilename, pattern):
            digest = file.lfs.sha256 if file.lfs else None
            parts.append(ParquetPart(fetch=partial(_download, repo, commit, file.rfilename), known_sha256=digest))
    if not parts:
        raise InputError(f"hf://{repo}@{revision}: no file matches {pattern}; name a split the repository has")
    return commit, tuple(parts)


def license_of(repo: str, revision: str) -> str:
    """The licence that the repository's card names, or ``unknown``."""
    from huggingface_hub import HfApi

    try:
        data = HfApi().dataset_info(repo, revision=revision, timeout=20).card_data
    except Exception:  # the set itself was found, and an unread card is what "unknown" says
        return "unknown"
    return str((data or {}).get("license") or "unknown")


def _download(repo: str, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit))
    except Exception as error:
        raise InputError(f"hf://{repo}@{commit}/{name}: {_explain(error)}") from error


def _cached(repo: str, revision: str, pattern: str) -> tuple[str, tuple[ParquetPart, ...]] | None:
    from huggingface_hub import snapshot_download

    try:
        root = Path(
            snapshot_download(
                repo, repo_type="dataset", revision=revision, allow_patterns=pattern, local_files_only=True
            )
        )
    except Exception:  # nothing in the cache: the caller reports why the Hub was of no help
        return None
    files = sorted(p for p in root.rglob("*.parquet") if fnmatch.fnmatch(p.relative_to(root).as_posix(), pattern))
    return (root.name, tuple(ParquetPart(path=path) for path in files)) if files else None


def _explain(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "is gated; accept its terms on its page and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "no such dataset repository, or it is private; log in with `hf auth login`"
    return "the Hub cannot be reached; check the network, or put the files under $SROOD_DATA"
