"""A Hugging Face Hub on this machine: folders served as dataset repositories, over HTTP, to the real client.

It answers what `huggingface_hub` asks for when it reads datasets, with the status codes and headers of the real Hub
(https://huggingface.co/docs/hub/api; error headers as `huggingface_hub.utils.hf_raise_for_status` reads them). Files
are stored as Git LFS does: named by their SHA-256, and optionally handed out by another host after a redirect.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = {".parquet", ".h5", ".safetensors", ".bin"}


@dataclass
class Repo:
    """A dataset repository: a folder for each commit, and the commit that each branch or tag names."""

    name: str
    commits: dict[str, Path] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    gated: bool = False
    allowed_tokens: set[str] = field(default_factory=set)

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)

    def files(self, commit: str) -> dict[str, Path]:
        root = self.commits[commit]
        return {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}


@dataclass(frozen=True)
class Request:
    """One request as it came in, and how it was answered."""

    method: str
    path: str
    query: dict[str, list[str]]
    range: str | None
    token: str | None
    status: int
    sent: int  # bytes of the body


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Failure:
    status: int | None
    times: int
    path: re.Pattern[str]
    sent: int
    headers: dict[str, str]


def failure(status: int, code: str, message: str) -> Answer:
    """An error as the Hub words it: the client reads the headers, people the body."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json", **headers})


def as_json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


class HubServer:
    """A running server; `with HubServer() as server` starts it on a free port and stops it.

    Attributes:
        endpoint: what HF_ENDPOINT is to be.
        requests: every request so far.
        repos: the repositories, by name.
        cdn: whether LFS files come from another host (``localhost`` instead of ``127.0.0.1``) after a redirect.
    """

    def __init__(self, cdn: bool = False) -> None:
        self.cdn = cdn
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.blobs: dict[str, Path] = {}
        self._failures: list[_Failure] = []
        self._http = _Http(self)
        self.port = self._http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop answering: new connections are refused, open ones closed."""
        self._http.shutdown()
        self._http.server_close()
        self._http.close_connections()

    def add(self, name: str, folder: Path, commit: str | None = None, branch: str = "main", **settings: Any) -> Repo:
        """Serve a folder as a commit of a repository, and let a branch name it."""
        repo = self.repos.setdefault(name, Repo(name))
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
        self._failures.append(_Failure(status, times, re.compile(path), sent, headers or {}))

    def take_failure(self, path: str) -> _Failure | None:
        for planned in self._failures:
            if planned.times > 0 and planned.path.search(path):
                planned.times -= 1
                return planned
        return None

    # -- what the Hub answers ---------------------------------------------------------------------------------------

    def answer(self, handler: _Handler, path: str, query: dict[str, list[str]]) -> Answer:
        for method, pattern, function in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == handler.method:
                return function(self, handler, query, **{k: unquote(v or "") for k, v in match.groupdict().items()})
        return failure(404, "", f"no route for {handler.method} {path}")

    def find(self, handler: _Handler, repo: str, revision: str) -> tuple[Repo, str] | Answer:
        """The repository and the commit, or the Hub's answer where there is none."""
        found = self.repos.get(repo)
        if found is None:  # whoever is not logged in is not told whether a repository exists
            if handler.token is None:
                return failure(401, "", "Invalid username or password.")
            return failure(404, "RepoNotFound", "Repository not found")
        commit = found.commit_of(revision or "main")
        if commit is None:
            return failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found, commit

    def describe(self, path: Path) -> dict[str, Any]:
        """Size and Git identity of a file and, for LFS, its SHA-256."""
        data = path.read_bytes()
        entry: dict[str, Any] = {"size": len(data), "oid": git_sha1(data)}
        if path.suffix in LFS_SUFFIXES:
            digest = hashlib.sha256(data).hexdigest()
            self.blobs[digest] = path
            entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 130}
        return entry

    def dataset_info(self, handler: _Handler, query: dict[str, list[str]], repo: str, revision: str = "") -> Answer:
        found = self.find(handler, repo, revision)
        if isinstance(found, Answer):
            return found
        entry, commit = found
        siblings: list[dict[str, Any]] = []
        for name, path in entry.files(commit).items():
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
                "private": False,
                "gated": "auto" if entry.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "cardData": {"license": entry.license} if entry.license else {},
                "siblings": siblings,
            }
        )

    def tree(self, handler: _Handler, query: dict[str, list[str]], repo: str, revision: str, folder: str) -> Answer:
        found = self.find(handler, repo, revision)
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

    def paths_info(self, handler: _Handler, query: dict[str, list[str]], repo: str, revision: str) -> Answer:
        found = self.find(handler, repo, revision)
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

    def resolve(self, handler: _Handler, query: dict[str, list[str]], repo: str, revision: str, name: str) -> Answer:
        found = self.find(handler, repo, revision)
        if isinstance(found, Answer):
            return found
        entry, commit = found
        if entry.gated and handler.token not in entry.allowed_tokens:
            return failure(
                403 if handler.token else 401, "GatedRepo", f"Access to dataset {repo} is restricted. Ask for access."
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

    def blob(self, handler: _Handler, query: dict[str, list[str]], digest: str) -> Answer:
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
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SROOD_DATA"):
        monkeypatch.delenv(name, raising=False)


REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
# method, path, function; a HEAD request is answered like GET, without the body
ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", rf"/api/datasets/{REPO}", HubServer.dataset_info),
    ("GET", rf"/api/datasets/{REPO}/revision/{REVISION}", HubServer.dataset_info),
    ("GET", rf"/api/datasets/{REPO}/tree/{REVISION}(?:/(?P<folder>.+))?", HubServer.tree),
    ("POST", rf"/api/datasets/{REPO}/paths-info/{REVISION}", HubServer.paths_info),
    ("GET", rf"/datasets/{REPO}/resolve/{REVISION}/(?P<name>.+)", HubServer.resolve),
    ("GET", r"/cdn/(?P<digest>[0-9a-f]{64})", HubServer.blob),
]


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def ranged(path: Path, asked: str | None, headers: dict[str, str]) -> Answer:
    """A file's bytes, or the one range of them that was asked for (RFC 9110, section 14)."""
    data = path.read_bytes()
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if not match:
        return Answer(200, data, headers)
    first, last = match.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last) + 1 if first and last else len(data), len(data))
    if start >= len(data):
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def _respond(self) -> None:
        hub = self.server.hub
        self.method = "GET" if self.command == "HEAD" else self.command
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.range = self.headers.get("Range")
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        planned = hub.take_failure(url.path)
        if planned and planned.status is None and not planned.sent:
            hub.requests.append(Request(self.command, url.path, query, self.range, self.token, 0, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if planned and planned.status is not None:
            answer = failure(planned.status, "", "planned")
            answer.headers.update(planned.headers)
        else:
            answer = hub.answer(self, url.path, query)
        body = b"" if self.command == "HEAD" else answer.body
        hub.requests.append(Request(self.command, url.path, query, self.range, self.token, answer.status, len(body)))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if planned and planned.status is None:
            self.wfile.write(body[: planned.sent])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.open: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # a client that hung up is no news, all else is

    def close_connections(self) -> None:
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
