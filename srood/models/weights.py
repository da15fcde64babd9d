"""Weights files: safetensors with a few words of metadata about what the tensors are.

Metadata, all strings: ``arch``, ``dataset``, ``mean`` and ``std`` ("0.485,0.456,0.406"), ``class_names`` (a JSON list)
and ``image_size``; in an exported detector also ``detector``, its calibration (a JSON document, see srood.calibration).
All are optional when read.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from srood.errors import InputError
from srood.files import replace_file
from srood.models import MODEL_CHOICES, Classifier, build_model

Triple = tuple[float, float, float]
# weights_only reads tensors and plain values, and refuses what would run code; a state_dict may lie within
CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    'd = torch.load(sys.argv[1], map_location="cpu", weights_only=True); d = d.get("state_dict", d); '
    "save_file({k: v.clone().contiguous() for k, v in d.items()}, sys.argv[2])"
)
MODEL_FILE = "model.safetensors"  # in a run folder


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself; None where it does not say.

    Attributes:
        arch: name of the architecture, as `build_model` takes it
        dataset: ID set that the weights were trained on
        mean, std: normalisation of the three channels, in units of pixel values scaled to [0, 1]
        class_names: one name a logit
        image_size: side of the training images in pixels
        detector: the calibration of an exported detector, JSON
    """

    arch: str | None = None
    dataset: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    class_names: tuple[str, ...] | None = None
    image_size: int | None = None
    detector: str | None = None


def read_info(path: Path) -> WeightsInfo:
    """The metadata of a weights file.

    Raises:
        InputError: no such file, not safetensors (a pickled checkpoint, say), or metadata that make no sense.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        if _is_pickle(path):
            out = shlex.quote(str(path.with_suffix(".safetensors")))
            words = f"python -c {shlex.quote(CONVERT)} {shlex.quote(str(path))} {out}"
            raise InputError(
                f"{path}: is not a safetensors file but a pickled checkpoint, which can run code and is not read; "
                f"convert it with `{words}`, which runs none either"
            ) from error
        raise InputError(f"{path}: is not a safetensors file ({error}); fetch it again") from error
    try:
        names = json.loads(metadata["class_names"]) if "class_names" in metadata else None
        size = int(metadata["image_size"]) if "image_size" in metadata else None
        return WeightsInfo(
            arch=metadata.get("arch"),
            dataset=metadata.get("dataset"),
            mean=_triple(metadata.get("mean")),
            std=_triple(metadata.get("std")),
            class_names=None if names is None else tuple(str(name) for name in names),
            image_size=size,
            detector=metadata.get("detector"),
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its metadata cannot be understood ({error}); write the file again") from error


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as torch.save writes it: a zip archive, or a bare pickle of protocol 2 or later."""
    with open(path, "rb") as file:
        start = file.read(4)
    return start == b"PK\3\4" or (start[:1] == b"\x80" and 2 <= start[1] <= 5)


def load_model(path: Path, arch: str | None = None, image_size: int = 32) -> tuple[Classifier, WeightsInfo]:
    """Build the classifier that a weights file holds, on the CPU in float32, with as many classes as its last layer.

    Args:
        path: a safetensors file.
        arch: the architecture; by default the one that the file names. Where the file names another, that is an error.
        image_size: side of the images in pixels, where the file does not say it.

    Raises:
        InputError: as `read_info`; the file does not name its architecture and none was given; it holds another
            architecture (the message names the tensors at fault); or it holds values that are not finite.
    """
    info = read_info(path)
    if arch is None:
        arch = info.arch
    if arch is None:
        raise InputError(f"{path}: does not say its architecture; give --model, one of {MODEL_CHOICES}")
    if info.arch is not None and info.arch != arch:
        raise InputError(f"{path}: holds weights of {info.arch}, not of {arch}; give --model {info.arch}")
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            tensors[name] = file.get_tensor(name)
    last = tensors.get("fc.weight")
    num_classes = len(last) if last is not None and last.ndim == 2 else 1
    model = build_model(arch, num_classes, info.image_size or image_size)
    expected = model.state_dict()
    problems = _differences(tensors, {name: tuple(value.shape) for name, value in expected.items()})
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"{path}: its tensors are not those of {arch}: {'; '.join(problems[:3])}{more}; "
            "give the --model that the file was made with"
        )
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: tensor {name} holds values that are not finite; use another checkpoint")
    model.load_state_dict(tensors)
    return model, info


def save_weights(path: Path, tensors: dict[str, torch.Tensor], info: WeightsInfo) -> None:
    """Write a `state_dict` with its metadata, beside the final name and then renamed."""
    metadata = {
        "arch": info.arch,
        "dataset": info.dataset,
        "mean": None if info.mean is None else ",".join(repr(value) for value in info.mean),
        "std": None if info.std is None else ",".join(repr(value) for value in info.std),
        "class_names": None if info.class_names is None else json.dumps(info.class_names, ensure_ascii=False),
        "image_size": None if info.image_size is None else str(info.image_size),
        "detector": info.detector,
    }
    # copies, because some models use one tensor under several names, which safetensors refuses
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    data = save(copies, {key: value for key, value in metadata.items() if value is not None})
    # safetensors writes the metadata in an order that changes from call to call; sorted, equal weights are equal files
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    content = len(header).to_bytes(8, "little") + header + data[8 + length :]
    replace_file(path, lambda beside: beside.write_bytes(content))


def _differences(tensors: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]) -> list[str]:
    # batch norm's step counter plays no part at a fixed momentum; public weights often leave it out
    missing = [n for n in expected if n not in tensors and not n.endswith("num_batches_tracked")]
    unknown = [n for n in tensors if n not in expected]
    shaped = [n for n in tensors if n in expected and tuple(tensors[n].shape) != expected[n]]
    return (
        [f"{n} has shape {tuple(tensors[n].shape)} instead of {expected[n]}" for n in shaped]
        + [f"{n} is missing" for n in missing]
        + [f"{n} is unknown" for n in unknown]
    )


def _triple(text: str | None) -> Triple | None:
    if text is None:
        return None
    values = [float(part) for part in text.split(",")]
    if len(values) != 3:
        raise ValueError(f"{text!r} is not three numbers")
    return (values[0], values[1], values[2])
