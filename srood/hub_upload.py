"""Writing a folder to a repository on the Hugging Face Hub, models or datasets, as one commit or, if large, as several.

The token is the Hub's own: HF_TOKEN or what `hf auth login` stored. It is never asked for, shown or written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from srood.errors import InputError
from srood.hub import COMMIT
from srood.hub_errors import explain_upload, retry

COMMIT_FILES = 256  # at most in a commit: the Hub may answer one with many more too late
COMMIT_WAITS = (1.0,)  # seconds: the client itself tries uploads again for 23 s


@dataclass(frozen=True)
class Pushed:
    """What an upload came to: the repository's address, the commit that it is at, and whether that is a new one."""

    url: str
    commit: str
    changed: bool


def check_repo_name(repo: str) -> None:
    """Check that a text can name a repository on the Hub.

    Raises:
        InputError: it is not ``owner/name`` in the characters that the Hub allows.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo}: is not the name of a repository on the Hub; give owner/name") from error
    if repo.count("/") != 1:
        raise InputError(f"{repo}: does not name its owner; give owner/name")


def check_branch(revision: str) -> None:
    """Check that a text can name a branch.

    Raises:
        InputError: it is a commit, or holds characters that no branch name has.
    """
    if COMMIT.fullmatch(revision):
        raise InputError(f"--revision {revision}: is a commit, which cannot be written to; name a branch")
    if not re.fullmatch(r"(?!.*\.\.)[\w][\w./-]*(?<![./])", revision):
        raise InputError(f"--revision {revision}: cannot be the name of a branch; use letters, digits, -, _, . and /")


def upload(
    folder: Path,
    repo: str,
    message: str,
    *,
    repo_type: str = "model",
    revision: str = "main",
    private: bool = False,
    owned: Callable[[str], bool] = lambda name: False,
    order: Callable[[str], int] = lambda name: 0,
    check: Callable[[Sequence[str]], None] = lambda names: None,
) -> Pushed:
    """Make a repository's branch hold the files of a folder; repository and branch are made if need be.

    What is there already is not sent again, be it committed or only uploaded by an attempt that was interrupted, and
    where nothing differs there is no commit. Failures that may pass are tried again. Up to COMMIT_FILES files are one
    commit, so that there is no moment at which half of them are there; more are several.

    Args:
        folder: its files, with those in subfolders
        repo: ``owner/name``
        message: the commit's first line
        repo_type: ``model`` or ``dataset``
        revision: the branch
        private: make a new repository private; one that is public is refused
        owned: which other files of the repository an earlier upload left, by name; they are deleted
        order: by which files, by name, are put into several commits; the least comes first
        check: is given the names of the files that are there, and may raise an `InputError` before any is changed

    Raises:
        InputError: a name that cannot be one, nobody is logged in, or the Hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    check_repo_name(repo)
    check_branch(revision)
    if get_token() is None:
        raise InputError(
            f"{repo}: nobody is logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may write"
        )
    api = HfApi()
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names.sort(key=lambda name: (order(name), name))
    parts = [names[start : start + COMMIT_FILES] for start in range(0, len(names), COMMIT_FILES)]

    def commit(number: int) -> Any:
        # made anew for each try: the client keeps in an operation what the Hub said of it the first time
        operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in parts[number]]
        title = message
        if number < len(parts) - 1:
            title += f" (part {number + 1} of {len(parts)})"
        else:
            present = api.list_repo_files(repo, repo_type=repo_type, revision=revision)
            operations += [CommitOperationDelete(name) for name in present if owned(name) and name not in names]
        try:
            return api.create_commit(repo, operations, commit_message=title, repo_type=repo_type, revision=revision)
        except RuntimeError as error:  # "Error while uploading FILE": what matters is why
            raise (error.__cause__ or error) from None

    try:
        url = str(retry(lambda: api.create_repo(repo, private=private or None, repo_type=repo_type, exist_ok=True)))
        if private and not retry(lambda: api.repo_info(repo, repo_type=repo_type)).private:
            raise InputError(f"{repo}: is public, and so would be what is pushed; make it private first")
        if revision != "main" and not revision.startswith("refs/"):
            retry(lambda: api.create_branch(repo, branch=revision, repo_type=repo_type, exist_ok=True))
        before = retry(lambda: api.repo_info(repo, repo_type=repo_type, revision=revision))
        check(retry(lambda: api.list_repo_files(repo, repo_type=repo_type, revision=revision)))
        for number in range(len(parts)):
            after = retry(partial(commit, number), COMMIT_WAITS)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{repo}: {explain_upload(error)}") from error
    return Pushed(url, after.oid, after.oid != before.sha)
