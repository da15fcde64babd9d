"""A Hugging Face Hub on this machine: folders served as repositories, over HTTP, to the real client.

It answers what `huggingface_hub` asks for when it reads datasets and models and (hub_server_writes) writes them, with
the status codes and headers of the real Hub (https://huggingface.co/docs/hub/api; error headers as
`huggingface_hub.utils.hf_raise_for_status` reads them). Files are stored as Git LFS does: named by their SHA-256, and
optionally handed out by another host after a redirect.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import hub_server_writes
import yaml
from hub_http import Answer, Failure, Handler, HttpServer, Request, as_json, failure, ranged

LFS_SUFFIXES = {".parquet", ".h5", ".safetensors", ".bin"}


@dataclass
class Repo:
    """A repository: a folder for each commit, and the commit that each branch or tag names."""

    name: str
    kind: str = "datasets"  # or models
    commits: dict[str, Path] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    private: bool = False
    messages: dict[str, str] = field(default_factory=dict)  # of commits that were pushed
    gated: bool = False
    allowed_tokens: set[str] = field(default_factory=set)

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)

    def files(self, commit: str) -> dict[str, Path]:
        root = self.commits[commit]
        return {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}


class HubServer:
    """A running server; `with HubServer() as server` starts it on a free port and stops it.

    Attributes:
        endpoint: what HF_ENDPOINT is to be.
        requests: every request so far.
        repos: the dataset repositories, by name.
        models: the model repositories, by name.
        writers: for each token that may write, the names of the user (first) and the organisations it may write to.
        cdn: whether LFS files come from another host (``localhost`` instead of ``127.0.0.1``) after a redirect.
    """

    def __init__(self, cdn: bool = False) -> None:
        self.cdn = cdn
        self.repos: dict[str, Repo] = {}
        self.models: dict[str, Repo] = {}
        self.writers: dict[str, list[str]] = {}
        self.requests: list[Request] = []
        self.blobs: dict[str, Path] = {}
        self.storage = Path(tempfile.mkdtemp(prefix="hub-"))
        self._failures: list[Failure] = []
        self._http = HttpServer(self)
        self.port = self._http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.storage, ignore_errors=True)

    def stop(self) -> None:
        """Stop answering: new connections are refused, open ones closed."""
        self._http.shutdown()
        self._http.server_close()
        self._http.close_connections()

    def add(
        self,
        name: str,
        folder: Path,
        commit: str | None = None,
        branch: str = "main",
        kind: str = "datasets",
        **settings: Any,
    ) -> Repo:
        """Serve a folder as a commit of a repository, and let a branch name it."""
        repo = self.of_kind(kind).setdefault(name, Repo(name, kind))
        for key, value in settings.items():
            setattr(repo, key, value)
        commit = commit or hashlib.sha1(f"{name} {len(repo.commits)}".encode()).hexdigest()
        repo.commits[commit] = folder
        repo.refs[branch] = commit
        return repo

    def fail_next(
        self,
        status: int | None = 500,
        times: int = 1,
        path: str = "",
        sent: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer the next requests whose path matches a regular expression with a status and headers.

        None cuts the connection, before the answer or after so many bytes of it.
        """
        self._failures.append(Failure(status, times, re.compile(path), sent, headers or {}))

    def plan_nothing(self) -> None:
        """Forget the failures that were planned."""
        self._failures.clear()

    def take_failure(self, path: str) -> Failure | None:
        for planned in self._failures:
            if planned.times > 0 and planned.path.search(path):
                planned.times -= 1
                return planned
        return None

    # -- what the Hub answers ---------------------------------------------------------------------------------------

    def answer(self, handler: Handler, path: str, query: dict[str, list[str]]) -> Answer:
        for method, pattern, function in ROUTES + hub_server_writes.ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == handler.method:
                parts = {name: unquote(value or "") for name, value in match.groupdict().items()}
                return function(self, handler, query, **parts)
        return failure(404, "", f"no route for {handler.method} {path}")

    def of_kind(self, kind: str) -> dict[str, Repo]:
        """The repositories of a kind, ``datasets`` or ``models`` (also named by an empty text, as in addresses)."""
        return self.repos if kind == "datasets" else self.models

    def may_write(self, handler: Handler, repo: str) -> bool:
        """Whether the token of a request may write to a repository, existing or not."""
        return repo.partition("/")[0] in self.writers.get(handler.token or "", [])

    def find(self, handler: Handler, kind: str, repo: str, revision: str) -> tuple[Repo, str] | Answer:
        """The repository and the commit, or the Hub's answer where there is none."""
        found = self.of_kind(kind).get(repo)
        if found is None or (found.private and not self.may_write(handler, repo)):
            if handler.token is None:  # who is not logged in is not told whether a repository exists
                return failure(401, "", "Invalid username or password.")
            return failure(404, "RepoNotFound", "Repository not found")
        commit = found.commit_of(revision or "main")
        if commit is None:
            return failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found, commit

    def is_lfs(self, name: str) -> bool:
        """Whether a file is stored by Git LFS: a rule on names, as .gitattributes gives."""
        return Path(name).suffix in LFS_SUFFIXES

    def describe(self, path: Path) -> dict[str, Any]:
        """Size and Git identity of a file and, for LFS, its SHA-256."""
        data = path.read_bytes()
        entry: dict[str, Any] = {"size": len(data), "oid": git_sha1(data)}
        if self.is_lfs(path.name):
            digest = hashlib.sha256(data).hexdigest()
            self.blobs[digest] = path
            entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 130}
        return entry

    def info(self, handler: Handler, query: dict[str, list[str]], kind: str, repo: str, revision: str = "") -> Answer:
        found = self.find(handler, kind, repo, revision)
        if isinstance(found, Answer):
            return found
        entry, commit = found
        files = entry.files(commit)
        card = front_matter(files["README.md"].read_text(encoding="utf-8")) if "README.md" in files else {}
        siblings: list[dict[str, Any]] = []
        for name, path in files.items():
            sibling: dict[str, Any] = {"rfilename": name}
            if "blobs" in query:
                described = self.describe(path)
                sibling |= {"size": described["size"], "blobId": described["oid"]}
                if "lfs" in described:
                    sibling["lfs"] = {key: described["lfs"][key] for key in ("sha256", "size", "pointerSize")}
            siblings.append(sibling)
        return as_json(
            {
                "_id": "0" * 24,
                "id": repo,
                "author": repo.partition("/")[0],
                "sha": commit,
                "lastModified": "2024-01-01T00:00:00.000Z",
                "createdAt": "2024-01-01T00:00:00.000Z",
                "private": entry.private,
                "gated": "auto" if entry.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "cardData": card | ({"license": entry.license} if entry.license else {}),
                "siblings": siblings,
            }
        )

    def tree(
        self, handler: Handler, query: dict[str, list[str]], kind: str, repo: str, revision: str, folder: str
    ) -> Answer:
        found = self.find(handler, kind, repo, revision)
        if isinstance(found, Answer):
            return found
        entry, commit = found
        recursive = query.get("recursive", ["False"])[0].lower() == "true"
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, path in entry.files(commit).items():
            if not name.startswith(prefix):
                continue
            inner = name.removeprefix(prefix).split("/")
            for depth in range(1, len(inner) if recursive else min(2, len(inner))):
                parent = prefix + "/".join(inner[:depth])
                entries[parent] = {"type": "directory", "path": parent, "size": 0, "oid": git_sha1(parent.encode())}
            if recursive or len(inner) == 1:
                entries[name] = {"type": "file", "path": name, **self.describe(path)}
        if folder and not entries:
            return failure(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        return as_json(list(entries.values()))

    def paths_info(self, handler: Handler, query: dict[str, list[str]], kind: str, repo: str, revision: str) -> Answer:
        found = self.find(handler, kind, repo, revision)
        if isinstance(found, Answer):
            return found
        entry, commit = found
        asked = json.loads(handler.body) if handler.body[:1] == b"{" else parse_qs(handler.body.decode())
        wanted = asked.get("paths", [])
        files = entry.files(commit)
        found_files = [{"type": "file", "path": n, **self.describe(files[n])} for n in wanted if n in files]
        folders = [n for n in wanted if n not in files and any(name.startswith(f"{n}/") for name in files)]
        found_folders = [{"type": "directory", "path": n, "size": 0, "oid": git_sha1(n.encode())} for n in folders]
        return as_json(found_files + found_folders)

    def resolve(
        self, handler: Handler, query: dict[str, list[str]], kind: str, repo: str, revision: str, name: str
    ) -> Answer:
        found = self.find(handler, kind, repo, revision)
        if isinstance(found, Answer):
            return found
        entry, commit = found
        if entry.gated and handler.token not in entry.allowed_tokens:
            return failure(
                403 if handler.token else 401, "GatedRepo", f"Access to {repo} is restricted. Ask for access."
            )
        path = entry.files(commit).get(name)
        if path is None:
            missing = failure(404, "EntryNotFound", "Entry not found")
            return Answer(missing.status, missing.body, missing.headers | {"X-Repo-Commit": commit})
        described = self.describe(path)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if "lfs" not in described:
            return ranged(path, handler.range, headers | {"ETag": f'"{described["oid"]}"'})
        digest = described["lfs"]["sha256"]
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(described["size"])}
        if self.cdn:
            return Answer(
                302, b"", headers | {"Location": f"http://localhost:{self.port}/cdn/{digest}?Signature=s3cr3t"}
            )
        return ranged(path, handler.range, headers | {"ETag": f'"{digest}"'})

    def blob(self, handler: Handler, query: dict[str, list[str]], digest: str) -> Answer:
        return ranged(self.blobs[digest], handler.range, {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})


def point_client_at(server: HubServer, home: Path, monkeypatch: Any) -> None:
    """What HF_ENDPOINT and HF_HOME do, which the client reads only when it is imported."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # before 1.0
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # the server has Git LFS only
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SROOD_DATA"):
        monkeypatch.delenv(name, raising=False)


KIND = r"(?P<kind>datasets|models)"
REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
# method, path, function; a HEAD request is answered like GET, without the body
ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", rf"/api/{KIND}/{REPO}", HubServer.info),
    ("GET", rf"/api/{KIND}/{REPO}/revision/{REVISION}", HubServer.info),
    ("GET", rf"/api/{KIND}/{REPO}/tree/{REVISION}(?:/(?P<folder>.+))?", HubServer.tree),
    ("POST", rf"/api/{KIND}/{REPO}/paths-info/{REVISION}", HubServer.paths_info),
    ("GET", rf"/(?:(?P<kind>datasets)/)?{REPO}/resolve/{REVISION}/(?P<name>.+)", HubServer.resolve),
    ("GET", r"/cdn/(?P<digest>[0-9a-f]{64})", HubServer.blob),
]


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def front_matter(text: str) -> dict[str, Any]:
    """The metadata of a card: the YAML between two lines of ``---`` at its beginning."""
    match = re.match(r"---\n(.*?)^---$", text, flags=re.DOTALL | re.MULTILINE)
    return (yaml.safe_load(match[1]) or {}) if match else {}
