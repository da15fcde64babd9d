"""Embedders trained on other images than the ID set: any ONNX image model, and timm's models with their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srood.errors import InputError

BATCH = 32  # rows a forward pass, padded to it: the same row gives the same bits whatever rows come with it
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_SIZE = 224  # where a model takes any size and does not say which it was trained at

Forward = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class InputSpec:
    """How an ONNX model takes its images.

    Attributes:
        channels_last: (N, H, W, 3), else (N, 3, H, W)
        height, width: in pixels
        dtype: "uint8" (pixels as they are), "float16" or "float32" (pixels / 255, less `mean`, over `std`)
        batch: the number of rows where the model fixes it
    """

    name: str
    channels_last: bool
    height: int
    width: int
    dtype: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    batch: int | None = None


def open_onnx(path: Path) -> tuple[Forward, str]:
    """The function from images (N, H, W, 3) uint8 to features (N, D) float32 that an ONNX file holds, and its SHA-256.

    The features are the model's first output of two dimensions; if there is none, the first of four, averaged over
    rows and columns, or of three, averaged over tokens. Images are resized (bilinear, antialiased) to the input's size.
    Of the model's metadata ``mean`` and ``std`` ("0.5,0.5,0.5", in units of pixel values scaled to [0, 1]) and
    ``image_size`` are heeded.

    Raises:
        InputError: onnxruntime is not installed; no such file; not an ONNX model, or none that embeds images.
    """
    from srood.hashes import file_sha256

    if not path.is_file():
        raise InputError(f"--embedder onnx:{path}: no such file; check the path")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"--embedder onnx:{path}: needs onnxruntime; install it with `pip install 'srood[onnx]'`"
        ) from error
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that have no common base but Exception
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be loaded as an ONNX model ({reason}); export it again") from error
    spec = read_input(path, session.get_inputs(), session.get_modelmeta().custom_metadata_map)

    def run(images: np.ndarray) -> list[np.ndarray]:
        try:
            outputs = session.run(None, {spec.name: _prepare(images, spec)})
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: cannot embed images of {spec.height}x{spec.width} ({reason})") from error
        return [np.asarray(output) for output in outputs]

    batch = spec.batch or BATCH
    probe = run(np.zeros((batch, 8, 8, 3), np.uint8))
    ranks = [output.ndim if output.shape[:1] == (batch,) else 0 for output in probe]
    rank = next((rank for rank in (2, 4, 3) if rank in ranks), None)
    if rank is None:
        shapes = ", ".join(str(output.shape) for output in probe)
        raise InputError(f"{path}: no output holds one vector an image (shapes {shapes}); export the pooled features")
    which = ranks.index(rank)
    pooled: tuple[int, ...] = () if rank == 2 else (1,) if rank == 3 else _rows_and_columns(probe[which].shape, spec)

    def forward(images: np.ndarray) -> np.ndarray:
        features = run(images)[which].astype(np.float32)
        return features.mean(axis=pooled) if pooled else features

    return in_batches(forward, batch), file_sha256(path)


def _rows_and_columns(shape: tuple[int, ...], spec: InputSpec) -> tuple[int, int]:
    """The axes to average over: the two that are equal where the input is square, else as the input has them."""
    equal = [axes for axes in ((1, 2), (2, 3)) if shape[axes[0]] == shape[axes[1]]]
    if spec.height == spec.width and len(equal) == 1:
        return equal[0]
    return (1, 2) if spec.channels_last else (2, 3)


def read_input(path: Path, inputs: Sequence[Any], metadata: dict[str, str]) -> InputSpec:
    """Layout, size and type of the one input of an ONNX model, as onnxruntime describes it.

    Raises:
        InputError: there is not one input, or it is not a batch of RGB images.
    """
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs)
        raise InputError(f"{path}: takes {len(inputs)} inputs ({names}); an image embedder takes one")
    entry = inputs[0]
    types = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
    shape = [dimension if isinstance(dimension, int) and dimension > 0 else None for dimension in entry.shape]
    described = f"{entry.type} of shape {list(entry.shape)}"
    if entry.type not in types or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise InputError(
            f"{path}: its input is {described}; an image embedder takes uint8 or float of shape (N, 3, H, W) or "
            "(N, H, W, 3)"
        )
    channels_last = shape[1] != 3
    height, width = (shape[1], shape[2]) if channels_last else (shape[2], shape[3])
    try:
        size = int(metadata.get("image_size", DEFAULT_SIZE))
        mean, std = (
            tuple(float(part) for part in metadata[key].split(",")) if key in metadata else default
            for key, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
        )
    except ValueError as error:
        raise InputError(f"{path}: its metadata cannot be understood ({error}); export it again") from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or size < 1:
        raise InputError(f"{path}: its metadata make no sense (mean {mean}, std {std}, size {size}); export it again")
    return InputSpec(entry.name, channels_last, height or size, width or size, types[entry.type], mean, std, shape[0])


def open_timm(name: str) -> tuple[Forward, str]:
    """The function from images (N, H, W, 3) uint8 to the features before timm's classifier, and a hash of its weights.

    Raises:
        InputError: timm is not installed; it knows no such model, or none with weights; they cannot be downloaded.
    """
    try:
        import timm
        from timm.data import resolve_model_data_config
    except ImportError as error:
        raise InputError(f"--embedder timm:{name}: needs timm; install it with `pip install 'srood[timm]'`") from error
    import torch

    from srood.precision import computes_bf16

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:3])
        hint = f"; similar ones: {near}" if near else "; `timm.list_models(pretrained=True)` lists them"
        raise InputError(f"--embedder timm:{name}: timm knows no such model{hint}")
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the Hub's client, requests, torch.hub and timm each raise their own
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        raise InputError(
            f"--embedder timm:{name}: its weights cannot be had ({reason[:200]}); check the network, or fetch them "
            "into the Hub's cache (HF_HOME) on a machine that has one"
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.eval().to(device)
    settings = resolve_model_data_config(model)
    _, height, width = settings["input_size"]
    spec = InputSpec("", False, height, width, "float32", tuple(settings["mean"]), tuple(settings["std"]))
    bf16 = computes_bf16(device)

    @torch.inference_mode()
    def forward(images: np.ndarray) -> np.ndarray:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            features = model(torch.from_numpy(_prepare(images, spec)).to(device))
        return np.asarray(features.float().cpu().numpy())

    return in_batches(forward, BATCH), _weights_hash(model, settings)


def in_batches(forward: Forward, batch: int) -> Forward:
    """Run `forward` on batches of exactly `batch` rows; the last is filled up with zeros."""
    empty: list[np.ndarray] = []  # what no rows give, known once something was run

    def run(images: np.ndarray) -> np.ndarray:
        if not len(images) and not empty:
            empty.append(forward(np.zeros((batch, *images.shape[1:]), np.uint8))[:0])
        parts = list(empty)
        for start in range(0, len(images), batch):
            rows = images[start : start + batch]
            full = np.zeros((batch, *images.shape[1:]), np.uint8)
            full[: len(rows)] = rows
            parts.append(forward(full)[: len(rows)])
        return np.concatenate(parts)

    return run


def _prepare(images: np.ndarray, spec: InputSpec) -> np.ndarray:
    import torch
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    if pixels.shape[2:] != (spec.height, spec.width):
        pixels = interpolate(pixels, size=(spec.height, spec.width), mode="bilinear", antialias=True)
    if spec.dtype == "uint8":
        pixels = pixels.round().clamp(0, 255).to(torch.uint8)
    else:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (spec.mean, spec.std))
        pixels = ((pixels - mean) / std).to(getattr(torch, spec.dtype))
    if spec.channels_last:
        pixels = pixels.permute(0, 2, 3, 1)
    return np.asarray(pixels.contiguous().numpy())


def _weights_hash(model: Any, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps({key: str(settings[key]) for key in sorted(settings)}).encode())
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
