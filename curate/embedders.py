"""Semantic descriptors: an embedding of an image in which images of one class lie close together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.pretrained import open_onnx, open_timm
from srood.errors import InputError

BATCH = 256  # the forward pass's batch; fixed, so that results do not depend on how rows arrive


@dataclass(frozen=True)
class Embeddings:
    """`vectors` (N, D) float32 of unit length; `energy` (N,) float32 where the embedder is a classifier."""

    vectors: np.ndarray
    energy: np.ndarray | None = None


@dataclass(frozen=True)
class Embedder:
    """A named function from images (N, H, W, 3) uint8 to embeddings."""

    name: str
    fingerprint: str
    embed: Callable[[np.ndarray], Embeddings]


def open_embedder(spec: str) -> Embedder:
    """Open an embedder.

    ``thumbnail`` needs no weights; ``checkpoint:PATH`` gives the penultimate features of an ID classifier (a weights
    file or a run folder), ``onnx:PATH`` the output of any ONNX image model, ``timm:NAME`` the features of a timm model
    with its pretrained weights.

    Raises:
        InputError: no such embedder, or it cannot be loaded.
    """
    kind, _, argument = spec.partition(":")
    if kind == "thumbnail" and not argument:
        return Embedder("thumbnail", "thumbnail-1", lambda images: Embeddings(thumbnail(images)))
    if kind == "checkpoint" and argument:
        return _open_checkpoint(Path(argument))
    if kind == "onnx" and argument:
        return _from_features("onnx", *open_onnx(Path(argument)))
    if kind == "timm" and argument:
        return _from_features(spec, *open_timm(argument))
    raise InputError(f"--embedder {spec}: no such embedder; one of thumbnail, checkpoint:PATH, onnx:PATH and timm:NAME")


def _from_features(name: str, features: Callable[[np.ndarray], np.ndarray], fingerprint: str) -> Embedder:
    def embed(images: np.ndarray) -> Embeddings:
        vectors = features(images)
        if not np.isfinite(vectors).all():
            raise InputError(f"--embedder {name}: gives values that are not finite; use another model")
        return Embeddings(unit_length(vectors))

    return Embedder(name, fingerprint, embed)


def thumbnail(images: np.ndarray) -> np.ndarray:
    """8x8 colour thumbnails without their mean, of unit length: (N, 192) float32. Needs no weights.

    It knows layout and colour, not classes: a weak stand-in for a classifier's features (docs/curation.md has figures).
    """
    count, height, width, _ = images.shape
    rows = (np.arange(9) * height) // 8
    columns = (np.arange(9) * width) // 8
    sums = np.add.reduceat(images.astype(np.float32), rows[:-1], axis=1)
    sums = np.add.reduceat(sums, columns[:-1], axis=2)
    cells = sums / (np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None])
    flat = cells.reshape(count, -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return unit_length(flat)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their Euclidean norm; rows of zeros stay zero."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def _open_checkpoint(path: Path) -> Embedder:
    import torch

    from srood.hashes import file_sha256
    from srood.models.weights import load_model
    from srood.precision import computes_bf16

    if path.is_dir():
        path = path / "model.safetensors"  # a run folder
    model, info = load_model(path)
    if info.mean is None or info.std is None:
        raise InputError(f"{path}: does not say the mean and std of its inputs; save it with that metadata")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.eval().to(device)
    bf16 = computes_bf16(device)
    size = info.image_size
    mean = torch.tensor(info.mean, device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(info.std, device=device).view(1, 3, 1, 1) * 255

    @torch.inference_mode()
    def embed(images: np.ndarray) -> Embeddings:
        if size is not None and images.shape[1] != size:
            raise InputError(f"{path}: takes images of {size} pixels, not {images.shape[1]}; give --image-size {size}")
        vectors = [np.empty((0, model.fc.in_features), np.float32)]
        energy = [np.empty(0, np.float32)]
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[start : start + BATCH]).to(device).permute(0, 3, 1, 2).float()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits, features = model((pixels - mean) / std, return_features=True)
            vectors.append(features.float().cpu().numpy())
            energy.append(-torch.logsumexp(logits.float(), dim=1).cpu().numpy())
        return Embeddings(unit_length(np.concatenate(vectors)), np.concatenate(energy))

    return Embedder("checkpoint", file_sha256(path), embed)
