"""Datasets on the Hugging Face Hub: which files a repository holds at a commit, and reading them whole or in part.

A listing is kept under ``$HF_HOME/srood/listings``, and files in the Hub's own cache, so that what was read once is
read again without a network. Nothing here knows what is in the files.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srood.errors import InputError
from srood.hub_errors import WAITS, explain, retry, unreachable

TIMEOUT = 20.0  # seconds without an answer
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """One file of a dataset repository at a commit: `size` in bytes, and what the Hub states of its content.

    `sha256` (hex) is known of large files (LFS), `git_sha1`, Git's hash of the others; both are None where the listing
    is of the cache alone.
    """

    repo: str
    commit: str
    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.commit}/{self.name}"

    def cached(self) -> Path | None:
        """The file's path in the Hub's cache, or None where it was not downloaded yet.

        Raises:
            InputError: what lies there is not what the Hub states.
        """
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repo, self.name, revision=self.commit, repo_type="dataset")
        return self._checked(Path(path)) if isinstance(path, str) else None

    def fetch(self) -> Path:
        """The file's path in the Hub's cache, downloading it if need be.

        Raises:
            InputError: it cannot be downloaded, or what came is not what the Hub states.
        """
        from huggingface_hub import hf_hub_download

        path = self.cached()
        if path is not None:
            return path
        self.read(0, 1)  # says within seconds what stands in the way
        try:
            path = Path(hf_hub_download(self.repo, self.name, repo_type="dataset", revision=self.commit))
        except Exception as error:
            raise InputError(f"{self}: {explain(error)}") from error
        return self._checked(path)

    def _checked(self, path: Path) -> Path:
        """A file of the cache, if it is what the Hub states: its content is hashed once in a process."""
        found = path.stat()
        good = found.st_size == self.size
        if good and (self.sha256 or self.git_sha1):
            expected = self.sha256 or self.git_sha1
            identity = (found.st_ino, found.st_size, found.st_mtime_ns)
            good = _hash_of(path.resolve(), identity, git=self.sha256 is None) == expected
        if not good:
            raise InputError(
                f"{self}: its copy in the cache is not what the Hub states; remove {path} to fetch it again"
            )
        return path

    def read(self, start: int, end: int, waits: Sequence[float] = WAITS) -> bytes:
        """Bytes `start` to `end` (not included), by an HTTP range request; `waits` in seconds before further tries.

        Raises:
            InputError: the Hub does not give them.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        def request() -> bytes:
            url = hf_hub_url(self.repo, self.name, repo_type="dataset", revision=self.commit)
            # without "identity" a server may compress, and the range would count compressed bytes
            headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
            response = get_session().get(url, headers=headers, timeout=TIMEOUT)
            hf_raise_for_status(response)
            content = bytes(response.content)
            if response.status_code != 206:
                content = content[start:end]  # 200: the range was ignored
            if len(content) != end - start:
                raise ConnectionError(f"{len(content):,} bytes came for {end - start:,} asked for")
            return content

        try:
            return retry(request, waits)
        except Exception as error:
            raise InputError(f"{self}: {explain(error)}") from error

    def open(self, waits: Sequence[float] = WAITS) -> io.RawIOBase:
        """The file as a seekable stream that requests only the bytes that are read; `waits` as in `read`."""
        return _RangeStream(self, waits)


@functools.lru_cache(maxsize=4096)
def _hash_of(path: Path, identity: tuple[int, int, int], git: bool) -> str:
    """SHA-256 (hex) of a file, or Git's SHA-1 of it; `identity` changes when the file does."""
    digest = hashlib.sha1(b"blob %d\0" % identity[1], usedforsecurity=False) if git else hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _RangeStream(io.RawIOBase):
    def __init__(self, file: HubFile, waits: Sequence[float]) -> None:
        super().__init__()
        self.file = file
        self.waits = waits
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.file.size}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        end = min(self.position + len(buffer), self.file.size)
        if end <= self.position:
            return 0
        data = self.file.read(self.position, end, self.waits)
        buffer[: len(data)] = data
        self.position = end
        return len(data)


@dataclass(frozen=True)
class Listing:
    """The files of a dataset repository at `commit`, sorted by name, and the licence that its card names."""

    repo: str
    commit: str
    license: str
    files: tuple[HubFile, ...]


def listing(repo: str, revision: str) -> Listing:
    """What a dataset repository holds at a branch, tag or commit.

    A commit that was listed before is not asked for again. For a branch or tag the Hub is asked, and only where it
    cannot be reached does what is in the cache stand in.

    Raises:
        InputError: there is no such repository or revision, or the Hub cannot be reached and nothing is cached.
    """
    from huggingface_hub import HfApi

    stored = _stored(repo, revision)
    if stored and COMMIT.fullmatch(revision):
        return stored
    try:
        info = retry(lambda: HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT))
    except Exception as error:
        found = (stored or _snapshot(repo, revision)) if unreachable(error) else None
        if found:
            return found
        raise InputError(f"hf://{repo}@{revision}: {explain(error)}") from error
    commit = info.sha or revision
    files = [
        HubFile(
            *(repo, commit, item.rfilename, item.size or 0),
            sha256=item.lfs.sha256 if item.lfs else None,
            git_sha1=None if item.lfs else item.blob_id,
        )
        for item in sorted(info.siblings or [], key=lambda item: item.rfilename)
    ]
    licences = info.card_data.get("license") if info.card_data else None
    licence = ", ".join(licences) if isinstance(licences, list) else str(licences or "unknown")
    result = Listing(repo, commit, licence, tuple(files))
    for name in {commit, revision}:
        _store(result, name)
    return result


def _stored_at(repo: str, revision: str) -> Path:
    from huggingface_hub import constants

    name = "--".join(re.sub(r"[^\w.-]", "--", part) for part in (repo, revision))
    return Path(constants.HF_HOME, "srood", "listings", f"{name}.json")


def _store(found: Listing, revision: str) -> None:
    path = _stored_at(found.repo, revision)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):  # a cache that cannot be written only costs another request
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(asdict(found)))
        os.replace(beside, path)


def _stored(repo: str, revision: str) -> Listing | None:
    try:
        entry = json.loads(_stored_at(repo, revision).read_text())
        files = tuple(HubFile(**file) for file in entry.pop("files"))
        return Listing(**entry, files=files)
    except (OSError, ValueError, TypeError, KeyError):  # none yet, or of another version of this code
        return None


def _snapshot(repo: str, revision: str) -> Listing | None:
    """What another program (``hf download``, say) put into the Hub's cache, where no split lacks one of its files."""
    from huggingface_hub import snapshot_download

    try:
        root = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
    except Exception:  # nothing in the cache: the caller reports why the Hub was of no help
        return None
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    names = [path.relative_to(root).as_posix() for path in paths]
    if not _complete(names):
        return None
    files = [HubFile(repo, root.name, name, path.stat().st_size) for name, path in zip(names, paths, strict=True)]
    return Listing(repo, root.name, "unknown", tuple(files))


def _complete(names: Sequence[str]) -> bool:
    counts: dict[tuple[str, int], int] = {}
    for name in names:
        if match := re.search(r"^(.*)-\d{5}-of-(\d{5})\b", name):
            key = (match[1], int(match[2]))
            counts[key] = counts.get(key, 0) + 1
    return all(count == total for (_, total), count in counts.items())
