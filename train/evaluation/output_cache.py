"""Outputs kept from one evaluation to the next, found again by what they were computed from.

A file is named by a hash of what its content depends on (`OutputCache.identity`, the kind and the images), so that
nothing has to be kept in step: other weights, images or code are other files. It holds a checksum of its tensors; a
file that is damaged, cut off or of another origin counts as missing and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from srood.files import replace_file
from train.reporting import say

LIMIT = 4 << 30  # bytes in one cache folder; beyond it what was not used for longest goes


@dataclass(frozen=True)
class OutputCache:
    """A folder of outputs of one classifier on one device type; `folder` None keeps nothing.

    Attributes:
        identity: what all outputs depend on: weights, normalisation, precision, device type, code
    """

    folder: Path | None
    identity: Mapping[str, object]

    def load(self, kind: str, fingerprint: str) -> dict[str, Tensor] | None:
        """The tensors of a `kind` (``outputs``, or a score with its code) for images of a fingerprint, if whole."""
        path, key = self._path(kind, fingerprint)
        if path is None:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            if metadata.get("key") != key or metadata.get("sha256") != _checksum(tensors):
                return None
            os.utime(path)  # the time of last use
            return tensors
        except (OSError, SafetensorError, ValueError, TypeError):  # missing, cut off or not ours
            return None

    def store(self, kind: str, fingerprint: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors; a folder that cannot be written to is said and otherwise ignored."""
        path, key = self._path(kind, fingerprint)
        if path is None or self.folder is None:
            return
        metadata = {"key": key, "sha256": _checksum(tensors)}
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda beside: beside.write_bytes(save(contiguous, metadata)))
            _prune(self.folder)
        except (OSError, SafetensorError) as error:
            say(f"note: {path} cannot be written ({error}); the next evaluation computes these outputs again")

    def _path(self, kind: str, fingerprint: str) -> tuple[Path | None, str]:
        key = json.dumps({**self.identity, "kind": kind, "images": fingerprint}, sort_keys=True)
        if self.folder is None:
            return None, key
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors", key


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].contiguous().numpy()
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _prune(folder: Path) -> None:
    found = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.glob("*.safetensors"))
    total = sum(size for _, size, _ in found)
    for _, size, path in found[:-1]:  # never what was written last
        if total <= LIMIT:
            break
        path.unlink(missing_ok=True)
        total -= size
