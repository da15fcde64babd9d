"""The writing side of the Hub of the tests: repositories and branches are made, files uploaded, commits added.

What the real Hub does is taken from its client (huggingface_hub.hf_api, _commit_api and lfs) and from the batch API of
Git LFS (https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md). A commit is a new folder in the server's
storage; an uploaded file is named by its SHA-256 and has an address that is signed, so that no token is sent to it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_http import Answer, Handler, as_json, failure

if TYPE_CHECKING:
    from hub_server import HubServer, Repo

Query = dict[str, list[str]]
LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "other", "unknown"}


@dataclass(frozen=True)
class Change:
    """One line of a commit: a file's new content, or None where it is deleted."""

    name: str
    content: bytes | None


def create_repo(hub: HubServer, handler: Handler, query: Query) -> Answer:
    asked = json.loads(handler.body)
    if handler.token not in hub.writers:
        return failure(401, "", "Invalid username or password.")
    name = f"{asked['organization'] or hub.writers[handler.token][0]}/{asked['name']}"
    if not hub.may_write(handler, name):
        return failure(403, "", "You don't have the rights to create a model under this namespace")
    kind = f"{asked.get('type', 'model')}s"
    answer = as_json({"name": name, "url": f"{hub.endpoint}/{'' if kind == 'models' else f'{kind}/'}{name}"})
    if name in hub.of_kind(kind):
        return Answer(409, answer.body, answer.headers)
    folder = hub.storage / hashlib.sha1(f"{kind}/{name}".encode()).hexdigest()
    folder.mkdir()
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    hub.add(name, folder, folder.name, kind=kind, private=private)
    return answer


def create_branch(hub: HubServer, handler: Handler, query: Query, kind: str, repo: str, branch: str) -> Answer:
    found = writable(hub, handler, kind, repo, (json.loads(handler.body) or {}).get("startingPoint", ""))
    if isinstance(found, Answer):
        return found
    entry, commit = found
    if branch in entry.refs:
        return failure(409, "", f"Reference refs/heads/{branch} already exists")
    entry.refs[branch] = commit
    return as_json({})


def validate_card(hub: HubServer, handler: Handler, query: Query) -> Answer:
    """What the Hub checks of a card's metadata before a commit: the licence, and the parts of every result."""
    from hub_server import front_matter

    card = front_matter(json.loads(handler.body)["content"])
    errors = []
    if card.get("license", "other") not in LICENCES:
        errors.append(f'"license" must be one of {", ".join(sorted(LICENCES))}')
    for result in (card.get("model-index") or [{}])[0].get("results", []):
        metrics = [metric.get(key) for metric in result["metrics"] for key in ("type", "value")]
        if None in [result["task"].get("type"), *(result["dataset"].get(key) for key in ("type", "name")), *metrics]:
            errors.append('"model-index[0].results" lacks a type, name or value')
    body = json.dumps({"errors": [{"message": text} for text in errors], "warnings": []}).encode()
    return Answer(400 if errors else 200, body, {"Content-Type": "application/json"})


def preupload(hub: HubServer, handler: Handler, query: Query, kind: str, repo: str, revision: str) -> Answer:
    """For each file how it is to be sent, and the identity of the one that is there."""
    found = writable(hub, handler, kind, repo, revision)
    if isinstance(found, Answer):
        return found
    present = found[0].files(found[1])
    answers = []
    for file in json.loads(handler.body)["files"]:
        name, mode = file["path"], "lfs" if hub.is_lfs(file["path"]) else "regular"
        answer: dict[str, Any] = {"path": name, "uploadMode": mode, "shouldIgnore": False}
        if name in present:
            described = hub.describe(present[name])
            answer["oid"] = described["lfs"]["oid"] if "lfs" in described else described["oid"]
        answers.append(answer)
    return as_json({"files": answers})


def lfs_batch(hub: HubServer, handler: Handler, query: Query, repo: str, kind: str = "") -> Answer:
    found = writable(hub, handler, kind, repo, "")
    if isinstance(found, Answer):
        return found
    objects = []
    for wanted in json.loads(handler.body)["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.blobs:
            upload = {"href": f"{hub.endpoint}/lfs/{wanted['oid']}?Signature=s3cr3t"}
            verify = {"href": f"{hub.endpoint}/{kind and f'{kind}/'}{repo}.git/info/lfs/verify"}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    return as_json({"transfer": "basic", "objects": objects})


def lfs_put(hub: HubServer, handler: Handler, query: Query, digest: str) -> Answer:
    if query.get("Signature") != ["s3cr3t"]:
        return failure(403, "", "SignatureDoesNotMatch")
    if hashlib.sha256(handler.body).hexdigest() != digest:
        return failure(400, "", "BadDigest")
    path = hub.storage / digest
    path.write_bytes(handler.body)
    hub.blobs[digest] = path
    return Answer(200)


def lfs_verify(hub: HubServer, handler: Handler, query: Query, repo: str, kind: str = "") -> Answer:
    asked = json.loads(handler.body)
    path = hub.blobs.get(asked["oid"])
    if path is None or path.stat().st_size != asked["size"]:
        return failure(404, "", "the file was not uploaded")
    return Answer(200)


def commit(hub: HubServer, handler: Handler, query: Query, kind: str, repo: str, revision: str) -> Answer:
    found = writable(hub, handler, kind, repo, revision)
    if isinstance(found, Answer):
        return found
    entry, parent = found
    lines = [json.loads(line) for line in handler.body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit", parent) != parent:
        return failure(412, "", "A commit has happened since. Please refresh and try again.")
    changes: list[Change] = []
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            changes.append(Change(value["path"], base64.b64decode(value["content"])))
        elif line["key"] == "lfsFile":
            if value["oid"] not in hub.blobs:
                return failure(400, "", f"LFS pointer pointed to a file that does not exist: {value['path']}")
            changes.append(Change(value["path"], hub.blobs[value["oid"]].read_bytes()))
        elif line["key"] == "deletedFile":
            if value["path"] not in entry.files(parent):
                return failure(404, "EntryNotFound", "A file with this name doesn't exist")
            changes.append(Change(value["path"], None))
    digest = hashlib.sha1(parent.encode() + handler.body).hexdigest()
    entry.commits[digest] = apply(changes, entry.commits[parent], hub.storage / digest)
    entry.refs[revision] = digest
    entry.messages[digest] = header["summary"]
    url = f"{hub.endpoint}/{repo}/commit/{digest}"
    return as_json({"success": True, "commitOid": digest, "commitUrl": url, "pullRequestUrl": None})


def apply(changes: list[Change], before: Path, after: Path) -> Path:
    shutil.copytree(before, after)
    for change in changes:
        path = after / change.name
        path.unlink(missing_ok=True)
        if change.content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(change.content)
    return after


def writable(hub: HubServer, handler: Handler, kind: str, repo: str, revision: str) -> tuple[Repo, str] | Answer:
    """The repository and the commit, or the Hub's answer to one who may not write there."""
    found = hub.find(handler, kind, repo, revision)
    if isinstance(found, Answer):
        return found
    if handler.token not in hub.writers:
        return failure(401, "", "Invalid username or password.")
    if not hub.may_write(handler, repo):
        return failure(403, "", "You are not allowed to push to this repository")
    return found


KIND = r"(?P<kind>datasets|models)"
REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
GIT = rf"/(?:(?P<kind>datasets)/)?{REPO}\.git/info/lfs"
ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("POST", r"/api/repos/create", create_repo),
    ("POST", rf"/api/{KIND}/{REPO}/branch/(?P<branch>[^/]+)", create_branch),
    ("POST", r"/api/validate-yaml", validate_card),
    ("POST", rf"/api/{KIND}/{REPO}/preupload/{REVISION}", preupload),
    ("POST", rf"{GIT}/objects/batch", lfs_batch),
    ("PUT", r"/lfs/(?P<digest>[0-9a-f]{64})", lfs_put),
    ("POST", rf"{GIT}/verify", lfs_verify),
    ("POST", rf"/api/{KIND}/{REPO}/commit/{REVISION}", commit),
]
