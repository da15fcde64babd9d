"""A calibrated classifier as a detector: images in, classes and a decision out.

    detector = srood.load_detector("runs/cifar10-resnet20-sroe-s0")
    found = detector.predict(["a.png", "b.png"])
    print(found.names, found.scores, found.is_ood)

An image is accepted as in-distribution where its score is at or below the threshold. All images are brought to the
classifier's size as evaluation does: short side resized, centre cropped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from srood import images as pixels
from srood.calibration import (
    Calibration,
    calibration_path,
    detector_score,
    parse_calibration,
    read_calibration,
)
from srood.devices import resolve_device
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.models import Classifier
from srood.models.weights import MODEL_FILE, Triple, load_model, read_info
from srood.normalisation import apply_normalisation, scale_and_shift

BATCH = 500  # as evaluation's: equal batches give equal bits

# (N, S, S, 3) uint8 -> logits (N, C), confidence (N,), scores (N,)
Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]
Run = Callable[[np.ndarray], Outputs]
ImageLike = np.ndarray | Image.Image | str | Path


class PixelClassifier(nn.Module):
    """A classifier with its normalisation: (N, H, W, 3) uint8 images to logits (N, C) and features (N, D)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, classifier: Classifier, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.classifier = classifier
        scale, shift = scale_and_shift(mean, std)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(apply_normalisation(images, self.scale, self.shift), return_features=True)


@dataclass(frozen=True)
class Predictions:
    """What a detector says of N images.

    Attributes:
        classes: number of the most probable class, (N,) int64
        names: its name, N strings
        confidence: its softmax probability, (N,) in [0, 1]
        scores: OOD score, (N,), larger = more OOD
        is_ood: the decision, (N,) bool
        logits: (N, C) float32
    """

    classes: np.ndarray
    names: tuple[str, ...]
    confidence: np.ndarray
    scores: np.ndarray
    is_ood: np.ndarray
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Detector:
    """A classifier with a score and a threshold. It may be used by several threads at once.

    Attributes:
        calibration: what the threshold was fixed on, and all that is known of the classifier
        threshold: images with a score above it are OOD
    """

    calibration: Calibration
    threshold: float
    run: Run = dataclasses.field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.calibration.class_names

    @property
    def score_name(self) -> str:
        """Name of the score, such as ``energy``."""
        return self.calibration.score

    @property
    def image_size(self) -> int:
        """Side of the classifier's images in pixels."""
        return self.calibration.image_size

    def predict(self, images: ImageLike | Sequence[ImageLike], batch_size: int = BATCH) -> Predictions:
        """Classify images and decide which are OOD.

        Args:
            images: (N, H, W, 3) uint8; one image: an (H, W, 3) or (H, W) uint8 array, a Pillow image or a path; or a
                sequence of these
            batch_size: images a forward pass

        Raises:
            InputError: an image that cannot be read; the message names it.
            ValueError: an array of another shape or type, or a batch of no image.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; one image or more is needed")
        listed = _listed(images)
        parts = []
        for start in range(0, len(listed), batch_size):
            parts.append(self.run(self._decode(listed[start : start + batch_size], start)))
        if not parts:
            parts.append((np.empty((0, len(self.classes)), np.float32), np.empty(0), np.empty(0)))
        logits, confidence, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        classes = logits.argmax(axis=1)
        # in the precision of the scores, as an exported graph decides; not "above", so that NaN is never accepted
        is_ood = ~(scores <= scores.dtype.type(self.threshold))
        names = tuple(self.classes[number] for number in classes)
        return Predictions(classes, names, confidence, scores, is_ood, logits)

    def _decode(self, listed: np.ndarray | list[np.ndarray | Image.Image | Path], start: int) -> np.ndarray:
        size = self.image_size
        if isinstance(listed, np.ndarray) and listed.shape[1:] == (size, size, 3):
            return np.ascontiguousarray(listed)  # torch takes no negative strides, such as those of a BGR view
        batch, reasons = pixels.decode_batch(list(listed), size)
        for number, reason in enumerate(reasons):
            if reason is not None:
                item = listed[number]
                name = str(item) if isinstance(item, Path) else f"image {start + number}"
                raise InputError(f"{name}: cannot be used ({reason}); leave it out or replace it")
        return batch


def load_detector(path: str | Path, device: str = "auto", threshold: float | None = None) -> Detector:
    """Open a calibrated classifier.

    Args:
        path: a run folder that was calibrated, a weights file (.safetensors) that was, or what ``srood export`` wrote
            as safetensors or ONNX
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ONNX graphs run on the CPU
        threshold: one to use instead of the calibrated one

    Raises:
        InputError: no such path, not calibrated, weights that are not those that were calibrated, an ONNX graph that is
            not what its record says, a device that is not there, or onnxruntime is missing.
    """
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        calibration, run = _open_onnx(path, device)
    else:
        on = resolve_device(device)
        network, calibration = open_network(path)
        run = scorer(network, calibration.score, on)
    if threshold is None:
        threshold = calibration.threshold
    elif not math.isfinite(threshold):
        raise InputError(f"--threshold {threshold}: is not a finite number; give one on the scale of the score")
    return Detector(calibration, float(threshold), run)


def open_network(path: Path) -> tuple[PixelClassifier, Calibration]:
    """The network of a calibrated run folder or weights file, on the CPU in evaluation mode, with its calibration.

    Raises:
        InputError: as of `load_detector`.
    """
    weights = path / MODEL_FILE if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{path}: no such run folder, weights file or exported detector; check the path")
    if path.is_dir() and not weights.is_file():
        raise InputError(f"{path}: holds no {MODEL_FILE}; give the folder of a finished run")
    if path.suffix.lower() in (".pt", ".pth"):
        raise InputError(
            f"{path}: is code as well as weights, which is not run here; give the run or the safetensors file, or load "
            "a TorchScript file with torch.jit.load where you trust it"
        )
    info = read_info(weights)
    beside = calibration_path(path)
    if beside.exists():
        calibration = read_calibration(beside)
        if calibration.weights_sha256 != file_sha256(weights):
            raise InputError(f"{beside}: was made for other weights than {weights}; run `srood calibrate {path}` again")
    elif info.detector is not None:
        calibration = parse_calibration(info.detector, str(path))
    else:
        raise InputError(f"{path}: has no threshold yet; run `srood calibrate {path}` first")
    classifier = load_model(weights, calibration.model, calibration.image_size)[0]
    if classifier.fc.out_features != len(calibration.class_names):
        raise InputError(f"{path}: its calibration names {len(calibration.class_names)} classes, not the weights' own")
    return PixelClassifier(classifier, calibration.mean, calibration.std).eval(), calibration


def scorer(network: PixelClassifier, score: str, device: torch.device) -> Run:
    """The function from images to logits, confidence and scores; the latter two in float64.

    Raises:
        InputError: an unknown score; when called, logits that are not finite.
    """
    score_of = detector_score(score)
    network = network.eval().to(device)

    def run(images: np.ndarray) -> Outputs:
        with torch.inference_mode():
            logits, features = (part.float().cpu() for part in network(torch.tensor(images, device=device)))
            if not torch.isfinite(logits).all():
                raise InputError("the classifier gives logits that are not finite; use other weights")
            # scores as evaluation computes them: softmax in float32 is 1 for many ID images
            wide = logits.double()
            scores = score_of(wide, features.double())
            return logits.numpy(), wide.softmax(dim=1).amax(dim=1).numpy(), scores.numpy()

    return run


def _open_onnx(path: Path, device: str) -> tuple[Calibration, Run]:
    if not path.is_file():
        raise InputError(f"{path}: no such exported detector; check the path")
    if device not in ("auto", "cpu"):
        raise InputError(f"--device {device}: ONNX graphs run on the CPU here; give cpu, or the run itself")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path}: needs onnxruntime; install it with `pip install 'srood[onnx]'`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise InputError(f"{path}: cannot be loaded as an ONNX model ({' '.join(str(error).split())})") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if "detector" not in metadata:
        raise InputError(f"{path}: is an ONNX model but no detector; make one with `srood export --format onnx`")
    calibration = parse_calibration(metadata["detector"], str(path))
    size, classes = calibration.image_size, len(calibration.class_names)
    expected = {"images": (size, size, 3), "logits": (classes,), "confidence": (), "score": ()}
    found = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    for name, shape in expected.items():
        if name not in found:
            raise InputError(f"{path}: has no '{name}', which a detector has; export it again")
        if len(found[name]) != 1 + len(shape) or any(
            isinstance(side, int) and side != wanted for side, wanted in zip(found[name][1:], shape, strict=True)
        ):
            raise InputError(
                f"{path}: its record is of {classes} classes and images of {size} pixels, but its '{name}' is "
                f"{tuple(found[name])}; export it again"
            )

    def run(images: np.ndarray) -> Outputs:
        logits, confidence, scores = session.run(["logits", "confidence", "score"], {"images": images})
        if not np.isfinite(logits).all():
            raise InputError(f"{path}: gives logits that are not finite; export other weights")
        return logits, confidence, scores

    return calibration, run


def _listed(images: ImageLike | Sequence[ImageLike]) -> np.ndarray | list[np.ndarray | Image.Image | Path]:
    """One image or many as something that can be counted and sliced, of what `srood.images.decode` takes."""
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8:
            raise ValueError(f"images are {images.dtype}; pixels as uint8 from 0 to 255 are needed")
        if images.ndim == 4 and images.shape[3] == 3:
            return images
        if images.ndim == 2 or (images.ndim == 3 and images.shape[2] == 3):
            return images[None] if images.ndim == 3 else [images]
        raise ValueError(f"images have shape {images.shape}; (N, H, W, 3), (H, W, 3) or (H, W) is needed")
    if not isinstance(images, Sequence) or isinstance(images, str):
        images = [images]
    return [Path(item) if isinstance(item, str) else item for item in images]
